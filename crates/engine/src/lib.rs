//! The event-sourcing engine of ordermesh: commands in, decide, events out, messages to neighbours out, all in one
//! Kafka transaction.
//!
//! A service is a rule book ([`Decider`]) and, where it talks to the outside world, a [`effects::EffectHandler`]; the
//! engine does the rest: [`worker::Worker`] decides, [`effects::Executor`] carries out, [`CommandClient`] asks.

mod codec;
mod command_client;
mod decider;
pub mod effects;
pub mod headers;
pub mod log;
pub mod metrics;
mod processor;
mod sending;
pub mod topics;
pub mod worker;

pub use codec::{Codec, Poison, Undecodable, describe};
pub use command_client::{Answer, Call, CommandClient, Error as CallError};
pub use decider::{Command, Context, Decider, Event, Outcome, Outstanding, State};
pub use log::kafka::{Cluster, RecordMetadata, Sender};
pub use metrics::Metrics;
pub use processor::Processor;
