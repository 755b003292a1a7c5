//! The contracts of ordermesh: all messages of clients, services and the log.
//!
//! The messages are generated from the `.proto` files beside this one. Written by hand are a common view of the records
//! of all topics ([`Record`]), the commands between services ([`Message`]), and the rules that the proto files cannot
//! express ([`rules`]).

pub mod rules;

mod record;

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

pub use prost_protovalidate::{Validate, Violation};
pub use record::{
    Body, Command, Contract, Inventory, Message, Orders, Payments, Record, Service, Shipping,
    StateBody, Topic,
};

#[allow(missing_docs, unused_qualifications, clippy::all, clippy::pedantic)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/contracts.rs"));
}
pub use generated::ordermesh::{
    self, carrier, core, inventory, orders, payments, provider, query, sandbox, shipping,
};

#[allow(clippy::all, clippy::pedantic, unused_qualifications)]
mod validators {
    use crate::ordermesh;

    include!(concat!(env!("OUT_DIR"), "/validate_impl.rs"));
    include!(concat!(env!("OUT_DIR"), "/bodies.rs"));
}

/// The encoded descriptors of all contracts, for gRPC reflection and the schema registry.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/contracts.bin"));

/// The descriptors of all contracts.
pub static DESCRIPTOR_POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(DESCRIPTOR_SET).expect("the descriptors were encoded by the build")
});
