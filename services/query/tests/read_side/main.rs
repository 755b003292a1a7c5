//! The read side on a real Kafka and a real PostgreSQL: events in, answers out.
//!
//! Every test has topics and a database of its own. `ORDERMESH_KAFKA` and `ORDERMESH_DATABASE` say on which servers.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails where something unexpected happens"
)]

mod api;
mod events;
mod figures;
mod fixture;
mod projector;
mod sharing;
mod throughput;
mod trouble;
mod watch;
