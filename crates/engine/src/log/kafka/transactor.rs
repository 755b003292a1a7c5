//! One transactional producer and its blocking calls, which run on a separate thread.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use contracts::{Service, Topic};
use parking_lot::Mutex;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientContext, Statistics};

use super::context::{Reports, log};
use super::sender::ConnectionActivity;
use super::{
    Appended, Cluster, Error, Failure, Partition, PartitionWrites, error, native, settings,
};
use crate::log::limits::{SLOW_TRANSACTION_CALL, SOCKET_TIMEOUT, TRANSACTION_TIMEOUT};

/// Time-out of one try to initialise the transactional id.
const INIT_STEP: Duration = Duration::from_secs(1);
/// Between two tries of a call that may be repeated at once.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// Delivery reports of the open transaction's records.
pub struct Deliveries {
    reports: Reports,
    activity: ConnectionActivity,
    events_topic: String,
    results: Mutex<DeliveryResults>,
    is_idle: Arc<AtomicBool>,
}

#[derive(Default)]
struct DeliveryResults {
    /// Past-the-end offset of the events that were appended.
    events_ends: HashMap<Partition, i64>,
    error: Option<KafkaError>,
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        self.reports.report(&error, reason);
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        let is_idle = self.activity.is_idle(&statistics);
        self.is_idle.store(is_idle, Ordering::Relaxed);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): Self::DeliveryOpaque) {
        let mut results = self.results.lock();
        match result {
            Ok(message) => {
                if message.topic() == self.events_topic {
                    let end = results.events_ends.entry(message.partition()).or_default();
                    *end = (*end).max(message.offset() + 1);
                }
            }
            Err((error, _)) => {
                results.error.get_or_insert_with(|| error.clone());
            }
        }
    }
}

/// A transactional producer.
pub struct Transactor {
    cluster: Arc<Cluster>,
    commands_topic: String,
    producer: ThreadedProducer<Deliveries>,
}

impl Transactor {
    /// A producer that has not initialised its transactional id yet. It sets `is_idle` while all its connections are
    /// idle.
    pub fn new(
        cluster: Arc<Cluster>,
        service: Service,
        (transactional_id, client_id): (&str, &str),
        is_idle: Arc<AtomicBool>,
    ) -> Result<Self, Error> {
        let producer = settings::transactional_producer(&cluster, transactional_id)
            .set("client.id", client_id)
            .create_with_context(Deliveries {
                reports: Reports::default(),
                activity: ConnectionActivity::default(),
                events_topic: cluster.topic(service, Topic::Events),
                results: Mutex::default(),
                is_idle,
            })
            .map_err(error)?;
        Ok(Self {
            commands_topic: cluster.topic(service, Topic::Commands),
            cluster,
            producer,
        })
    }

    /// Initialises the transactional id, which ends an open transaction of its former holder. Stops retrying when
    /// `is_abandoned`, so that it does not fence its successor.
    pub fn init(&self, is_abandoned: &AtomicBool) -> Result<(), Error> {
        let started_at = Instant::now();
        loop {
            match self.producer.init_transactions(INIT_STEP) {
                Err(KafkaError::Transaction(failure))
                    if failure.is_retriable()
                        && started_at.elapsed() < SOCKET_TIMEOUT * 2
                        && !is_abandoned.load(Ordering::Relaxed) => {}
                result => return result.map_err(error),
            }
        }
    }

    /// See [`crate::log::Log::commit`].
    pub fn commit(
        &self,
        generation: &ConsumerGroupMetadata,
        writes: Vec<PartitionWrites>,
    ) -> Result<Vec<Appended>, Failure> {
        let mut offsets = TopicPartitionList::new();
        for partition_writes in &writes {
            offsets
                .add_partition_offset(
                    &self.commands_topic,
                    partition_writes.partition,
                    Offset::Offset(partition_writes.offset),
                )
                .map_err(|error| Failure::Aborted(error.to_string()))?;
        }
        let partitions: Vec<_> = writes
            .iter()
            .map(|partition_writes| partition_writes.partition)
            .collect();
        let results = &self.producer.context().results;
        *results.lock() = DeliveryResults::default();

        let started_at = Instant::now();
        let ended = self
            .producer
            .begin_transaction()
            .and_then(|()| self.write(writes))
            .and_then(|()| timed(|| self.commit_offsets(&offsets, generation)));
        match ended {
            // It is committed, but the producer is not safe to use again; take-over reads the written records.
            Ok(took) if took > SLOW_TRANSACTION_CALL => Err(Failure::Unclear(format!(
                "the commit took {} ms",
                took.as_millis()
            ))),
            Ok(_) => {
                let results = std::mem::take(&mut *results.lock());
                Ok(partitions
                    .into_iter()
                    .filter_map(|partition| {
                        let events_end = *results.events_ends.get(&partition)?;
                        Some(Appended {
                            partition,
                            events_end,
                        })
                    })
                    .collect())
            }
            Err(failure) => Err(abort(&self.producer, &failure, started_at.elapsed())),
        }
    }

