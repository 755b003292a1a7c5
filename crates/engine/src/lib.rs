//! The event-sourcing engine of ordermesh: it reads commands, decides them, and writes events and messages to other
//! services in one Kafka transaction.
//!
//! A service is a rule book ([`Decider`]) and, where it calls partners outside, an [`effects::EffectHandler`].
//! [`worker::Worker`] decides commands, [`effects::Executor`] runs effects and timers, and [`CommandClient`] sends
//! commands and waits for their outcomes.

mod codec;
mod command_client;
mod decider;
pub mod effects;
pub mod headers;
pub mod log;
pub mod metrics;
mod processor;
mod send_span;
pub mod topics;
pub mod worker;

pub use codec::{Codec, Poison, Undecodable, describe};
pub use command_client::{Answer, Call, CommandClient, Error as CallError};
pub use decider::{Command, Context, Decider, Event, Outcome, Outstanding, State};
pub use log::kafka::Sender;
pub use log::{Cluster, RecordMetadata, SendError};
pub use metrics::Metrics;
pub use processor::Processor;
