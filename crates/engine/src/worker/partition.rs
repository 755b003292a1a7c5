//! A partition that has been taken over: its aggregates, its position, and what its next checkpoint has to write.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use indexmap::IndexSet;

use contracts::core::v1::Metadata;

use crate::{Decider, State};

use super::aggregate::Aggregate;
use super::checkpoint::CheckpointProgress;
use super::{Safeguard, Settings};

/// A running partition.
pub struct PartitionState<D: Decider> {
    pub aggregates: HashMap<String, Aggregate<State<D>>>,
    /// First command that has not been processed.
    pub position: i64,
    /// What the group has committed.
    pub committed: i64,
    /// Offset after the last committed event.
    pub events_end: i64,
    /// The partition's own time: the highest append time seen, Unix milliseconds.
    pub time_ms: i64,
    /// Highest id time of an aggregate that has left memory.
    pub evicted_through_ms: i64,
    /// End of the commands at take-over: effects and timers rest until it has been reached, so
    /// that answers already in the log are read before anything is asked again.
    pub answers_until: i64,
    /// Effects and timers run.
    pub agenda_started: bool,
    /// Changed since the last checkpoint; in order, because it goes to the log.
    pub dirty: IndexSet<String>,
    /// Changed in the open window.
    pub changed: IndexSet<String>,
    /// How far the asker has come ([`Decider::ASKER`]), by its messages; Unix milliseconds.
    pub asked_ms: i64,
    /// Finished aggregates, in the order in which they finished.
    pub finished: VecDeque<Finished>,
    /// The checkpoint under way.
    pub round: Option<CheckpointProgress>,
    /// When the next checkpoint begins.
    pub checkpoint_at: Duration,
    /// Paused until then because a record cannot be decoded yet.
    pub blocked_until: Option<Duration>,
}

impl<D: Decider> PartitionState<D> {
    /// A partition that starts at `position` with nothing known.
    pub fn at(position: i64) -> Self {
        Self {
            aggregates: HashMap::new(),
            position,
            committed: position,
            events_end: 0,
            time_ms: 0,
            evicted_through_ms: 0,
            answers_until: 0,
            agenda_started: false,
            dirty: IndexSet::new(),
            changed: IndexSet::new(),
            asked_ms: 0,
            finished: VecDeque::new(),
            round: None,
            checkpoint_at: Duration::ZERO,
            blocked_until: None,
        }
    }

    /// Notes that an aggregate is about to change.
    pub fn touch(&mut self, id: &str) {
        if !self.changed.contains(id) {
            self.changed.insert(id.to_owned());
        }
        if !self.dirty.contains(id) {
            self.dirty.insert(id.to_owned());
        }
    }

    /// A message of the asker says how far it has come.
    pub fn hear(&mut self, metadata: &Metadata) {
        if D::ASKER.is_some_and(|asker| asker.name() == metadata.actor) {
            self.asked_ms = self.asked_ms.max(metadata.time_ms);
        }
    }

    /// Queues an aggregate for leaving memory once it is over; `now_ms` is what the clock on the wall shows.
    pub fn note_finished(&mut self, id: &str, now_ms: i64, settings: &Settings) {
        if let Some(aggregate) = self.aggregates.get(id)
            && D::finished(&aggregate.state)
        {
            self.finished
                .push_back(Finished::seen::<D>(id, aggregate.time_ms, now_ms, settings));
        }
    }

    /// Finished aggregates leave memory when they have been over since then, Unix milliseconds.
    pub fn leave_until_ms(&self, settings: &Settings) -> i64 {
        let now_ms = if leaves_by_asker::<D>(settings) {
            self.asked_ms
        } else {
            self.time_ms
        };
        now_ms - settings.remembered_ms()
    }

    /// Takes the next aggregate that finished at or before `until_ms` and has not changed since. What is dirty has
    /// events beyond the checkpoint under way and waits for the next one.
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

fn leaves_by_asker<D: Decider>(settings: &Settings) -> bool {
    D::ASKER.is_some() && settings.without != Some(Safeguard::AskersTime)
}

/// An aggregate that is over.
pub struct Finished {
    /// Its last time: a later one says that it has changed since.
    pub time_ms: i64,
    /// From when on it is remembered for a while more.
    pub since_ms: i64,
    pub id: String,
}

impl Finished {
    /// The asker learns of the end when it reads what is written now, however old the command was that led to it.
    pub fn seen<D: Decider>(id: &str, time_ms: i64, now_ms: i64, settings: &Settings) -> Self {
        let since_ms = if leaves_by_asker::<D>(settings) {
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
