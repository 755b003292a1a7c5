//! A partition that has been taken over: its aggregates, its position, and what its next checkpoint has to write.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use indexmap::IndexSet;

use crate::{Decider, State};

use super::aggregate::Aggregate;
use super::checkpoint::Round;

/// A running partition.
pub struct Running<D: Decider> {
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
    /// Finished aggregates by the time at which they finished, oldest first.
    pub finished: VecDeque<(i64, String)>,
    /// The checkpoint under way.
    pub round: Option<Round>,
    /// When the next checkpoint begins.
    pub checkpoint_at: Duration,
    /// Paused until then because a record cannot be decoded yet.
    pub blocked_until: Option<Duration>,
}

impl<D: Decider> Running<D> {
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

    /// Queues an aggregate for leaving memory once it is over.
    pub fn note_finished(&mut self, id: &str) {
        if let Some(aggregate) = self.aggregates.get(id)
            && D::finished(&aggregate.state)
        {
            self.finished.push_back((aggregate.time_ms, id.to_owned()));
        }
    }

    /// Takes the next aggregate that finished at or before `until_ms` and has not changed since. What is dirty has
    /// events beyond the checkpoint under way and waits for the next one.
    pub fn next_evictable(&mut self, until_ms: i64) -> Option<String> {
        while let Some((time_ms, id)) = self.finished.front() {
            if *time_ms > until_ms || self.dirty.contains(id) {
                return None;
            }
            let (time_ms, id) = self.finished.pop_front()?;
            if self.aggregates.get(&id).is_some_and(|aggregate| {
                aggregate.time_ms == time_ms && D::finished(&aggregate.state)
            }) {
                return Some(id);
            }
        }
        None
    }
}
