//! Sends single commands: calls, due timers and results of effects.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use contracts::{Service, Topic};
use parking_lot::{Mutex, RwLock};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header as RecordHeader, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::statistics::Broker;
use rdkafka::{ClientContext, Statistics};
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

use super::client::{BackgroundDrop, fresh_client_succeeds, has_leaders};
use super::context::{Reports, cause, log};
use super::{Error, LOOKUP_TIMEOUT, error, settings};
use crate::log::replacement::FailureTracker;
use crate::log::{Cluster, Header, RecordMetadata, SendError};

/// Answers to a producer's own metadata requests between two statistics.
const METADATA_ANSWERS: u64 = 2;
/// Consecutive statistics, every 700 ms, with waiting records and idle connections, after which a producer is stalled.
const STALLED_AFTER: u32 = 3;
/// Between two checks of the producer.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A producer of commands; cheap to clone.
#[derive(Clone)]
pub struct Sender {
    cluster: Arc<Cluster>,
    producer: Arc<RwLock<Producer>>,
    /// Why a command would not be written now; `None` while the producer is healthy.
    problem: Arc<Mutex<Option<String>>>,
}

type Producer = Arc<BackgroundDrop<ThreadedProducer<DeliveryContext>>>;

/// Completes the futures of written records, on the polling thread: it must not block.
#[derive(Default)]
struct DeliveryContext {
    reports: Reports,
    activity: ConnectionActivity,
    /// Consecutive statistics with waiting records and idle connections. A single one proves nothing: it may fall
    /// between two requests.
    stalled_statistics: AtomicU32,
}

impl ClientContext for DeliveryContext {
    fn error(&self, error: KafkaError, reason: &str) {
        self.reports.report(&error, reason);
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        let is_idle = self.activity.is_idle(&statistics);
        if statistics.msg_cnt > 0 && is_idle {
            self.stalled_statistics.fetch_add(1, Ordering::Relaxed);
        } else {
            self.stalled_statistics.store(0, Ordering::Relaxed);
        }
    }
}

/// Finds out from a producer's statistics whether any of its connections is active: a producer that waits for an answer
/// is stalled when none is.
#[derive(Debug, Default)]
pub struct ConnectionActivity {
    /// Answers received by the last statistics.
    answers: AtomicU64,
}

impl ConnectionActivity {
    /// Whether all connections are idle: no request is in flight, and only answers to the producer's own metadata
    /// requests have arrived. A call that the producer repeats at the broker's request causes many answers.
    pub fn is_idle(&self, statistics: &Statistics) -> bool {
        let brokers = statistics.brokers.values();
        let is_active = |broker: &Broker| {
            broker.state == "UP" && (broker.waitresp_cnt > 0 || broker.outbuf_cnt > 0)
        };
        let is_waiting = brokers.clone().any(is_active);
        let answers = brokers.map(|broker| broker.rx).sum();
        let before = self.answers.swap(answers, Ordering::Relaxed);
        !is_waiting && answers.saturating_sub(before) <= METADATA_ANSWERS
    }
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = Box<oneshot::Sender<Result<RecordMetadata, SendError>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, pending: Self::DeliveryOpaque) {
        let answer = match result {
            Ok(message) => Ok(RecordMetadata {
                partition: message.partition(),
                offset: message.offset(),
            }),
            Err((failure, _)) => Err(SendError::Failed(failure.to_string())),
        };
        // The caller may have stopped waiting.
        let _ = pending.send(answer);
    }
}

impl Sender {
    /// A producer on `cluster`.
    ///
    /// # Errors
    ///
    /// A setting is rejected.
    pub fn new(cluster: Arc<Cluster>) -> Result<Self, Error> {
        let producer = producer(&cluster, 1).map_err(error)?;
        Ok(Self {
            cluster,
            producer: Arc::new(RwLock::new(producer)),
            problem: Arc::new(Mutex::new(Some("connecting".to_owned()))),
        })
    }

    /// Checks once a second that the producer reaches the broker, and replaces it when it does not and a fresh client
    /// does; never returns. Records that wait in the former producer fail, and it is unknown whether the last of them
    /// were written.
    pub async fn monitor(&self) {
        let started_at = Instant::now();
        let mut failures = FailureTracker::default();
        let mut every = tokio::time::interval(CHECK_INTERVAL);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut number = 2;
        loop {
            every.tick().await;
            let sender = self.clone();
            let checked = tokio::task::spawn_blocking(move || sender.check()).await;
            let problem = match checked {
                Ok(checked) => checked.err(),
                Err(error) => Some(error.to_string()),
            };
            self.set_problem(problem.as_deref());
            if problem.is_none() {
                failures.answered();
                continue;
            }
            if !failures.failed(started_at.elapsed()) {
                continue;
            }
            let cluster = Arc::clone(&self.cluster);
            let created = tokio::task::spawn_blocking(move || fresh(&cluster, number)).await;
            match created {
                Ok(Ok(fresh)) => {
                    tracing::warn!(
                        client = "commands",
                        number,
                        "log client replaced: a fresh one gets answers"
                    );
                    failures.replaced();
                    number += 1;
                    *self.producer.write() = fresh;
                }
                Ok(Err(error)) => tracing::debug!(%error, "no fresh producer either"),
                Err(error) => tracing::error!(%error, "a fresh producer could not be created"),
            }
        }
    }

