//! The transaction coordinator's state of one transactional id.

use std::collections::BTreeSet;
use std::fmt;

use contracts::Service;

use super::TopicPartition;
use super::records::ProducerId;

/// `transaction.timeout.ms`: how long a transaction may stay open.
const TRANSACTION_TIMEOUT_MS: i64 = 10_000;

/// A transactional id.
pub struct Transaction {
    pub producer: ProducerId,
    pub epoch: u32,
    phase: Phase,
    started_ms: i64,
    targets: BTreeSet<MarkerTarget>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Empty,
    Ongoing,
    /// Decided; some markers are not written yet.
    Ending {
        commit: bool,
    },
    Ended {
        commit: bool,
    },
}

/// A destination of markers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MarkerTarget {
    /// A partition of a topic.
    Data(TopicPartition),
    /// The committed offsets of a service's group.
    Offsets(Service),
}

impl fmt::Display for MarkerTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data((service, topic, partition)) => {
                write!(formatter, "{service}.{}/{partition}", topic.name())
            }
            Self::Offsets(service) => write!(formatter, "the offsets of {service}"),
        }
    }
}

/// Why the coordinator refuses a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoordinatorError {
    /// A newer producer has the id.
    Fenced,
    /// The previous transaction is still ending.
    ConcurrentTransactions,
    /// The request does not fit the state of the transaction.
    InvalidState,
}

impl Transaction {
    pub fn new(producer: ProducerId) -> Self {
        Self {
            producer,
            epoch: 0,
            phase: Phase::Empty,
            started_ms: 0,
            targets: BTreeSet::new(),
        }
    }

    /// Registers a new producer under the id. A transaction that the old one left open is aborted first.
    pub fn init(&mut self) -> Result<u32, CoordinatorError> {
        match self.phase {
            Phase::Ongoing => {
                self.epoch += 1;
                self.finish(false);
                if matches!(self.phase, Phase::Ending { .. }) {
                    return Err(CoordinatorError::ConcurrentTransactions);
                }
            }
            Phase::Ending { .. } => return Err(CoordinatorError::ConcurrentTransactions),
            Phase::Empty | Phase::Ended { .. } => {}
        }
        self.epoch += 1;
        self.phase = Phase::Empty;
        Ok(self.epoch)
    }

    /// Adds a target; the first one starts the transaction.
    pub fn add(
        &mut self,
        epoch: u32,
        target: MarkerTarget,
        now_ms: i64,
    ) -> Result<(), CoordinatorError> {
        self.check_epoch(epoch)?;
        match self.phase {
            Phase::Ending { .. } => return Err(CoordinatorError::ConcurrentTransactions),
            Phase::Ongoing => {}
            Phase::Empty | Phase::Ended { .. } => {
                self.phase = Phase::Ongoing;
                self.started_ms = now_ms;
                self.targets.clear();
            }
        }
        self.targets.insert(target);
        Ok(())
    }

    /// Whether the ongoing transaction includes the partition. Its leader verifies this before the first write.
    pub fn includes(&self, epoch: u32, tp: TopicPartition) -> bool {
        self.epoch == epoch
            && self.phase == Phase::Ongoing
            && self.targets.contains(&MarkerTarget::Data(tp))
    }

    /// Ends the transaction. A repeated request gets the same answer. Only the epoch distinguishes transactions.
    pub fn end(&mut self, epoch: u32, commit: bool) -> Result<(), CoordinatorError> {
        self.check_epoch(epoch)?;
        match self.phase {
            Phase::Ongoing => {
                self.finish(commit);
                Ok(())
            }
            Phase::Ending { commit: same } if same == commit => {
                Err(CoordinatorError::ConcurrentTransactions)
            }
            Phase::Ended { commit: same } if same == commit => Ok(()),
            Phase::Empty | Phase::Ending { .. } | Phase::Ended { .. } => {
                Err(CoordinatorError::InvalidState)
            }
        }
    }

    /// Whether it has been open for longer than the timeout.
    pub fn has_timed_out(&self, now_ms: i64) -> bool {
        self.phase == Phase::Ongoing && now_ms - self.started_ms > TRANSACTION_TIMEOUT_MS
    }

    /// Aborts it and fences its producer.
    pub fn expire(&mut self) {
        self.epoch += 1;
        self.finish(false);
    }

    /// The targets whose marker is not written yet, and whether the transaction commits.
    pub fn markers(&self) -> Option<(bool, &BTreeSet<MarkerTarget>)> {
        match self.phase {
            Phase::Ending { commit } => Some((commit, &self.targets)),
            Phase::Empty | Phase::Ongoing | Phase::Ended { .. } => None,
        }
    }

    /// A marker has been written.
    pub fn marker_written(&mut self, target: MarkerTarget) {
        if let Phase::Ending { commit } = self.phase {
            self.targets.remove(&target);
            if self.targets.is_empty() {
                self.phase = Phase::Ended { commit };
            }
        }
    }

    fn finish(&mut self, commit: bool) {
        self.phase = if self.targets.is_empty() {
            Phase::Ended { commit }
        } else {
            Phase::Ending { commit }
        };
    }

    fn check_epoch(&self, epoch: u32) -> Result<(), CoordinatorError> {
        if epoch == self.epoch {
            Ok(())
        } else {
            Err(CoordinatorError::Fenced)
        }
    }
}
