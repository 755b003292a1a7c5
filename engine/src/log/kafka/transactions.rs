//! The worker's transactional producer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use contracts::{Service, Topic};
use rdkafka::ClientContext;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::context::report;
use super::settings::{SOCKET_TIMEOUT, SUSPICIOUS, TRANSACTION_TIMEOUT};
use super::{Appended, Cluster, Error, Failure, Partition, Share, error, let_go, native, settings};

/// Between two tries of a call that may be repeated at once.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

pub struct Transactions {
    cluster: Arc<Cluster>,
    service: Service,
    transactional_id: String,
    events_topic: String,
    commands_topic: String,
    /// `None` after an unclear end, until [`Transactions::recreate`].
    producer: Option<ThreadedProducer<Deliveries>>,
}

/// What the broker said of the records of the open transaction.
struct Deliveries {
    events_topic: String,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Past-the-end offset of the events that were appended.
    events_ends: HashMap<Partition, i64>,
    error: Option<KafkaError>,
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        report(&error, reason);
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

impl Transactions {
    pub fn new(
        cluster: Arc<Cluster>,
        service: Service,
        transactional_id: String,
    ) -> Result<Self, Error> {
        let mut transactions = Self {
            events_topic: cluster.topic(service, Topic::Events),
            commands_topic: cluster.topic(service, Topic::Commands),
            cluster,
            service,
            transactional_id,
            producer: None,
        };
        transactions.recreate()?;
        Ok(transactions)
    }

    /// A new producer under the same transactional id ends whatever the old one left open.
    pub fn recreate(&mut self) -> Result<(), Error> {
        self.discard();
        let producer: ThreadedProducer<Deliveries> =
            settings::transactional_producer(&self.cluster, &self.transactional_id)
                .create_with_context(Deliveries {
                    events_topic: self.events_topic.clone(),
                    seen: Mutex::default(),
                })
                .map_err(error)?;
        if let Err(failure) = producer.init_transactions(SOCKET_TIMEOUT * 2) {
            let_go(producer);
            return Err(error(failure));
        }
        tracing::debug!(service = %self.service, id = self.transactional_id, "producer made");
        self.producer = Some(producer);
        Ok(())
    }

    pub fn commit(
        &mut self,
        generation: &ConsumerGroupMetadata,
        shares: Vec<Share>,
    ) -> Result<Vec<Appended>, Failure> {
        let Some(producer) = &self.producer else {
            return Err(Failure::Unclear(
                "the producer has to be made anew first".into(),
            ));
        };
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
        *producer.context().seen.lock().expect("no holder panics") = Seen::default();

        let begun = Instant::now();
        let ended = producer
            .begin_transaction()
            .and_then(|()| self.write(producer, shares))
            .and_then(|()| timed(|| self.seal(producer, &offsets, generation)));
        let ended = match ended {
            // It is committed, but the producer is suspect; what was written is found again by take-over.
            Ok(took) if took > SUSPICIOUS => Err(Failure::Unclear(format!(
                "the commit took {} ms",
                took.as_millis()
            ))),
            Ok(_) => {
                let seen =
                    std::mem::take(&mut *producer.context().seen.lock().expect("no holder panics"));
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
            Err(failure) => Err(give_up(producer, &failure, begun.elapsed())),
        };
        if matches!(ended, Err(Failure::Unclear(_) | Failure::Fenced(_))) {
            self.discard();
        }
        ended
    }

    fn write(
        &self,
        producer: &ThreadedProducer<Deliveries>,
        shares: Vec<Share>,
    ) -> Result<(), KafkaError> {
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
                match producer.send(record) {
                    Ok(()) => break,
                    Err((failure, returned))
                        if failure.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) =>
                    {
                        record = returned;
                        native::flush(producer, TRANSACTION_TIMEOUT)?;
                    }
                    Err((failure, _)) => return Err(failure),
                }
            }
        }
        native::flush(producer, TRANSACTION_TIMEOUT)?;
        match producer
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
    fn seal(
        &self,
        producer: &ThreadedProducer<Deliveries>,
        offsets: &TopicPartitionList,
        generation: &ConsumerGroupMetadata,
    ) -> Result<(), KafkaError> {
        retrying(|| producer.send_offsets_to_transaction(offsets, generation, SOCKET_TIMEOUT))?;
        retrying(|| producer.commit_transaction(SOCKET_TIMEOUT))
    }

    fn discard(&mut self) {
        if let Some(producer) = self.producer.take() {
            let_go(producer);
        }
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
