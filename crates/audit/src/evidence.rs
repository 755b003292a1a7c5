//! The input of an audit. Implementations: a running system, a copy in memory, a simulated run.

use std::collections::BTreeMap;
use std::fmt;

use contracts::sandbox::v1::{LedgerBooking, LedgerPayment};
use contracts::{Service, Topic};
use engine::log::{Ends, Input, Partition};

use crate::client_observation::ClientObservation;
use crate::rows::{ParkedKey, Row};

/// A partition of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The owner of the topic.
    pub service: Service,
    /// The topic of the service.
    pub topic: Topic,
    /// The partition of the topic.
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
pub struct LogRecord {
    /// The record with its position.
    pub input: Input,
    /// `false` for a record of an aborted transaction, which only a read_uncommitted consumer receives.
    pub committed: bool,
}

/// The limits of an audit: one consistent cut through a running system.
///
/// The order of reading matters: the journals of clients, then the snapshot of the read model with its positions, then
/// the committed offsets of the groups, then the ends of the topics, and the ledgers of the partners after the log.
/// Whatever an earlier part refers to is therefore in a later one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// When the cut was begun, in Unix milliseconds: before its first part was read.
    pub begun_ms: i64,
    /// Partitions of every topic.
    pub partitions: Partition,
    /// Committed offset of every group in the commands of its service; absent when there is none.
    pub committed: BTreeMap<(Service, Partition), i64>,
    /// The retained offsets of every topic, up to its high watermark.
    pub ends: BTreeMap<TopicPartition, Ends>,
    /// The next offset that the read model applies in each partition of the events; absent where it has no position.
    pub positions: BTreeMap<(Service, Partition), i64>,
}

impl Cut {
    /// The ends of one partition; empty when it is not known.
    pub fn ends(&self, topic_partition: TopicPartition) -> Ends {
        self.ends
            .get(&topic_partition)
            .copied()
            .unwrap_or(Ends { low: 0, high: 0 })
    }
}

/// Why an audit could not be completed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A source does not answer, or gives an invalid answer.
    #[error(transparent)]
    Source(#[from] Box<dyn std::error::Error + Send + Sync>),
    /// The first events are missing, although events are kept for ever.
    #[error(
        "{topic_partition} begins at offset {low}: its first events are gone, the topic was truncated"
    )]
    Truncated {
        /// The partition.
        topic_partition: TopicPartition,
        /// Its first offset.
        low: i64,
    },
    /// A record was written under a contract that this program does not contain.
    #[error(
        "{topic_partition} offset {offset} was written under schema {schema_id}, which is newer than this program: audit with a newer one"
    )]
    Newer {
        /// The partition of the record.
        topic_partition: TopicPartition,
        /// The offset of the record.
        offset: i64,
        /// Its schema.
        schema_id: u32,
    },
    /// The registry did not resolve the schema of a record.
    #[error(
        "the schema registry does not answer about schema {schema_id}, of {topic_partition} offset {offset}"
    )]
    Registry {
        /// The partition of the record.
        topic_partition: TopicPartition,
        /// The offset of the record.
        offset: i64,
        /// Its schema.
        schema_id: u32,
    },
}

/// A stream of evidence.
pub type Items<'a, T> = Box<dyn Iterator<Item = Result<T, Error>> + 'a>;

/// Everything that an audit compares. It can be read more than once and gives the same data each time.
pub trait Evidence {
    /// The limits of the evidence.
    fn cut(&self) -> &Cut;

    /// Every record of a partition within the ends of the cut, in the order of offsets, including those of aborted
    /// transactions. The auditor reads several partitions alternately.
    ///
    /// # Errors
    ///
    /// The source cannot be read.
    fn records(&self, topic_partition: TopicPartition) -> Result<Items<'_, LogRecord>, Error>;

    /// Every row of the read model, in any order; `None` when no read model is audited.
    ///
    /// # Errors
    ///
    /// The source cannot be read.
    fn rows(&self) -> Result<Option<Items<'_, Row>>, Error>;

    /// Keys that the projector has parked.
    ///
    /// # Errors
    ///
    /// The source cannot be read.
    fn parked(&self) -> Result<Vec<ParkedKey>, Error>;

    /// The ledger of the payment provider, in any order; `None` when no ledger is audited.
    ///
    /// # Errors
    ///
    /// The source cannot be read.
    fn payments(&self) -> Result<Option<Items<'_, LedgerPayment>>, Error>;

    /// The ledger of the carrier, in any order; `None` when no ledger is audited.
    ///
    /// # Errors
    ///
    /// The source cannot be read.
    fn bookings(&self) -> Result<Option<Items<'_, LedgerBooking>>, Error>;

    /// The observations of clients, in their order; `None` when there is no journal.
    ///
    /// # Errors
    ///
    /// The source cannot be read.
    fn journal(&self) -> Result<Option<Items<'_, ClientObservation>>, Error>;

    /// Called at intervals with the number of processed steps: commands, and events without a command.
    fn progress(&self, _steps: u64) {}
}
