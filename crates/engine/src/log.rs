//! The log interface of the worker: a consumer in a group, a transactional producer, and a reader for take-over.
//!
//! Two implementations share this interface and one conformance suite: Kafka ([`kafka`]) and a simulated log for
//! tests. The worker does not depend on either.

mod cluster;
pub mod kafka;
pub mod limits;
pub mod partitioner;
pub mod replacement;
mod send;
#[cfg(feature = "simulation")]
pub mod simulated;

use std::time::Duration;

use contracts::{Service, Topic};

pub use cluster::Cluster;
pub use send::{RecordMetadata, SendError};

/// Number of a partition; every topic of the system has the same number of partitions.
pub type Partition = i32;

/// A header of a record.
pub type Header = (String, Vec<u8>);

/// A record read from the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Input {
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: i64,
    /// Append time (or, in topics without it, create time), Unix milliseconds.
    pub time_ms: i64,
    /// `None` when the record has no key.
    pub key: Option<Vec<u8>>,
    /// `None` for a tombstone.
    pub payload: Option<Vec<u8>>,
    /// Headers in the record's order.
    pub headers: Vec<Header>,
    /// The record has headers that cannot be read; `headers` is empty then.
    pub headers_unreadable: bool,
}

impl Input {
    /// The value of the last header of that name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers
            .iter()
            .rev()
            .find(|(header, _)| header == name)
            .map(|(_, value)| value.as_slice())
    }
}

/// A record to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Service that owns the topic.
    pub service: Service,
    /// Topic of the service.
    pub topic: Topic,
    /// Always explicit: from the key's hash, or the source partition.
    pub partition: Partition,
    /// Key; absent only for a dead letter that had none.
    pub key: Option<Vec<u8>>,
    /// `None` writes a tombstone.
    pub payload: Option<Vec<u8>>,
    /// Headers in the record's order.
    pub headers: Vec<Header>,
}

/// Records and offset that one partition contributes to a transaction.
///
/// Records cannot be written without the offset of the commands that produced them: a transaction that writes for a
/// partition and does not commit its offset cannot be expressed.
#[derive(Clone, Debug)]
pub struct PartitionWrites {
    /// Source partition.
    pub partition: Partition,
    /// First offset of the partition's commands that is *not* included: the consumer's position.
    pub offset: i64,
    /// Records of all decided commands, in order.
    pub outputs: Vec<Output>,
}

/// The end of the partition's events after a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Source partition.
    pub partition: Partition,
    /// Offset after the last event written.
    pub events_end: i64,
}

/// Change of the worker's membership or position, reported by a poll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Partitions were assigned; they stay paused until [`Log::start`].
    Assigned(Vec<Partition>),
    /// Partitions were revoked.
    Revoked(Vec<Partition>),
    /// A connection was lost; the client reconnects by itself when the broker is available.
    Disconnected,
    /// Every record of the partition below `offset` has been delivered, and none at or beyond it. Markers and aborted
    /// records below it are included.
    Reached {
        /// The partition.
        partition: Partition,
        /// The offset.
        offset: i64,
    },
}

/// How a transaction failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Aborted: nothing of it is or will be visible.
    #[error("transaction aborted: {0}")]
    Aborted(String),
    /// It may still become visible, or interfere with the next one: the producer has to be recreated.
    #[error("transaction ended unclear: {0}")]
    Unclear(String),
    /// This producer is no longer the latest one of its transactional id: a replacement exists, the broker aborted the
    /// transaction, or a late duplicate of this process's own request to create a producer arrived. Only the group
    /// membership distinguishes them: [`Log::is_member`].
    #[error("transaction fenced: {0}")]
    Fenced(String),
}

/// Error of a call that ends no transaction.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The broker is unavailable; the same call may succeed later.
    #[error("log unavailable: {0}")]
    Unavailable(String),
    /// The log contradicts the worker's position: that position does not exist.
    #[error("log damaged: {0}")]
    Damaged(String),
    /// Another member runs with this member's instance id.
    #[error("fenced: {0}")]
    Fenced(String),
    /// The group rejects this member although no other member has its instance id: [`Log::rejoin`] joins again.
    #[error("group membership lost: {0}")]
    Displaced(String),
    /// The client rejects a setting.
    #[error("bad log configuration: {0}")]
    Configuration(String),
}

/// Progress of a bounded read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There may be more below the bound.
    More,
    /// Everything committed below the bound has been returned.
    Done,
}

/// A client's view of its group membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Membership {
    /// The coordinator has confirmed it within the last heartbeats.
    Confirmed,
    /// A join or a rebalance is in progress.
    Joining,
    /// Neither confirmed nor in progress: the membership will be lost.
    Unconfirmed {
        /// What is missing.
        reason: String,
        /// For at least how long it has been missing.
        lasts: Duration,
    },
}

