//! The event-sourcing engine of ordermesh: commands in, decide, events out, messages to neighbours out, all in one
//! Kafka transaction.
//!
//! A service is a rule book ([`Decider`]) and, where it talks to the outside world, a [`effects::Perform`]; the
//! engine does the rest: [`worker::Worker`] decides, [`effects::Executor`] carries out, [`Caller`] asks.

mod caller;
mod codec;
mod decider;
pub mod effects;
pub mod headers;
pub mod log;
pub mod metrics;
mod processor;
mod sending;
pub mod topics;
pub mod worker;

pub use caller::{Answer, Call, Caller, Error as CallError};
pub use codec::{Codec, Poison, Undecodable, describe};
pub use decider::{Command, Context, Decider, Event, Outcome, Outstanding, State};
pub use log::kafka::{Cluster, Receipt, Sender};
pub use metrics::Metrics;
pub use processor::Processor;
