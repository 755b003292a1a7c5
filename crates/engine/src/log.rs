//! The log as the worker sees it: a consumer in a group, a transactional producer, and readers for take-over.
//!
//! Two implementations share this interface and one conformance suite: Kafka ([`kafka`]) and a simulated log for
//! tests. Nothing in the worker's loop knows which one it talks to.

pub mod kafka;
pub mod partitioner;
pub mod replacement;
pub mod simulated;

use std::time::Duration;

use contracts::{Service, Topic};

/// Number of a partition; every topic of the system has the same ones.
pub type Partition = i32;

/// A header of a record.
pub type Header = (String, Vec<u8>);

/// A record read from the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Input {
    /// Where it was read.
    pub partition: Partition,
    /// Its place there.
    pub offset: i64,
    /// Append time (or, in topics without it, create time), Unix milliseconds.
    pub time_ms: i64,
    /// `None` when the record has no key.
    pub key: Option<Vec<u8>>,
    /// `None` for a tombstone.
    pub payload: Option<Vec<u8>>,
    /// In the order in which they stand.
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
    /// Whose topic.
    pub service: Service,
    /// Which of its topics.
    pub topic: Topic,
    /// Always explicit: by the key's hash, or the number of the source partition.
    pub partition: Partition,
    /// Key; absent only for a dead letter that had none.
    pub key: Option<Vec<u8>>,
    /// `None` writes a tombstone.
    pub payload: Option<Vec<u8>>,
    /// In order.
    pub headers: Vec<Header>,
}

/// What one partition contributes to a transaction.
///
/// Writes cannot be handed to the log without the offset that they vouch for: a transaction that writes for a
/// partition and does not move its offset cannot be expressed.
#[derive(Clone, Debug)]
pub struct PartitionWrites {
    /// Source partition.
    pub partition: Partition,
    /// First offset of the partition's commands that is *not* covered: the consumer's position.
    pub offset: i64,
    /// Everything that was decided, in order.
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

/// What happened to the worker's membership or position while it polled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Partitions came; they stay paused until [`Log::start`].
    Assigned(Vec<Partition>),
    /// Partitions went.
    Revoked(Vec<Partition>),
    /// A connection was lost; it is made anew behind the scenes, if anybody is there.
    Disconnected,
    /// Every record of the partition below `offset` has been delivered, whatever markers and aborted records stand
    /// there, and none at or beyond it.
    Reached {
        /// Which partition.
        partition: Partition,
        /// The offset.
        offset: i64,
    },
}

/// How a transaction did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Aborted: nothing of it is or will be visible.
    #[error("transaction aborted: {0}")]
    Aborted(String),
    /// It may still become visible, or disturb the next one: the producer has to be made anew.
    #[error("transaction ended unclear: {0}")]
    Unclear(String),
    /// Our producer is no longer the last one under its transactional id: a replacement has come, the broker gave up
    /// on our transaction, or a request of our own to make a producer came a second time, late. Only the group tells
    /// which: [`Log::is_member`].
    #[error("transaction fenced: {0}")]
    Fenced(String),
}

/// Trouble that is not the end of a transaction.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The broker does not answer now; the same call may succeed later.
    #[error("log unavailable: {0}")]
    Unavailable(String),
    /// The log contradicts what the worker knows of it: a position that does not exist.
    #[error("log damaged: {0}")]
    Damaged(String),
    /// Another member runs with our instance id.
    #[error("fenced: {0}")]
    Fenced(String),
    /// Our place in the group is refused to us, although nobody else has it: [`Log::rejoin`] takes it again.
    #[error("place in the group lost: {0}")]
    Displaced(String),
    /// A setting that the client refuses.
    #[error("bad log configuration: {0}")]
    Configuration(String),
}

/// How far a bounded read has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There may be more below the bound.
    More,
    /// Everything committed below the bound has been returned.
    Done,
}