/// Result of reading with a fresh reader where a consumer delivers nothing although there are records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peek {
    /// The fresh reader can read: the fault is in the consumer.
    Readable,
    /// Open transactions hold back all records from this offset on.
    Held(i64),
    /// The fresh reader fails too, with this reason.
    Unreadable(String),
    /// No record arrived in time.
    Nothing,
}

/// First and past-the-end offset of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// First retained offset.
    pub low: i64,
    /// High watermark: after all records, including those of open and aborted transactions.
    pub high: i64,
}

/// The log of one worker: its consumer in the service's group, its transactional producer, its reader.
///
/// The worker makes all calls from its own thread, one at a time.
pub trait Log {
    /// A snapshot of the group's generation; inputs that were polled under it are committed with it.
    type Generation;

    /// Waits up to `wait` for the first input, then appends the available inputs, up to `max`, to `inputs`. The only
    /// call that may change the assignment.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    fn poll(
        &mut self,
        max: usize,
        wait: Duration,
        inputs: &mut Vec<Input>,
    ) -> Result<Vec<Signal>, Error>;

    /// The generation of the last signalled assignment; `None` before the first join, and while the membership is lost.
    fn generation(&mut self) -> Option<Self::Generation>;

    /// The committed offset of a partition's commands, once every pending offset commit is resolved.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    fn committed(&mut self, partition: Partition) -> Result<Option<i64>, Error>;

    /// The ends of a partition of one of the service's topics, regardless of transactions.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    fn ends(&mut self, topic: Topic, partition: Partition) -> Result<Ends, Error>;

    /// The last stable offset of a partition's commands from the consumer's last statistics, at most some seconds old;
    /// `None` when unknown. Makes no request.
    fn stable_end(&self, partition: Partition) -> Option<i64>;

    /// Delivers the partition's commands from `offset` on; earlier deliveries of the partition become invalid.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    fn start(&mut self, partition: Partition, offset: i64) -> Result<(), Error>;

    /// Stops delivering a partition's commands until [`Log::start`].
    ///
    /// # Errors
    ///
    /// See [`Error`].
    fn pause(&mut self, partition: Partition) -> Result<(), Error>;

    /// Opens the reader on `topic` from `from` to `until`, a high watermark. One read is open at a time; opening
    /// another ends it.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    fn open(
        &mut self,
        topic: Topic,
        partition: Partition,
        from: i64,
        until: i64,
    ) -> Result<(), Error>;

    /// Continues the read, committed records only. Waits until the last stable offset has reached the bound: markers
    /// reach partitions separately, and reading only to the last stable offset can miss committed records.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    fn read(&mut self, wait: Duration, inputs: &mut Vec<Input>) -> Result<Progress, Error>;

    /// Writes all records and commits their offsets in one transaction.
    ///
    /// # Errors
    ///
    /// How the transaction failed; the worker takes its partitions over again in every case.
    fn commit(
        &mut self,
        generation: &Self::Generation,
        writes: Vec<PartitionWrites>,
    ) -> Result<Vec<Appended>, Failure>;

    /// Recreates the producer under the same transactional id, which ends any open transaction of the former one.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    fn recreate(&mut self) -> Result<(), Error>;

    /// Recreates the consumer under the same instance id and joins the group; there is no assignment until the next
    /// signal.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    fn rejoin(&mut self) -> Result<(), Error>;

    /// Whether this member is in the group: `false` while it has to join again.
    ///
    /// # Errors
    ///
    /// [`Error::Fenced`] when another member has taken over the instance id, [`Error::Displaced`] when this member is
    /// rejected although no other member has.
    fn is_member(&mut self) -> Result<bool, Error>;

    /// The client's view of this member's group membership. Makes no request.
    fn membership(&self) -> Membership;

    /// Asks the group's coordinator which member holds this instance id. `Ok` when it answers and no other process
    /// holds the id: a member that is [`Membership::Unconfirmed`] may then rejoin.
    ///
    /// # Errors
    ///
    /// [`Error::Fenced`] when another process holds the instance id; else see [`Error`].
    fn ask_coordinator(&mut self) -> Result<(), Error>;

    /// Reads a partition's commands from `offset` on with a fresh reader.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    fn peek(&mut self, partition: Partition, offset: i64) -> Result<Peek, Error>;

    /// Monotonic time since a fixed moment: for windows, back-off and intervals, not for decisions.
    fn now(&self) -> Duration;

    /// Wall-clock time (Unix milliseconds): for eviction, not for decisions.
    fn unix_ms(&self) -> i64;
}
