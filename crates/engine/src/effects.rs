//! Effects and timers: run after the commit, outside the worker's thread.

mod backoff;
mod breaker;
mod carry_out;
mod clock;
mod executor;
mod handler;
mod indeterminate;
mod result_sender;
mod runtime;
mod target;
mod target_metrics;
mod trace;

use observability::TraceParent;

use crate::log::Partition;
use crate::{Decider, Outstanding};

pub(crate) use clock::unix_ms;
pub use executor::{Executor, Limits};
pub use handler::{Attempt, EffectHandler, Indeterminate, NoEffects};
pub use runtime::EffectRuntime;
pub use target_metrics::TargetMetrics;

/// Origin of a state's outstanding effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This worker has just decided them: no call has been made yet.
    Decided,
    /// Found at take-over: a former owner may have made calls.
    TakenOver,
}

/// Context of an aggregate's outstanding effects and timers.
#[derive(Clone, Copy, Debug)]
pub struct EffectContext {
    /// Their origin.
    pub origin: Origin,
    /// Time of the aggregate's last event (Unix milliseconds), the latest at which they became outstanding.
    pub since_ms: i64,
    /// The trace that they continue.
    pub trace: Option<TraceParent>,
}

/// Runs the outstanding effects and timers of a worker's aggregates.
pub trait EffectScheduler<D: Decider> {
    /// Replaces the outstanding effects and timers of the aggregate `id`: those in both the old and the new list
    /// continue, the others end or start.
    fn replace(
        &mut self,
        partition: Partition,
        id: String,
        outstanding: Vec<Outstanding<D>>,
        context: EffectContext,
    );

    /// Cancels all effects and timers of a partition.
    fn forget(&mut self, partition: Partition);

    /// Whether the scheduler still runs effects and timers.
    fn is_alive(&self) -> bool;
}