    /// Whether a command would be written now, as of the last check.
    ///
    /// # Errors
    ///
    /// The reason, for readiness.
    pub fn health(&self) -> Result<(), String> {
        let problem = self.problem.lock();
        problem.clone().map_or(Ok(()), Err)
    }

    fn set_problem(&self, problem: Option<&str>) {
        let mut current = self.problem.lock();
        if current.as_deref() != problem {
            *current = problem.map(str::to_owned);
        }
    }

    fn check(&self) -> Result<(), String> {
        let producer = self.current();
        if producer
            .context()
            .stalled_statistics
            .load(Ordering::Relaxed)
            >= STALLED_AFTER
        {
            return Err("commands are not written".to_owned());
        }
        let topic = self.cluster.topic(Service::Orders, Topic::Commands);
        match producer
            .client()
            .fetch_metadata(Some(&topic), LOOKUP_TIMEOUT)
        {
            Ok(metadata) if has_leaders(&metadata) => Ok(()),
            Ok(_) => Err("commands have no leader".to_owned()),
            Err(failure) => Err(cause(&failure)),
        }
    }

    fn current(&self) -> Producer {
        Arc::clone(&self.producer.read())
    }

    /// Sends a command. The future ends when the command is durable, without a time-out; dropping it does not cancel
    /// the write.
    ///
    /// # Errors
    ///
    /// At once when the producer's queue is full; from the future when the broker refuses the record.
    pub fn send(
        &self,
        service: Service,
        key: &str,
        payload: &[u8],
        headers: &[Header],
    ) -> Result<impl Future<Output = Result<RecordMetadata, SendError>> + use<>, SendError> {
        let topic = self.cluster.topic(service, Topic::Commands);
        let (pending, answer) = oneshot::channel();
        let headers = headers.iter().fold(
            OwnedHeaders::new_with_capacity(headers.len()),
            |headers, (key, value)| {
                headers.insert(RecordHeader {
                    key,
                    value: Some(value),
                })
            },
        );
        let record = BaseRecord::with_opaque_to(&topic, Box::new(pending))
            .partition(self.cluster.partition_of(key.as_bytes()))
            .key(key.as_bytes())
            .payload(payload)
            .headers(headers);
        self.current()
            .send(record)
            .map_err(|(failure, _)| match failure {
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => SendError::Full,
                failure => SendError::Failed(failure.to_string()),
            })?;
        Ok(async move {
            answer
                .await
                .unwrap_or_else(|_| Err(SendError::Failed("the producer was closed".into())))
        })
    }

    /// Waits until every sent record is written or failed.
    pub fn flush(&self, timeout: Duration) {
        if let Err(failure) = self.current().flush(timeout) {
            tracing::warn!(error = %failure, "commands still in flight at shutdown");
        }
    }
}

fn producer(cluster: &Cluster, number: u32) -> KafkaResult<Producer> {
    settings::producer(cluster)
        .set("client.id", format!("{}commands-{number}", cluster.prefix))
        .set("linger.ms", "1")
        // No limit: when a record expires, librdkafka restarts under another producer id and sends the records in
        // flight again, and the broker cannot detect the duplicates. Callers have deadlines.
        .set("delivery.timeout.ms", "0")
        .create_with_context(DeliveryContext::default())
        .map(|producer| Arc::new(BackgroundDrop::new(producer)))
}

/// A producer, if the broker answers a fresh client.
fn fresh(cluster: &Cluster, number: u32) -> KafkaResult<Producer> {
    let topic = cluster.topic(Service::Orders, Topic::Commands);
    if fresh_client_succeeds(cluster, &topic) {
        producer(cluster, number)
    } else {
        Err(KafkaError::MetadataFetch(RDKafkaErrorCode::AllBrokersDown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(state: &str, pending: i64, answers: u64) -> Statistics {
        let broker = Broker {
            state: state.to_owned(),
            waitresp_cnt: pending,
            rx: answers,
            ..Broker::default()
        };
        Statistics {
            brokers: [("one".to_owned(), broker)].into(),
            ..Statistics::default()
        }
    }

    #[test]
    fn a_producer_is_idle_when_nothing_is_under_way_and_nothing_comes() {
        let activity = ConnectionActivity::default();
        assert!(
            !activity.is_idle(&statistics("UP", 1, 10)),
            "a request is under way"
        );
        assert!(activity.is_idle(&statistics("UP", 0, 11)), "metadata");
        assert!(
            !activity.is_idle(&statistics("UP", 0, 40)),
            "it repeats a call"
        );
        assert!(
            activity.is_idle(&statistics("DOWN", 1, 40)),
            "it is not connected"
        );
        // All connections are gone, and their counts with them.
        assert!(activity.is_idle(&Statistics::default()));
        assert!(
            !activity.is_idle(&statistics("UP", 0, 9)),
            "a new connection"
        );
    }
}
