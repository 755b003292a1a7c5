//! The read side on a real Kafka and a real PostgreSQL: events in, answers out.
//!
//! Every test has topics and a database of its own, on the servers at `ORDERMESH_KAFKA` and `ORDERMESH_DATABASE`.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails where something unexpected happens"
)]

mod api;
mod events;
mod failures;
mod fixture;
mod metrics;
mod projector;
mod sharing;
mod throughput;
mod watch;
