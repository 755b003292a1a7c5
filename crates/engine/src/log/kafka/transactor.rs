//! One transactional producer, and what is done with it: all of it blocks, on a thread of its own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use contracts::{Service, Topic};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientContext, Statistics};

use super::context::{Reports, log};
use super::sender::Activity;
use super::settings::{SOCKET_TIMEOUT, SUSPICIOUS, TRANSACTION_TIMEOUT};
use super::{
    Appended, Cluster, Error, Failure, Partition, PartitionWrites, error, native, settings,
};

/// How long one try of taking the transactional id lasts.
const INIT_STEP: Duration = Duration::from_secs(1);
/// Between two tries of a call that may be repeated at once.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// What the broker said of the records of the open transaction.
pub struct Deliveries {
    reports: Reports,
    activity: Activity,
    events_topic: String,
    seen: Mutex<Seen>,
    is_idle: Arc<AtomicBool>,
}

#[derive(Default)]
struct Seen {
    /// Past-the-end offset of the events that were appended.
    events_ends: HashMap<Partition, i64>,
    error: Option<KafkaError>,
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        self.reports.tell(&error, reason);
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
        let mut seen = self.seen.lock().expect("no holder panics");
        match result {
            Ok(message) => {
                if message.topic() == self.events_topic {
                    let end = seen.events_ends.entry(message.partition()).or_default();
                    *end = (*end).max(message.offset() + 1);
                }
            }
            Err((error, _)) => {
                seen.error.get_or_insert_with(|| error.clone());
            }
        }
    }
}

/// A producer that holds its transactional id.
pub struct Transactor {
    cluster: Arc<Cluster>,
    commands_topic: String,
    producer: ThreadedProducer<Deliveries>,
}

