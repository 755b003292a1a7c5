//! The engine on a real Kafka, and the whole system on the whole stack.
//!
//! Every test has topics, and where it needs one a database, of its own. `ORDERMESH_KAFKA`, `ORDERMESH_REGISTRY`,
//! `ORDERMESH_DATABASE` and `ORDERMESH_STACK` say on which servers; `make test` sets them.
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
mod observability;
mod rule_books;
mod system;
