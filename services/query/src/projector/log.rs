//! Reading the partitions of the events topics.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use contracts::Service;
use engine::log::kafka::client::drop_in_background;
use engine::log::kafka::context::{Quiet, cause};
use observability::{Outage, TraceParent};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use uuid::Uuid;

use super::topics::Topics;
use crate::tables::Last;

/// Most records of one batch: enough to make the transaction's own cost small.
const MAX_BATCH: usize = 2_000;
/// How long a busy projector gathers a batch.
const BUSY_WINDOW: Duration = Duration::from_millis(25);
/// A batch of this size says that the projector is busy.
const BUSY_BATCH: usize = 100;
/// How long a quiet projector waits for a record before it looks after other things.
const QUIET_WAIT: Duration = Duration::from_millis(100);
const WATERMARK_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for one answer of the broker.
const SOCKET_TIMEOUT_MS: &str = "6000";
const CLUSTER_ID_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the log cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log does not hold what comes next: it was truncated, recreated, or its beginning was deleted.
    #[error(
        "the position {position} of {topic} [{partition}] lies outside of the log, which holds {low} to {high}: \
         the topic was truncated or recreated; rebuild the read model"
    )]
    OutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// First offset that is not applied.
        position: i64,
        /// First offset that exists.
        low: i64,
        /// First offset that does not exist yet.
        high: i64,
    },
    /// The log holds something else in the place of what was applied last.
    #[error(
        "{topic} [{partition}] is not the log that was applied up to here: offset {offset} holds another record; it \
         was recreated, or belongs to another cluster; rebuild the read model"
    )]
    AnotherLog {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Where the record stood that was applied last.
        offset: i64,
    },
    /// The client cannot go on.
    #[error("the log cannot be read")]
    Client(#[source] KafkaError),
}

/// What the cluster calls itself; `None` when no broker answers in a moment.
///
/// # Errors
///
/// [`Error::Client`]: the client's settings are refused.
pub fn cluster_id(bootstrap: &str) -> Result<Option<String>, Error> {
    let client: BaseConsumer<Quiet> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create_with_context(Quiet::default())
        .map_err(Error::Client)?;
    let cluster_id = client.client().fetch_cluster_id(CLUSTER_ID_TIMEOUT);
    drop_in_background(client);
    Ok(cluster_id)
}

/// A partition of a service's events.
pub type Source = (Service, i32);

/// A record as it stands in the log.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Where it stands.
    pub source: Source,
    /// Offset in the partition.
    pub offset: i64,
    /// Empty when the record has none.
    pub key: Vec<u8>,
    /// `None` for a tombstone.
    pub value: Option<Vec<u8>>,
    /// When it was sent, in Unix milliseconds.
    pub time_ms: Option<i64>,
    /// The context of its trace, if that is recorded; most are not, and shall not be larger for it.
    pub trace: Option<Box<TraceParent>>,
}

impl Fetched {
    /// By what it is known again.
    pub fn last(&self) -> Last {
        Last {
            offset: self.offset,
            sent_ms: self.time_ms,
            key: self.key.clone(),
        }
    }
}

/// A consumer of some partitions of all events topics, without a group: positions are kept in the read model.
///
/// It is made anew whenever the set of partitions or a position changes from outside. A client that is assigned a
/// partition again may tell the position of the former assignment for a moment, and that would skip records.
pub struct Log {
    /// `None` only while it is dropped.
    consumer: Option<BaseConsumer<Quiet>>,
    settings: ClientConfig,
    outage: Outage,
    topics: Topics,
    starts: HashMap<Source, i64>,
    /// What has to come first from partitions that have not said anything yet.
    expected: HashMap<Source, Last>,
    busy: bool,
}