impl Transactor {
    /// A producer that does not hold its transactional id yet. `is_idle` tells from outside whether none of its
    /// connections is at work.
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
                activity: Activity::default(),
                events_topic: cluster.topic(service, Topic::Events),
                seen: Mutex::default(),
                is_idle,
            })
            .map_err(error)?;
        Ok(Self {
            commands_topic: cluster.topic(service, Topic::Commands),
            cluster,
            producer,
        })
    }

    /// Takes the transactional id, which ends whatever its former holder left open; not any more when it
    /// `is_abandoned`, so that it does not fence its successor.
    pub fn init(&self, is_abandoned: &AtomicBool) -> Result<(), Error> {
        let begun = Instant::now();
        loop {
            match self.producer.init_transactions(INIT_STEP) {
                Err(KafkaError::Transaction(failure))
                    if failure.is_retriable()
                        && begun.elapsed() < SOCKET_TIMEOUT * 2
                        && !is_abandoned.load(Ordering::Relaxed) => {}
                result => return result.map_err(error),
            }
        }
    }

    /// See [`crate::log::Log::commit`].
    pub fn commit(
        &self,
        generation: &ConsumerGroupMetadata,
        shares: Vec<PartitionWrites>,
    ) -> Result<Vec<Appended>, Failure> {
        let mut offsets = TopicPartitionList::new();
        for share in &shares {
            offsets
                .add_partition_offset(
                    &self.commands_topic,
                    share.partition,
                    Offset::Offset(share.offset),
                )
                .map_err(|error| Failure::Aborted(error.to_string()))?;
        }
        let partitions: Vec<_> = shares.iter().map(|share| share.partition).collect();
        let seen = &self.producer.context().seen;
        *seen.lock().expect("no holder panics") = Seen::default();

        let begun = Instant::now();
        let ended = self
            .producer
            .begin_transaction()
            .and_then(|()| self.write(shares))
            .and_then(|()| timed(|| self.new_record(&offsets, generation)));
        match ended {
            // It is committed, but the producer is suspect; what was written is found again by take-over.
            Ok(took) if took > SUSPICIOUS => Err(Failure::Unclear(format!(
                "the commit took {} ms",
                took.as_millis()
            ))),
            Ok(_) => {
                let seen = std::mem::take(&mut *seen.lock().expect("no holder panics"));
                Ok(partitions
                    .into_iter()
                    .filter_map(|partition| {
                        let events_end = *seen.events_ends.get(&partition)?;
                        Some(Appended {
                            partition,
                            events_end,
                        })
                    })
                    .collect())
            }
            Err(failure) => Err(give_up(&self.producer, &failure, begun.elapsed())),
        }
    }

    fn write(&self, shares: Vec<PartitionWrites>) -> Result<(), KafkaError> {
        let mut names: HashMap<(Service, Topic), String> = HashMap::new();
        for output in shares.iter().flat_map(|share| &share.outputs) {
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
        match self
            .producer
            .context()
            .seen
            .lock()
            .expect("no holder panics")
            .error
            .take()
        {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// Offsets after the records: the partition of the group's offsets joins the transaction last, when the one
    /// before it has surely ended at that coordinator.
    fn new_record(
        &self,
        offsets: &TopicPartitionList,
        generation: &ConsumerGroupMetadata,
    ) -> Result<(), KafkaError> {
        let producer = &self.producer;
        retrying(|| producer.send_offsets_to_transaction(offsets, generation, SOCKET_TIMEOUT))?;
        retrying(|| producer.commit_transaction(SOCKET_TIMEOUT))
    }
}

/// Aborts when that is still possible, and says what became of the transaction.
fn give_up(
    producer: &ThreadedProducer<Deliveries>,
    failure: &KafkaError,
    age: Duration,
) -> Failure {
    let reason = failure.to_string();
    let class = match failure {
        KafkaError::Transaction(error) => Class {
            code: error.code(),
            fatal: error.is_fatal(),
            abortable: error.txn_requires_abort(),
        },
        other => Class {
            code: other
                .rdkafka_error_code()
                .unwrap_or(RDKafkaErrorCode::Unknown),
            fatal: false,
            // A record that failed has put the transaction into the state that wants an abort.
            abortable: !matches!(other, KafkaError::Flush(_)),
        },
    };
    // A fenced producer says so in its fatal error only: its records fail as purged from the queue.
    let fatal = || producer.client().fatal_error().map(|(code, _)| code);
    if is_fenced(class.code) || fatal().is_some_and(is_fenced) {
        return Failure::Fenced(reason);
    }
    if class.fatal || !class.abortable || age > SUSPICIOUS {
        return Failure::Unclear(reason);
    }
    match timed(|| retrying(|| producer.abort_transaction(SOCKET_TIMEOUT))) {
        Ok(took) if took <= SUSPICIOUS => Failure::Aborted(reason),
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

struct Class {
    code: RDKafkaErrorCode,
    fatal: bool,
    abortable: bool,
}

fn timed(call: impl FnOnce() -> Result<(), KafkaError>) -> Result<Duration, KafkaError> {
    let begun = Instant::now();
    call().map(|()| begun.elapsed())
}

/// Calls again while librdkafka says that the very same call may be repeated, for as long as a transaction is not
/// suspicious. A process that was frozen meets its own time-out before it has heard anything: it asks once more, and
/// hears whether it was fenced.
#[allow(
    clippy::disallowed_methods,
    reason = "a back-off on a thread that has nothing else to do"
)]
fn retrying(call: impl Fn() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
    let begun = Instant::now();
    let mut resumed = false;
    loop {
        let failure = match call() {
            Err(KafkaError::Transaction(failure)) if failure.is_retriable() => failure,
            result => return result,
        };
        if begun.elapsed() >= SUSPICIOUS {
            let was_frozen = begun.elapsed() > SOCKET_TIMEOUT * 2;
            if resumed || !was_frozen {
                return Err(KafkaError::Transaction(failure));
            }
            resumed = true;
        }
        std::thread::sleep(RETRY_PAUSE);
    }
}
