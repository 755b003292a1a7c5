//! What the tests stand on: real servers, topics of their own, engines and processes to run, kill and watch.

#![allow(
    clippy::print_stdout,
    reason = "the test runner shows it when a test fails"
)]

pub mod alerts;
pub mod chaos;
pub mod conformance;
pub mod eventually;
pub mod fault_injecting_log;
pub mod jaeger;
pub mod kafka_fixture;
mod parts;
pub mod prometheus;
pub mod records;
pub mod runner;
pub mod servers;
mod signals;
pub mod system;

pub use eventually::eventually;
pub use kafka_fixture::{KafkaFixture, Sent};
pub use runner::{NoEffects, RunningWorker};