/// What a member's client knows of its place in the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Membership {
    /// The coordinator has confirmed it within the last heartbeats.
    Confirmed,
    /// The client and the coordinator are at work on it: a rebalance is under way.
    Joining,
    /// Neither; a place that is still held will be lost.
    Unconfirmed {
        /// What is missing.
        reason: String,
        /// For how long at least.
        lasts: Duration,
    },
}

/// What a fresh reader finds where a consumer delivers nothing although the partition goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peek {
    /// It reads on: the fault is the consumer's.
    Readable,
    /// Transactions that have not ended hold back everything from this offset on.
    Held(i64),
    /// It cannot read either, and why.
    Unreadable(String),
    /// Nothing came in time.
    Nothing,
}

/// First and past-the-end offset of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// First offset that is still kept.
    pub low: i64,
    /// High watermark: past everything written, also by open and aborted transactions.
    pub high: i64,
}

/// The log of one worker: its consumer in group `S`, its transactional producer, its reader.
///
/// All calls are made from the worker's own thread, one at a time.
pub trait Log {
    /// A snapshot of the group's generation, which vouches for polls made under it.
    type Generation;

    /// Waits up to `wait` for the first input and takes what is there, up to `max`; appends to `inputs`. The only
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

    /// The generation of the last assignment that was signalled; `None` before the group has been joined, and while
    /// the place in it is lost.
    fn generation(&mut self) -> Option<Self::Generation>;

    /// The committed offset of a partition's commands, once every pending offset commit is resolved.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    fn committed(&mut self, partition: Partition) -> Result<Option<i64>, Error>;

    /// The ends of a partition of one of the service's topics, seen without regard to transactions.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    fn ends(&mut self, topic: Topic, partition: Partition) -> Result<Ends, Error>;

    /// The last stable offset of a partition's commands as the consumer heard it last, some seconds ago at most;
    /// `None` when it does not know. Asks nobody.
    fn stable_end(&self, partition: Partition) -> Option<i64>;

    /// Delivers the partition's commands from `offset` on; everything delivered for it before is void.
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

    /// Reads on, only what is committed. Waits until the last stable offset has reached the bound: markers reach
    /// partitions separately, and reading only to the last stable offset can miss committed records.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    fn read(&mut self, wait: Duration, inputs: &mut Vec<Input>) -> Result<Progress, Error>;

    /// Writes the shares and moves their offsets, all in one transaction.
    ///
    /// # Errors
    ///
    /// How the transaction ended instead; in every case the worker takes its partitions over again.
    fn commit(
        &mut self,
        generation: &Self::Generation,
        shares: Vec<PartitionWrites>,
    ) -> Result<Vec<Appended>, Failure>;

    /// Makes the producer anew under the same transactional id, which ends whatever it left open.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    fn recreate(&mut self) -> Result<(), Error>;

    /// Makes the consumer anew under the same instance id and joins the group with it; the assignment is void until it
    /// is signalled again.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    fn rejoin(&mut self) -> Result<(), Error>;

    /// Whether this member holds its place in the group: `false` while it has to join again.
    ///
    /// # Errors
    ///
    /// [`Error::Fenced`] when another member has taken the place, [`Error::Displaced`] when nobody has.
    fn is_member(&mut self) -> Result<bool, Error>;

    /// What the client knows of this member's place in the group. Makes no request.
    fn membership(&self) -> Membership;

    /// Asks the group's coordinator whether it answers, and who has this member's place: a member whose place is
    /// [`Membership::Unconfirmed`] takes it anew, whether the coordinator has forgotten it or waits for it.
    ///
    /// # Errors
    ///
    /// [`Error::Fenced`] when another process has the place; else see [`Error`].
    fn ask_coordinator(&mut self) -> Result<(), Error>;

    /// What a fresh reader finds in a partition's commands from `offset` on.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    fn peek(&mut self, partition: Partition, offset: i64) -> Result<Peek, Error>;

    /// Time since some fixed moment, never backwards: for windows, back-off and intervals, not for decisions.
    fn now(&self) -> Duration;

    /// What the clock on the wall shows (Unix milliseconds): for leaving memory, not for decisions.
    fn unix_ms(&self) -> i64;
}
