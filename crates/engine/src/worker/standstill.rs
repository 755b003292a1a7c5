//! Partitions that stand still: records wait, nothing is known that keeps them, and none is delivered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use contracts::Contract;

use super::{Error, Worker};
use crate::Decider;
use crate::effects::EffectScheduler;
use crate::log::replacement::Failing;
use crate::log::{Ends, Log, Partition, Peek};

/// How long records may wait at a position that does not move. A transaction of a neighbour ends within milliseconds,
/// a worker's own window within seconds.
const STILL: Duration = Duration::from_secs(5);
/// Between two looks of a fresh reader at a partition that stands still.
const EXAMINE_EVERY: Duration = Duration::from_secs(3);
/// A consumer that does not deliver what a fresh reader reads is made anew after this.
const PATIENCE: Duration = Duration::from_secs(2);

/// Which partitions do not move, and since when.
pub struct Standstill {
    waiting: BTreeMap<Partition, Waiting>,
    /// The consumer, while a fresh reader reads what it does not deliver.
    consumer: Failing,
    /// When some partition moved last: its consumer delivers.
    moved_at: Duration,
}

impl Default for Standstill {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            consumer: Failing::with_patience(PATIENCE),
            moved_at: Duration::ZERO,
        }
    }
}

impl Standstill {
    /// The broker is away: how long partitions have stood still says nothing.
    pub fn forget(&mut self) {
        self.waiting.clear();
    }
}

/// Records wait at a position.
struct Waiting {
    position: i64,
    since: Duration,
    examine_at: Duration,
}

impl Waiting {
    fn at(position: i64, now: Duration) -> Self {
        Self {
            position,
            since: now,
            examine_at: now + STILL,
        }
    }
}

impl<D: Decider, L: Log, A: EffectScheduler<D>> Worker<D, L, A> {
    /// Compares the positions with the ends of the partitions: of one as the broker has just told them, of the others
    /// as the consumer heard them last. A consumer that does not deliver what a fresh reader reads is made anew; any
    /// other standstill is named.
    pub(super) fn check_standstill(&mut self, asked: Partition, ends: Ends) -> Result<(), Error> {
        let now = self.log.now();
        self.standstill
            .waiting
            .retain(|partition, _| self.running.contains_key(partition));
        let mut still = BTreeSet::new();
        let mut due = Vec::new();
        for (partition, running) in &self.running {
            let asked_end = (*partition == asked).then_some(ends.high);
            let end = asked_end.max(self.log.stable_end(*partition));
            let position = running.position;
            let is_known = running.blocked_until.is_some();
            if is_known || end.is_some_and(|end| end <= position) {
                self.standstill.waiting.remove(partition);
                continue;
            }
            let waiting = &mut self.standstill.waiting;
            let Some(waiting) = waiting.get_mut(partition) else {
                if end.is_some() {
                    waiting.insert(*partition, Waiting::at(position, now));
                }
                continue;
            };
            if waiting.position != position {
                *waiting = Waiting::at(position, now);
                self.standstill.moved_at = now;
                self.standstill.consumer.answered();
            }
            let stood = now.saturating_sub(waiting.since);
            if stood >= STILL {
                still.insert(*partition);
            }
            if waiting.examine_at <= now {
                waiting.examine_at = now + EXAMINE_EVERY;
                due.push((*partition, position, stood));
            }
        }
        self.status.only_these_stand(&still);
        let examined = self.examine(due);
        self.figures.standing = self.status.standing();
        examined
    }

    fn examine(&mut self, due: Vec<(Partition, i64, Duration)>) -> Result<(), Error> {
        let service = D::Contract::SERVICE;
        for (partition, position, duration) in due {
            let found = match self.log.peek(partition, position) {
                Ok(found) => found,
                Err(error) => return self.trouble(error),
            };
            let reason = match found {
                Peek::Readable => {
                    let now = self.log.now();
                    if now.saturating_sub(self.standstill.moved_at) < STILL {
                        // It waits behind the records of other partitions.
                        continue;
                    }
                    if self.standstill.consumer.failed(now) {
                        self.standstill.consumer.replaced();
                        self.standstill.waiting.clear();
                        return self.rejoin(&format!(
                            "partition {partition} is readable from {position} on, but not delivered"
                        ));
                    }
                    "the consumer does not deliver what is there".to_owned()
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
                .stands_still(service, partition, position, seconds, reason);
        }
        Ok(())
    }
}
