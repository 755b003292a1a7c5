//! What the auditor reads. Where it comes from is for others to say: the real servers, a copy in memory, a simulated
//! run.

use std::collections::BTreeMap;
use std::fmt;

use contracts::sandbox::v1::{LedgerBooking, LedgerPayment};
use contracts::{Service, Topic};
use engine::log::{Ends, Input, Partition};

use crate::journal::ClientObservation;
use crate::rows::{Parked, Row};

/// A partition of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// Whose topic.
    pub service: Service,
    /// Which of its topics.
    pub topic: Topic,
    /// Which of its partitions.
    pub partition: Partition,
}

impl TopicPartition {
    /// A partition of a topic of a service.
    pub const fn new(service: Service, topic: Topic, partition: Partition) -> Self {
        Self {
            service,
            topic,
            partition,
        }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            service,
            topic,
            partition,
        } = self;
        write!(formatter, "{service}.{}/{partition}", topic.name())
    }
}

/// A record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// As it was read.
    pub input: Input,
    /// `false` when it belongs to an aborted transaction, so that only a read_uncommitted reader sees it.
    pub committed: bool,
}

/// How far everything is looked at: one consistent cut, although the system goes on.
///
/// The order in which it is taken matters: first what clients have noted, then the read model's snapshot with its
/// positions, then the groups' committed offsets, then the ends of the topics, and the partners' ledgers after the log.
/// So whatever an earlier part speaks of, a later one has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// When it was begun, Unix milliseconds: before the first of its parts was read.
    pub begun_ms: i64,
    /// Partitions of every topic.
    pub partitions: Partition,
    /// Committed offset of every group in the commands of its service; absent when there is none.
    pub committed: BTreeMap<(Service, Partition), i64>,
    /// What is kept of every topic, up to its high watermark.
    pub ends: BTreeMap<TopicPartition, Ends>,
    /// How far the read model has applied each partition of the events; absent where it has no position.
    pub positions: BTreeMap<(Service, Partition), i64>,
}

impl Cut {
    /// Ends of one partition; an empty one when it is not known.
    pub fn ends(&self, place: TopicPartition) -> Ends {
        self.ends
            .get(&place)
            .copied()
            .unwrap_or(Ends { low: 0, high: 0 })
    }
}

/// Why something could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A part does not answer, or says what it must not.
    #[error(transparent)]
    Source(#[from] Box<dyn std::error::Error + Send + Sync>),
    /// The first events are gone, although events are kept for ever.
    #[error("{place} begins at offset {low}: its first events are gone, the topic was truncated")]
    Truncated {
        /// Which partition.
        place: TopicPartition,
        /// Its first offset.
        low: i64,
    },
    /// A record was written under a contract that this program does not contain.
    #[error(
        "{place} offset {offset} was written under schema {schema_id}, which is newer than this program: audit with a newer one"
    )]
    Newer {
        /// Where it stands.
        place: TopicPartition,
        /// Where it stands.
        offset: i64,
        /// Its schema.
        schema_id: u32,
    },
    /// The registry has not said what a record was written under.
    #[error(
        "the schema registry does not answer about schema {schema_id}, of {place} offset {offset}"
    )]
    Registry {
        /// Where it stands.
        place: TopicPartition,
        /// Where it stands.
        offset: i64,
        /// Its schema.
        schema_id: u32,
    },
}

/// Items of evidence, one after the other.
pub type Items<'a, T> = Box<dyn Iterator<Item = Result<T, Error>> + 'a>;

/// Everything that is held against each other. It can be read more than once, and says the same each time.
pub trait Evidence {
    /// How far it goes.
    fn cut(&self) -> &Cut;

    /// Every record of a partition within the ends of the cut, by offset, those of aborted transactions too. Several
    /// partitions are read at once, a little of each at a time.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    fn records(&self, place: TopicPartition) -> Result<Items<'_, Seen>, Error>;

    /// Every row of the read model, in any order; `None` when there is none to audit.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    fn rows(&self) -> Result<Option<Items<'_, Row>>, Error>;

    /// Keys that the read model has set aside.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    fn parked(&self) -> Result<Vec<Parked>, Error>;

    /// The payment provider's ledger, in any order; `None` when there is none to audit.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    fn payments(&self) -> Result<Option<Items<'_, LedgerPayment>>, Error>;

    /// The carrier's ledger, in any order; `None` when there is none to audit.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    fn bookings(&self) -> Result<Option<Items<'_, LedgerBooking>>, Error>;

    /// What clients have noted, in the order in which they did; `None` when nobody has.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    fn journal(&self) -> Result<Option<Items<'_, ClientObservation>>, Error>;

    /// Told now and then how many commands, and events without one, have been looked at.
    fn progress(&self, _steps: u64) {}
}
