//! The transaction coordinator's view of one transactional id.

use std::collections::BTreeSet;

use contracts::Service;

use super::TopicPartition;
use super::records::ProducerId;

/// How long a transaction may stay open, milliseconds.
const TIMEOUT_MS: i64 = 10_000;

/// A transactional id.
pub struct Transaction {
    pub producer: ProducerId,
    pub epoch: u32,
    phase: Phase,
    begun_ms: i64,
    members: BTreeSet<Target>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Empty,
    Ongoing,
    /// Decided; its markers are on their way.
    Ending {
        commit: bool,
    },
    Ended {
        commit: bool,
    },
}

/// Where a marker goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A partition of a topic.
    Data(TopicPartition),
    /// The offsets of a service's group.
    Offsets(Service),
}

/// What the coordinator refuses a request with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A newer producer has the id.
    Fenced,
    /// The transaction before is still ending.
    Busy,
    /// The transaction is not in the state for it.
    Invalid,
}

impl Transaction {
    pub fn new(producer: ProducerId) -> Self {
        Self {
            producer,
            epoch: 0,
            phase: Phase::Empty,
            begun_ms: 0,
            members: BTreeSet::new(),
        }
    }

    /// A new producer takes the id; what the old one left open ends first.
    pub fn init(&mut self) -> Result<u32, Refusal> {
        match self.phase {
            Phase::Ongoing => {
                self.epoch += 1;
                self.finish(false);
                if matches!(self.phase, Phase::Ending { .. }) {
                    return Err(Refusal::Busy);
                }
            }
            Phase::Ending { .. } => return Err(Refusal::Busy),
            Phase::Empty | Phase::Ended { .. } => {}
        }
        self.epoch += 1;
        self.phase = Phase::Empty;
        Ok(self.epoch)
    }

    /// Something joins the transaction, which begins with the first of them.
    pub fn add(&mut self, epoch: u32, target: Target, now_ms: i64) -> Result<(), Refusal> {
        self.check(epoch)?;
        match self.phase {
            Phase::Ending { .. } => return Err(Refusal::Busy),
            Phase::Ongoing => {}
            Phase::Empty | Phase::Ended { .. } => {
                self.phase = Phase::Ongoing;
                self.begun_ms = now_ms;
                self.members.clear();
            }
        }
        self.members.insert(target);
        Ok(())
    }

    /// Whether a first record may be written there: the partition's leader asks.
    pub fn verifies(&self, epoch: u32, place: TopicPartition) -> bool {
        self.epoch == epoch
            && self.phase == Phase::Ongoing
            && self.members.contains(&Target::Data(place))
    }

    /// Ends the transaction, and answers a repetition of the request like the request. It knows no other difference
    /// between two transactions than the epoch.
    pub fn end(&mut self, epoch: u32, commit: bool) -> Result<(), Refusal> {
        self.check(epoch)?;
        match self.phase {
            Phase::Ongoing => {
                self.finish(commit);
                Ok(())
            }
            Phase::Ending { commit: same } if same == commit => Err(Refusal::Busy),
            Phase::Ended { commit: same } if same == commit => Ok(()),
            Phase::Empty | Phase::Ending { .. } | Phase::Ended { .. } => Err(Refusal::Invalid),
        }
    }

    /// Whether it has been open for too long.
    pub fn is_overdue(&self, now_ms: i64) -> bool {
        self.phase == Phase::Ongoing && now_ms - self.begun_ms > TIMEOUT_MS
    }

    /// Ends it in place of its producer, which is fenced by that.
    pub fn expire(&mut self) {
        self.epoch += 1;
        self.finish(false);
    }

    /// The markers on their way, and whether they commit.
    pub fn markers(&self) -> Option<(bool, &BTreeSet<Target>)> {
        match self.phase {
            Phase::Ending { commit } => Some((commit, &self.members)),
            Phase::Empty | Phase::Ongoing | Phase::Ended { .. } => None,
        }
    }

    /// A marker has arrived.
    pub fn arrived(&mut self, target: Target) {
        if let Phase::Ending { commit } = self.phase {
            self.members.remove(&target);
            if self.members.is_empty() {
                self.phase = Phase::Ended { commit };
            }
        }
    }

    fn finish(&mut self, commit: bool) {
        self.phase = if self.members.is_empty() {
            Phase::Ended { commit }
        } else {
            Phase::Ending { commit }
        };
    }

    fn check(&self, epoch: u32) -> Result<(), Refusal> {
        if epoch == self.epoch {
            Ok(())
        } else {
            Err(Refusal::Fenced)
        }
    }
}