impl Log {
    /// Starts to read at the given positions, or at the record that was applied last, where it is known: it has to be
    /// there still.
    ///
    /// # Errors
    ///
    /// [`Error::Client`]: the client's settings are refused.
    pub fn open(
        bootstrap: &str,
        topics: &Topics,
        positions: &HashMap<Source, i64>,
        expected: HashMap<Source, Last>,
    ) -> Result<Self, Error> {
        // Each client has a name of its own in the broker's log.
        let number = Uuid::now_v7().simple();
        let mut settings = ClientConfig::new();
        settings
            .set("bootstrap.servers", bootstrap)
            .set(
                "client.id",
                format!("{}.projector-{number}", topics.group()),
            )
            // Required by the client, used for nothing: no group is joined, no offset is committed.
            .set("group.id", topics.group())
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "error")
            // Only for an empty answer: a record is handed over as soon as its transaction has ended.
            .set("fetch.wait.max.ms", "100")
            // The default of a second stalls a consumer that empties its queue quickly.
            .set("fetch.queue.backoff.ms", "10")
            .set("queued.max.messages.kbytes", "16384")
            // What it was told while the broker was fenced (no leader) it believes until it asks again.
            .set("topic.metadata.refresh.interval.ms", "1000")
            .set("metadata.max.age.ms", "3000")
            .set("socket.timeout.ms", SOCKET_TIMEOUT_MS)
            .set("socket.connection.setup.timeout.ms", "3000")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "250");
        let consumer: BaseConsumer<Quiet> = settings
            .create_with_context(Quiet::default())
            .map_err(Error::Client)?;
        let mut starts = positions.clone();
        starts.extend(expected.iter().map(|(source, last)| (*source, last.offset)));
        let mut assignment = TopicPartitionList::new();
        for (&(service, partition), &position) in &starts {
            assignment
                .add_partition_offset(topics.of(service), partition, Offset::Offset(position))
                .map_err(Error::Client)?;
        }
        consumer.assign(&assignment).map_err(Error::Client)?;
        Ok(Self {
            consumer: Some(consumer),
            settings,
            outage: Outage::of("projector log"),
            topics: topics.clone(),
            starts,
            expected,
            busy: false,
        })
    }

    fn consumer(&self) -> &BaseConsumer<Quiet> {
        self.consumer.as_ref().expect("it is not being dropped")
    }

    /// Whether a fresh client gets an answer for this partition.
    pub fn is_answered_afresh(&self, (service, partition): Source, timeout: Duration) -> bool {
        let mut settings = self.settings.clone();
        settings.set("client.id", format!("{}.probe", self.topics.group()));
        let fresh: KafkaResult<BaseConsumer<Quiet>> =
            settings.create_with_context(Quiet::default());
        let Ok(fresh) = fresh else { return false };
        let answer = fresh.fetch_watermarks(self.topics.of(service), partition, timeout);
        drop_in_background(fresh);
        answer.is_ok()
    }

    /// The log answers, after whatever outage.
    pub fn answered(&mut self) {
        self.outage.answered();
    }

    /// The log does not answer.
    pub fn failed(&mut self, error: &KafkaError) {
        self.outage.failed(cause(error));
    }

    /// The next records. Comes back at once with the few there are when it is quiet, empty-handed after a moment,
    /// and gathers for a while when it is busy.
    ///
    /// # Errors
    ///
    /// [`Error`]; trouble that passes by itself is logged only.
    pub fn gather(&mut self) -> Result<Vec<Fetched>, Error> {
        let mut records = Vec::new();
        let Some(first) = self.poll(QUIET_WAIT)? else {
            self.busy = false;
            return Ok(records);
        };
        records.push(first);
        let window = if self.busy {
            BUSY_WINDOW
        } else {
            Duration::ZERO
        };
        let end = Instant::now() + window;
        while records.len() < MAX_BATCH {
            let Some(record) = self.poll(end.saturating_duration_since(Instant::now()))? else {
                break;
            };
            records.push(record);
        }
        self.busy = records.len() >= BUSY_BATCH;
        Ok(records)
    }

    /// Where each partition stands after all that was gathered. The client counts transaction markers and the
    /// records of aborted transactions too, so a quiet partition's position reaches the last stable offset.
    /// Partitions of which nothing was seen yet are absent.
    ///
    /// # Errors
    ///
    /// [`Error::Client`].
    pub fn positions(&self) -> Result<HashMap<Source, i64>, Error> {
        let positions = self.consumer().position().map_err(Error::Client)?;
        Ok(positions
            .elements()
            .iter()
            .filter_map(|element| match element.offset() {
                Offset::Offset(offset) => Some((
                    self.topics.source(element.topic(), element.partition())?,
                    offset,
                )),
                _ => None,
            })
            .collect())
    }

    /// Stops to deliver records of these partitions; what is delivered after [`Log::resume`] follows without a gap.
    ///
    /// # Errors
    ///
    /// [`Error::Client`].
    pub fn pause(&self, source: Source) -> Result<(), Error> {
        self.consumer()
            .pause(&self.list(source))
            .map_err(Error::Client)
    }

    /// Goes on delivering.
    ///
    /// # Errors
    ///
    /// [`Error::Client`].
    pub fn resume(&self, source: Source) -> Result<(), Error> {
        self.consumer()
            .resume(&self.list(source))
            .map_err(Error::Client)
    }

    /// First offset of the partition that a reader cannot see yet.
    ///
    /// # Errors
    ///
    /// The broker did not answer.
    pub fn end(&self, (service, partition): Source, timeout: Duration) -> KafkaResult<i64> {
        // For a read_committed client this is the last stable offset.
        let (_, end) =
            self.consumer()
                .fetch_watermarks(self.topics.of(service), partition, timeout)?;
        Ok(end)
    }

    fn poll(&mut self, timeout: Duration) -> Result<Option<Fetched>, Error> {
        loop {
            let consumer = self.consumer.as_ref().expect("it is not being dropped");
            match consumer.poll(timeout) {
                None => return Ok(None),
                Some(Ok(message)) => {
                    let Some(record) = fetched(&self.topics, &message) else {
                        continue;
                    };
                    match self.expected.remove(&record.source) {
                        None => return Ok(Some(record)),
                        Some(last) if last == record.last() => {}
                        Some(last) => return Err(another_log(&self.topics, record.source, &last)),
                    }
                }
                Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset))) => {
                    return Err(self.out_of_range());
                }
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                    return Err(Error::Client(error));
                }
                Some(Err(error)) => {
                    // Reports of an outage that is over may still wait here: the look at the log's end tells.
                    tracing::debug!(%error, "log client");
                    return Ok(None);
                }
            }
        }
    }

    /// The client does not say which partition it was refused: the one whose position lies outside of its log.
    fn out_of_range(&self) -> Error {
        match self.find_out_of_range() {
            Ok(Some(error)) => error,
            Ok(None) => Error::Client(KafkaError::MessageConsumption(
                RDKafkaErrorCode::AutoOffsetReset,
            )),
            Err(error) => error,
        }
    }

    fn find_out_of_range(&self) -> Result<Option<Error>, Error> {
        let positions = self.positions()?;
        for (source, start) in &self.starts {
            let position = *positions.get(source).unwrap_or(start);
            let (service, partition) = *source;
            let topic = self.topics.of(service);
            let (low, high) = self
                .consumer()
                .fetch_watermarks(topic, partition, WATERMARK_TIMEOUT)
                .map_err(Error::Client)?;
            if !(low..=high).contains(&position) {
                return Ok(Some(Error::OutOfRange {
                    topic: topic.to_owned(),
                    partition,
                    position,
                    low,
                    high,
                }));
            }
        }
        Ok(None)
    }

    fn list(&self, (service, partition): Source) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        list.add_partition(self.topics.of(service), partition);
        list
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            drop_in_background(consumer);
        }
    }
}

fn fetched(topics: &Topics, message: &BorrowedMessage<'_>) -> Option<Fetched> {
    Some(Fetched {
        source: topics.source(message.topic(), message.partition())?,
        offset: message.offset(),
        key: message.key().unwrap_or_default().to_vec(),
        value: message.payload().map(<[u8]>::to_vec),
        time_ms: message.timestamp().to_millis(),
        trace: trace(message),
    })
}

fn another_log(topics: &Topics, (service, partition): Source, last: &Last) -> Error {
    Error::AnotherLog {
        topic: topics.of(service).to_owned(),
        partition,
        offset: last.offset,
    }
}

fn trace(message: &BorrowedMessage<'_>) -> Option<Box<TraceParent>> {
    let headers = message.headers()?;
    // The wrapper panics on a header whose name is not UTF-8, and anybody may write one.
    let trace = catch_unwind(AssertUnwindSafe(|| {
        let headers = headers.iter();
        TraceParent::from_record(headers.filter_map(|header| Some((header.key, header.value?))))
    }));
    trace.ok()??.sampled().map(Box::new)
}
