//! Real processes under real faults: whatever breaks under a load, afterwards everything balances.
//!
//! Each test is the short form of a fault; the long ones, in a random order, are those of `make chaos`.
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
