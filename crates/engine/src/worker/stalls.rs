//! Stalled partitions: records wait for no known reason and are not delivered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use contracts::Contract;

use super::{Error, Worker};
use crate::Decider;
use crate::effects::EffectScheduler;
use crate::log::replacement::FailureTracker;
use crate::log::{Ends, Log, Partition, Peek};

/// How long records may wait at a position that does not advance. A transaction of another service ends within
/// milliseconds, a worker's own window within seconds.
const STALL_AFTER: Duration = Duration::from_secs(5);
/// Between two reads of a stalled partition by a fresh reader.
const PROBE_INTERVAL: Duration = Duration::from_secs(3);
/// A consumer that does not deliver records that a fresh reader reads is recreated after this time.
const PATIENCE: Duration = Duration::from_secs(2);

/// Partitions with waiting records, and since when their positions do not advance.
pub struct StallDetector {
    waiting: BTreeMap<Partition, WaitingRecords>,
    /// Failures of the consumer: a fresh reader reads records that it does not deliver.
    consumer: FailureTracker,
    /// When any position last advanced: the consumer delivers.
    advanced_at: Duration,
}

impl Default for StallDetector {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            consumer: FailureTracker::with_patience(PATIENCE),
            advanced_at: Duration::ZERO,
        }
    }
}

impl StallDetector {
    /// Forgets the waiting times: they mean nothing while the broker is unavailable.
    pub fn forget(&mut self) {
        self.waiting.clear();
    }
}

/// Records that wait at a position.
struct WaitingRecords {
    position: i64,
    since: Duration,
    probe_at: Duration,
}

impl WaitingRecords {
    fn at(position: i64, now: Duration) -> Self {
        Self {
            position,
            since: now,
            probe_at: now + STALL_AFTER,
        }
    }
}

impl<D: Decider, L: Log, S: EffectScheduler<D>> Worker<D, L, S> {
    /// Compares the positions with the ends of the partitions: `ends`, just fetched from the broker, for the partition
    /// `fetched`, and the consumer's last statistics for the others. Recreates a consumer that does not deliver records
    /// that a fresh reader reads; any other stall is reported in the status.
    pub(super) fn check_stalls(&mut self, fetched: Partition, ends: Ends) -> Result<(), Error> {
        let now = self.log.now();
        self.stalls
            .waiting
            .retain(|partition, _| self.partitions.get(*partition).is_some());
        let mut stalled = BTreeSet::new();
        let mut due = Vec::new();
        for (partition, phase) in self.partitions.phases() {
            let Some(state) = phase.state() else {
                continue;
            };
            let fetched_end = (partition == fetched).then_some(ends.high);
            let end = fetched_end.max(self.log.stable_end(partition));
            let position = state.position;
            if phase.is_paused() || end.is_some_and(|end| end <= position) {
                self.stalls.waiting.remove(&partition);
                continue;
            }
            let waiting = &mut self.stalls.waiting;
            let Some(waiting) = waiting.get_mut(&partition) else {
                if end.is_some() {
                    waiting.insert(partition, WaitingRecords::at(position, now));
                }
                continue;
            };
            if waiting.position != position {
                *waiting = WaitingRecords::at(position, now);
                self.stalls.advanced_at = now;
                self.stalls.consumer.answered();
            }
            let waited = now.saturating_sub(waiting.since);
            if waited >= STALL_AFTER {
                stalled.insert(partition);
            }
            if waiting.probe_at <= now {
                waiting.probe_at = now + PROBE_INTERVAL;
                due.push((partition, position, waited));
            }
        }
        self.status.retain_stalled(&stalled);
        let probed = self.probe(due);
        self.measurements.stalled = self.status.stalled_count();
        probed
    }

    fn probe(&mut self, due: Vec<(Partition, i64, Duration)>) -> Result<(), Error> {
        let service = D::Contract::SERVICE;
        for (partition, position, duration) in due {
            let found = match self.log.peek(partition, position) {
                Ok(found) => found,
                Err(error) => return self.handle_log_error(error),
            };
            let reason = match found {
                Peek::Readable => {
                    let now = self.log.now();
                    if now.saturating_sub(self.stalls.advanced_at) < STALL_AFTER {
                        // Its records wait behind those of other partitions.
                        continue;
                    }
                    if self.stalls.consumer.failed(now) {
                        self.stalls.consumer.replaced();
                        self.stalls.waiting.clear();
                        return self.rejoin(&format!(
                            "partition {partition} is readable from {position} on, but not delivered"
                        ));
                    }
                    "the consumer does not deliver existing records".to_owned()
                }
                Peek::Held(stable) => {
                    format!(
                        "a transaction that has not ended holds back everything from {stable} on"
                    )
                }
                Peek::Unreadable(reason) => reason,
                Peek::Nothing => "the broker delivers nothing".to_owned(),
            };
            let seconds = duration.as_secs();
            self.status
                .stalled(service, partition, position, seconds, reason);
        }
        Ok(())
    }
}
