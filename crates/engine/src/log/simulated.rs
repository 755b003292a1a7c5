//! A log in memory that behaves towards a worker as Kafka does, with a virtual clock and a fault injector between any
//! two steps.
//!
//! It exists for tests: the same conformance suite runs on it and on Kafka, and the simulator runs the platform on it.
//! Nothing here blocks, reads the system clock or draws a random number: the [`FaultInjector`] does all of that.
//!
//! - [`Broker`]: partitions ([`records`](self)), the transaction coordinator and the group coordinators. Work that a
//!   broker does asynchronously (markers, expiry, rebalances, delayed requests) is a [`PendingAction`] until the caller
//!   performs it.
//! - [`SimulatedLog`]: the client side of a worker, in place of librdkafka.

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

pub use broker::{Broker, ExternalTransaction, Fetched, PendingAction};
pub use fault_injector::{EndDelivery, FaultInjector, FaultPoint, NoFaults, StepOutcome};
pub use group::Generation;
pub use journal::Journal;
pub use member::{ClientKind, LogDefect, Probe, SimulatedLog};

/// A partition of a topic.
pub type TopicPartition = (Service, Topic, Partition);

/// Start of a virtual clock, Unix milliseconds.
const START_MS: i64 = 1_800_000_000_000;

/// A clock that advances only by [`Clock::advance_ms`]; clones share the time.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<AtomicI64>);

impl Clock {
    /// The current time, Unix milliseconds.
    pub fn unix_ms(&self) -> i64 {
        START_MS + self.0.load(Ordering::Relaxed)
    }

    /// Time since the clock started.
    pub fn elapsed(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(0))
    }

    /// Advances the clock by that many milliseconds.
    pub fn advance_ms(&self, by: i64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }
}
