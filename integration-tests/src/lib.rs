//! The test harness: real servers, topics, engines and processes to run, kill and observe.

#![allow(
    clippy::print_stdout,
    reason = "the test runner shows it when a test fails"
)]

pub mod alerts;
pub mod basket_load;
pub mod chaos;
mod child_process;
pub mod conformance;
pub mod eventually;
pub mod fault_injecting_log;
pub mod jaeger;
pub mod kafka_fixture;
pub mod prometheus;
pub mod records;
pub mod runner;
pub mod servers;
mod signals;
pub mod system;

pub use engine::effects::NoEffects;
pub use eventually::eventually;
pub use kafka_fixture::{KafkaFixture, SentCommand};
pub use runner::RunningWorker;
