//! Reads the partitions of the events topics.

mod error;
mod record;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use engine::log::kafka::client::BackgroundDrop;
use engine::log::kafka::context::{LoggingContext, cause};
use observability::Outage;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use uuid::Uuid;

use super::topics::Topics;
use crate::tables::RecordIdentity;

pub use error::Error;
pub use record::{FetchedRecord, Source};

/// Largest number of records in a batch: large enough to make the fixed cost of a transaction small.
pub const MAX_BATCH: usize = 2_000;
/// For how long a busy projector gathers a batch.
const BUSY_WINDOW: Duration = Duration::from_millis(25);
/// After a batch of at least this size the projector counts as busy.
const BUSY_BATCH: usize = 100;
/// For how long an idle projector waits for a record before it does its other work.
const IDLE_WAIT: Duration = Duration::from_millis(100);
const WATERMARK_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for one response of the broker.
const SOCKET_TIMEOUT_MS: &str = "6000";
const CLUSTER_ID_TIMEOUT: Duration = Duration::from_secs(2);

/// The id of the cluster; `None` when no broker answers within [`CLUSTER_ID_TIMEOUT`].
///
/// # Errors
///
/// [`Error::Client`]: the client's settings are refused.
pub fn cluster_id(bootstrap: &str) -> Result<Option<String>, Error> {
    let client: BaseConsumer<LoggingContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create_with_context(LoggingContext::default())
        .map_err(Error::Client)?;
    let client = BackgroundDrop::new(client);
    Ok(client.client().fetch_cluster_id(CLUSTER_ID_TIMEOUT))
}

/// A consumer of some partitions of all events topics, without a consumer group: the positions are stored in the read
/// model.
///
/// A new one is created whenever the set of partitions changes or another projector has moved a position. A consumer
/// that is assigned a partition again may briefly report the position of the previous assignment, which would skip
/// records.
pub struct LogReader {
    /// `None` only while it is dropped.
    consumer: BackgroundDrop<BaseConsumer<LoggingContext>>,
    settings: ClientConfig,
    outage: Outage,
    topics: Topics,
    start_offsets: HashMap<Source, i64>,
    /// The first record that each partition must deliver; removed when it has arrived.
    expected: HashMap<Source, RecordIdentity>,
    busy: bool,
}

