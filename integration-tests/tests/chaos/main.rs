//! Faults on real processes under load, each followed by an audit.
//!
//! Each test runs a fault at its short scale. `make chaos` runs the long ones in random order.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails where something unexpected happens"
)]
#![allow(
    clippy::print_stdout,
    reason = "the test runner shows it when a test fails"
)]

mod faults;
mod replicas;
