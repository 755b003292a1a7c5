//! State of a partition that was taken over: aggregates, position, and the states for the next checkpoint.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use indexmap::IndexSet;

use contracts::core::v1::Metadata;

use crate::{Decider, State};

use super::aggregate::Aggregate;
use super::checkpoint::CheckpointProgress;
use super::{Settings, WorkerSafeguard};

/// State of a processed partition.
pub struct PartitionState<D: Decider> {
    pub aggregates: HashMap<String, Aggregate<State<D>>>,
    /// First command that has not been processed.
    pub position: i64,
    /// The group's committed offset.
    pub committed: i64,
    /// Offset after the last committed event.
    pub events_end: i64,
    /// The partition's own time: the highest append time seen, Unix milliseconds.
    pub time_ms: i64,
    /// Highest id time of an evicted aggregate, Unix milliseconds.
    pub evicted_through_ms: i64,
    /// End of the commands at take-over: effects and timers start when the position reaches it, so that answers already
    /// in the log are read before any call is repeated.
    pub answers_until: i64,
    /// Effects and timers have started.
    pub effects_started: bool,
    /// Aggregates changed since the last checkpoint; ordered, because they are written to the log in this order.
    pub dirty: IndexSet<String>,
    /// Aggregates changed in the open window.
    pub changed: IndexSet<String>,
    /// Time of the asking service ([`Decider::ASKER`]), from its messages; Unix milliseconds.
    pub asker_time_ms: i64,
    /// Finished aggregates, in the order in which they finished.
    pub finished: VecDeque<Finished>,
    /// The checkpoint that is being written.
    pub checkpoint: Option<CheckpointProgress>,
    /// When the next checkpoint begins.
    pub checkpoint_at: Duration,
}

impl<D: Decider> PartitionState<D> {
    /// An empty partition at `position`.
    pub fn at(position: i64) -> Self {
        Self {
            aggregates: HashMap::new(),
            position,
            committed: position,
            events_end: 0,
            time_ms: 0,
            evicted_through_ms: 0,
            answers_until: 0,
            effects_started: false,
            dirty: IndexSet::new(),
            changed: IndexSet::new(),
            asker_time_ms: 0,
            finished: VecDeque::new(),
            checkpoint: None,
            checkpoint_at: Duration::ZERO,
        }
    }

    /// Marks an aggregate as changed in the open window and since the last checkpoint.
    pub fn mark_changed(&mut self, id: &str) {
        if !self.changed.contains(id) {
            self.changed.insert(id.to_owned());
        }
        if !self.dirty.contains(id) {
            self.dirty.insert(id.to_owned());
        }
    }

    /// Advances the asker's time by its message.
    pub fn observe_asker(&mut self, metadata: &Metadata) {
        if D::ASKER.is_some_and(|asker| asker.name() == metadata.actor) {
            self.asker_time_ms = self.asker_time_ms.max(metadata.time_ms);
        }
    }

    /// Queues a finished aggregate for eviction; `now_ms` is the wall-clock time.
    pub fn enqueue_finished(&mut self, id: &str, now_ms: i64, settings: &Settings) {
        if let Some(aggregate) = self.aggregates.get(id)
            && D::finished(&aggregate.state)
        {
            self.finished
                .push_back(Finished::new::<D>(id, aggregate.time_ms, now_ms, settings));
        }
    }

    /// Aggregates that finished at or before this time are evicted, Unix milliseconds.
    pub fn eviction_limit_ms(&self, settings: &Settings) -> i64 {
        let now_ms = if evicts_by_asker_time::<D>(settings) {
            self.asker_time_ms
        } else {
            self.time_ms
        };
        now_ms - settings.remembered_ms()
    }

    /// Takes the next aggregate that finished at or before `until_ms` and has not changed since. A dirty one has events
    /// beyond the current checkpoint and waits for the next one.
    pub fn next_evictable(&mut self, until_ms: i64) -> Option<String> {
        while let Some(first) = self.finished.front() {
            if first.since_ms > until_ms || self.dirty.contains(&first.id) {
                return None;
            }
            let first = self.finished.pop_front()?;
            if self.aggregates.get(&first.id).is_some_and(|aggregate| {
                aggregate.time_ms == first.time_ms && D::finished(&aggregate.state)
            }) {
                return Some(first.id);
            }
        }
        None
    }
}

fn evicts_by_asker_time<D: Decider>(settings: &Settings) -> bool {
    D::ASKER.is_some() && settings.has(WorkerSafeguard::AskersTime)
}

/// A finished aggregate.
pub struct Finished {
    /// Time of its last event then; a later time means that it has changed since.
    pub time_ms: i64,
    /// Start of its remaining time in memory, Unix milliseconds.
    pub since_ms: i64,
    pub id: String,
}

impl Finished {
    /// With an asker, the time in memory starts now at the earliest: the asker learns of the end when it reads the
    /// record that is written now, however old the command was.
    pub fn new<D: Decider>(id: &str, time_ms: i64, now_ms: i64, settings: &Settings) -> Self {
        let since_ms = if evicts_by_asker_time::<D>(settings) {
            time_ms.max(now_ms)
        } else {
            time_ms
        };
        Self {
            time_ms,
            since_ms,
            id: id.to_owned(),
        }
    }
}
