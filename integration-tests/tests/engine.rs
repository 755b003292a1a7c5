//! The engine on a real Kafka, with the real contracts and rule books.

mod calls;
mod conformance;
mod damage;
mod dead_letters;
mod effects;
mod eviction;
mod faults;
mod inventory_helpers;
mod membership;
mod offsets;
mod recovery;
mod schemas;
mod sharing;
mod simulated;
mod standstill;
mod takeover;
mod topics;
