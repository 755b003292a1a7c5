//! Effects and timers: carried out after commit, away from the worker's thread.

mod answers;
mod backoff;
mod breaker;
mod carry_out;
mod clock;
mod executor;
mod figures;
mod handler;
mod runtime;
mod target;
mod trace;

use observability::TraceParent;

use crate::log::Partition;
use crate::{Decider, Outstanding};

pub(crate) use clock::unix_ms;
pub use executor::{Executor, Limits};
pub use figures::TargetFigures;
pub use handler::{Attempt, EffectHandler, Unknown};
pub use runtime::EffectRuntime;

/// Where a state's outstanding effects come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This worker has just decided them: nobody has tried them yet.
    Decided,
    /// They were found at take-over: a former owner may have tried them.
    TakenOver,
}

/// What is known of an aggregate's outstanding effects and timers besides themselves.
#[derive(Clone, Copy, Debug)]
pub struct EffectContext {
    /// Where they come from.
    pub origin: Origin,
    /// Time of the aggregate's last event (Unix milliseconds), the latest at which they became outstanding.
    pub since_ms: i64,
    /// The trace that they go on with.
    pub trace: Option<TraceParent>,
}

/// What the worker tells of its aggregates' outstanding effects and timers.
pub trait EffectScheduler<D: Decider> {
    /// Replaces everything that runs for the aggregate `id`: what is in both goes on, the rest ends or begins.
    fn replace(
        &mut self,
        partition: Partition,
        id: String,
        outstanding: Vec<Outstanding<D>>,
        occasion: EffectContext,
    );

    /// Ends everything of a partition.
    fn forget(&mut self, partition: Partition);

    /// Whether effects and timers are carried out at all.
    fn is_alive(&self) -> bool;
}
