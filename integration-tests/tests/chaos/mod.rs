//! Real processes under real faults: whatever breaks under a load, afterwards everything balances.
//!
//! Each test is the short form of a fault; the long ones, in a random order, are those of `make chaos`.

mod faults;
mod replicas;
