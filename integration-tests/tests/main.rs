//! Tests of the engine on a real Kafka, and of the whole system on the whole stack.
//!
//! Every test has topics of its own, and a database where it needs one. `ORDERMESH_KAFKA`, `ORDERMESH_REGISTRY`,
//! `ORDERMESH_DATABASE` and `ORDERMESH_STACK` select the servers; `make test` sets them.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails where something unexpected happens"
)]
#![allow(
    clippy::print_stdout,
    reason = "the test runner shows it when a test fails"
)]

mod architecture;
mod compose;
mod engine;
mod golden;
mod rule_books;
mod system;