    fn write(&self, writes: Vec<PartitionWrites>) -> Result<(), KafkaError> {
        let mut names: HashMap<(Service, Topic), String> = HashMap::new();
        for output in writes
            .iter()
            .flat_map(|partition_writes| &partition_writes.outputs)
        {
            let topic = names
                .entry((output.service, output.topic))
                .or_insert_with(|| self.cluster.topic(output.service, output.topic));
            let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(output.partition);
            if let Some(key) = &output.key {
                record = record.key(key);
            }
            if let Some(payload) = &output.payload {
                record = record.payload(payload);
            }
            if !output.headers.is_empty() {
                let headers = OwnedHeaders::new_with_capacity(output.headers.len());
                record = record.headers(output.headers.iter().fold(
                    headers,
                    |headers, (key, value)| {
                        headers.insert(Header {
                            key,
                            value: Some(value),
                        })
                    },
                ));
            }
            loop {
                match self.producer.send(record) {
                    Ok(()) => break,
                    Err((failure, returned))
                        if failure.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) =>
                    {
                        record = returned;
                        native::flush(&self.producer, TRANSACTION_TIMEOUT)?;
                    }
                    Err((failure, _)) => return Err(failure),
                }
            }
        }
        native::flush(&self.producer, TRANSACTION_TIMEOUT)?;
        match self.producer.context().results.lock().error.take() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// Sends the offsets after the records, and commits: the group's offsets partition joins the transaction last, when
    /// the previous transaction has certainly ended at that coordinator.
    fn commit_offsets(
        &self,
        offsets: &TopicPartitionList,
        generation: &ConsumerGroupMetadata,
    ) -> Result<(), KafkaError> {
        let producer = &self.producer;
        retry(|| producer.send_offsets_to_transaction(offsets, generation, SOCKET_TIMEOUT))?;
        retry(|| producer.commit_transaction(SOCKET_TIMEOUT))
    }
}

/// Aborts a failed transaction when that is still possible, and returns how it ended.
fn abort(producer: &ThreadedProducer<Deliveries>, failure: &KafkaError, age: Duration) -> Failure {
    let reason = failure.to_string();
    let class = match failure {
        KafkaError::Transaction(error) => ErrorClass {
            code: error.code(),
            fatal: error.is_fatal(),
            abortable: error.txn_requires_abort(),
        },
        other => ErrorClass {
            code: other
                .rdkafka_error_code()
                .unwrap_or(RDKafkaErrorCode::Unknown),
            fatal: false,
            // A failed record has put the transaction into the abortable state.
            abortable: !matches!(other, KafkaError::Flush(_)),
        },
    };
    // A fenced producer is recognisable by its fatal error only: its records fail as purged from the queue.
    let fatal = || producer.client().fatal_error().map(|(code, _)| code);
    if is_fenced(class.code) || fatal().is_some_and(is_fenced) {
        return Failure::Fenced(reason);
    }
    if class.fatal || !class.abortable || age > SLOW_TRANSACTION_CALL {
        return Failure::Unclear(reason);
    }
    match timed(|| retry(|| producer.abort_transaction(SOCKET_TIMEOUT))) {
        Ok(took) if took <= SLOW_TRANSACTION_CALL => Failure::Aborted(reason),
        Ok(_) => Failure::Unclear(format!("{reason}; the abort was slow")),
        Err(failure) => {
            let code = fatal().or(failure.rdkafka_error_code());
            if code.is_some_and(is_fenced) {
                return Failure::Fenced(reason);
            }
            Failure::Unclear(format!("{reason}; the abort failed: {failure}"))
        }
    }
}

fn is_fenced(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Fenced
            | RDKafkaErrorCode::FencedInstanceId
            | RDKafkaErrorCode::ProducerFenced
            | RDKafkaErrorCode::InvalidProducerEpoch
    )
}

struct ErrorClass {
    code: RDKafkaErrorCode,
    fatal: bool,
    abortable: bool,
}

fn timed(call: impl FnOnce() -> Result<(), KafkaError>) -> Result<Duration, KafkaError> {
    let started_at = Instant::now();
    call().map(|()| started_at.elapsed())
}

/// Repeats a call while librdkafka reports it as retriable, for at most [`SLOW_TRANSACTION_CALL`]. A process that was
/// frozen reaches its own time-out before it has received an answer: it retries once more, and learns whether it was
/// fenced.
#[allow(
    clippy::disallowed_methods,
    reason = "a back-off on a dedicated thread"
)]
fn retry(call: impl Fn() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
    let started_at = Instant::now();
    let mut resumed = false;
    loop {
        let failure = match call() {
            Err(KafkaError::Transaction(failure)) if failure.is_retriable() => failure,
            result => return result,
        };
        if started_at.elapsed() >= SLOW_TRANSACTION_CALL {
            let was_frozen = started_at.elapsed() > SOCKET_TIMEOUT * 2;
            if resumed || !was_frozen {
                return Err(KafkaError::Transaction(failure));
            }
            resumed = true;
        }
        std::thread::sleep(RETRY_PAUSE);
    }
}