impl LogReader {
    /// Starts to read at the given positions; where the last applied record is known, it starts there and
    /// verifies that the log still holds that record.
    ///
    /// # Errors
    ///
    /// [`Error::Client`]: the client's settings are refused.
    pub fn open(
        bootstrap: &str,
        topics: &Topics,
        positions: &HashMap<Source, i64>,
        expected: HashMap<Source, RecordIdentity>,
    ) -> Result<Self, Error> {
        // A unique client id tells clients apart in the broker's log.
        let suffix = Uuid::now_v7().simple();
        let mut settings = ClientConfig::new();
        settings
            .set("bootstrap.servers", bootstrap)
            .set(
                "client.id",
                format!("{}.projector-{suffix}", topics.group()),
            )
            // Required by the client but unused: it joins no group and commits no offset.
            .set("group.id", topics.group())
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "error")
            // Limits only an empty fetch: a record is returned as soon as its transaction has ended.
            .set("fetch.wait.max.ms", "100")
            // The default of one second stalls a consumer that drains its queue quickly.
            .set("fetch.queue.backoff.ms", "10")
            .set("queued.max.messages.kbytes", "16384")
            // Metadata from the time when the broker was fenced (no leader) is used until the next refresh.
            .set("topic.metadata.refresh.interval.ms", "1000")
            .set("metadata.max.age.ms", "3000")
            .set("socket.timeout.ms", SOCKET_TIMEOUT_MS)
            .set("socket.connection.setup.timeout.ms", "3000")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "250");
        let consumer: BaseConsumer<LoggingContext> = settings
            .create_with_context(LoggingContext::default())
            .map_err(Error::Client)?;
        let consumer = BackgroundDrop::new(consumer);
        let mut start_offsets = positions.clone();
        start_offsets.extend(
            expected
                .iter()
                .map(|(source, record)| (*source, record.offset)),
        );
        let mut assignment = TopicPartitionList::new();
        for (&(service, partition), &position) in &start_offsets {
            assignment
                .add_partition_offset(topics.of(service), partition, Offset::Offset(position))
                .map_err(Error::Client)?;
        }
        consumer.assign(&assignment).map_err(Error::Client)?;
        Ok(Self {
            consumer,
            settings,
            outage: Outage::of("projector log"),
            topics: topics.clone(),
            start_offsets,
            expected,
            busy: false,
        })
    }

    /// Whether a fresh client gets a response for this partition.
    pub fn fresh_client_answers(&self, (service, partition): Source, timeout: Duration) -> bool {
        let mut settings = self.settings.clone();
        settings.set("client.id", format!("{}.probe", self.topics.group()));
        let fresh: KafkaResult<BaseConsumer<LoggingContext>> =
            settings.create_with_context(LoggingContext::default());
        let Ok(fresh) = fresh.map(BackgroundDrop::new) else {
            return false;
        };
        let answer = fresh.fetch_watermarks(self.topics.of(service), partition, timeout);
        answer.is_ok()
    }

    /// Records that the broker answers; ends an outage.
    pub fn answered(&mut self) {
        self.outage.answered();
    }

    /// Records that the broker does not answer.
    pub fn failed(&mut self, error: &KafkaError) {
        self.outage.failed(cause(error));
    }

    /// The next records, `max` at most. While idle, it returns the available records at once, or none after [`IDLE_WAIT`]. While busy,
    /// it gathers for [`BUSY_WINDOW`].
    ///
    /// # Errors
    ///
    /// [`Error`]. Transient client errors are only logged.
    pub fn gather(&mut self, max: usize) -> Result<Vec<FetchedRecord>, Error> {
        let mut records = Vec::new();
        let Some(first) = self.poll(IDLE_WAIT)? else {
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
        while records.len() < max {
            let Some(record) = self.poll(end.saturating_duration_since(Instant::now()))? else {
                break;
            };
            records.push(record);
        }
        self.busy = records.len() >= BUSY_BATCH;
        Ok(records)
    }

    /// The position of each partition after everything gathered so far. It includes transaction markers and aborted
    /// records, so the position of an idle partition reaches the last stable offset. Partitions that have delivered
    /// nothing yet are absent.
    ///
    /// # Errors
    ///
    /// [`Error::Client`].
    pub fn positions(&self) -> Result<HashMap<Source, i64>, Error> {
        let positions = self.consumer.position().map_err(Error::Client)?;
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

    /// Stops delivery of a partition. Delivery after [`LogReader::resume`] continues without a gap.
    ///
    /// # Errors
    ///
    /// [`Error::Client`].
    pub fn pause(&self, source: Source) -> Result<(), Error> {
        self.consumer
            .pause(&self.partition_list(source))
            .map_err(Error::Client)
    }

    /// Resumes delivery of a partition.
    ///
    /// # Errors
    ///
    /// [`Error::Client`].
    pub fn resume(&self, source: Source) -> Result<(), Error> {
        self.consumer
            .resume(&self.partition_list(source))
            .map_err(Error::Client)
    }

    /// The last stable offset: first offset that a `read_committed` reader cannot read yet.
    ///
    /// # Errors
    ///
    /// The broker did not answer.
    pub fn end(&self, (service, partition): Source, timeout: Duration) -> KafkaResult<i64> {
        // The high watermark of a read_committed client is the last stable offset.
        let (_, end) =
            self.consumer
                .fetch_watermarks(self.topics.of(service), partition, timeout)?;
        Ok(end)
    }

    fn poll(&mut self, timeout: Duration) -> Result<Option<FetchedRecord>, Error> {
        loop {
            match self.consumer.poll(timeout) {
                None => return Ok(None),
                Some(Ok(message)) => {
                    let Some(record) = FetchedRecord::from_message(&self.topics, &message) else {
                        continue;
                    };
                    match self.expected.remove(&record.source) {
                        None => return Ok(Some(record)),
                        Some(last) if last == record.identity() => {}
                        Some(last) => return Err(log_replaced(&self.topics, record.source, &last)),
                    }
                }
                Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset))) => {
                    return Err(self.out_of_range());
                }
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                    return Err(Error::Client(error));
                }
                Some(Err(error)) => {
                    // May report an outage that is already over: fetching the end offset decides that.
                    tracing::debug!(%error, "log client");
                    return Ok(None);
                }
            }
        }
    }

    /// The client does not report the partition: it is the one whose position is outside of its log.
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
        for (source, start) in &self.start_offsets {
            let position = *positions.get(source).unwrap_or(start);
            let (service, partition) = *source;
            let topic = self.topics.of(service);
            let (low, high) = self
                .consumer
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

    fn partition_list(&self, (service, partition): Source) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        list.add_partition(self.topics.of(service), partition);
        list
    }
}

fn log_replaced(topics: &Topics, (service, partition): Source, last: &RecordIdentity) -> Error {
    Error::LogReplaced {
        topic: topics.of(service).to_owned(),
        partition,
        offset: last.offset,
    }
}
