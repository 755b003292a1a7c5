//! A log in memory that behaves towards a worker as Kafka does, with a virtual clock and a fate that says what happens
//! between any two steps.
//!
//! It exists for tests: the same conformance suite runs on it and on Kafka, and the simulator runs the whole platform
//! on it. Nothing here waits, takes the time from the machine, or draws a number: all of that is the [`FaultInjector`]'s.
//!
//! - [`Broker`]: partitions ([`records`](self)), the transaction coordinator, the groups' coordinator. Whatever a
//!   broker does by itself later (markers, expiry, rebalances, delayed requests) waits as a [`PendingAction`] until somebody
//!   picks it.
//! - [`SimulatedLog`]: what librdkafka does on the worker's side.

mod broker;
mod fault_injector;
mod group;
mod journal;
mod member;
mod records;
mod transactions;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use contracts::{Service, Topic};

use super::Partition;

pub use broker::{Broker, Fetched, Foreign, PendingAction};
pub use fault_injector::{Ending, FaultInjector, NoFaults, Point, StepOutcome};
pub use group::Generation;
pub use journal::Journal;
pub use member::{Client, DisabledSafeguard, Probe, SimulatedLog};

/// A partition of a topic.
pub type TopicPartition = (Service, Topic, Partition);

/// When a virtual clock begins, Unix milliseconds.
const BEGIN_MS: i64 = 1_800_000_000_000;

/// A clock that moves only when it is told to; clones show the same time.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<AtomicI64>);

impl Clock {
    /// Unix milliseconds.
    pub fn unix_ms(&self) -> i64 {
        BEGIN_MS + self.0.load(Ordering::Relaxed)
    }

    /// Since the clock began.
    pub fn elapsed(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(0))
    }

    /// Moves it on.
    pub fn advance_ms(&self, by: i64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }
}
