//! Sends single commands: of callers, of timers, of effects that have been answered.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use contracts::{Service, Topic};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header as RecordHeader, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::statistics::Broker;
use rdkafka::{ClientContext, Statistics};
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

use super::client::{drop_in_background, has_leaders, is_answered_afresh};
use super::context::{Reports, cause, log};
use super::{Cluster, Error, LOOKUP_TIMEOUT, Partition, error, settings};
use crate::log::Header;
use crate::log::replacement::Failing;

/// Answers between two statistics to requests that a producer makes for itself.
const OWN_ANSWERS: u64 = 2;
/// Statistics in a row, of 700 ms each, after which records wait in vain.
const IN_VAIN: u32 = 3;
/// Between two looks at the producer.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A producer of commands; cheap to clone.
#[derive(Clone)]
pub struct Sender {
    cluster: Arc<Cluster>,
    producer: Arc<RwLock<Producer>>,
    /// Why a command would not be written now.
    trouble: Arc<Mutex<Option<String>>>,
}

type Producer = Arc<ThreadedProducer<Acknowledge>>;

/// Where a command stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordMetadata {
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: i64,
}

/// A command was not written, or nobody knows whether it was.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Too much is under way.
    #[error("too many commands are under way")]
    Full,
    /// The broker refused it.
    #[error("command could not be written: {0}")]
    Failed(String),
}

/// Wakes whoever waits for a record; nothing slow happens here, on the polling thread.
#[derive(Default)]
struct Acknowledge {
    reports: Reports,
    activity: Activity,
    /// Statistics in a row by which records wait, and no connection is at work. One says nothing: it may fall between
    /// two requests.
    waits_in_vain: AtomicU32,
}

impl ClientContext for Acknowledge {
    fn error(&self, error: KafkaError, reason: &str) {
        self.reports.tell(&error, reason);
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        let is_idle = self.activity.is_idle(&statistics);
        if statistics.msg_cnt > 0 && is_idle {
            self.waits_in_vain.fetch_add(1, Ordering::Relaxed);
        } else {
            self.waits_in_vain.store(0, Ordering::Relaxed);
        }
    }
}

/// Tells by a producer's statistics whether any of its connections is at work: a producer that waits for something waits
/// in vain when none is.
#[derive(Debug, Default)]
pub struct Activity {
    /// Answers that had come by the last statistics.
    answers: AtomicU64,
}

impl Activity {
    /// Whether no connection is at work by these statistics: no request is under way, and no more answers have come than
    /// those to its own requests for metadata. A call that the broker makes it repeat brings many.
    pub fn is_idle(&self, statistics: &Statistics) -> bool {
        let brokers = statistics.brokers.values();
        let is_at_work = |broker: &Broker| {
            broker.state == "UP" && (broker.waitresp_cnt > 0 || broker.outbuf_cnt > 0)
        };
        let is_waiting = brokers.clone().any(is_at_work);
        let answers = brokers.map(|broker| broker.rx).sum();
        let before = self.answers.swap(answers, Ordering::Relaxed);
        !is_waiting && answers.saturating_sub(before) <= OWN_ANSWERS
    }
}

impl ProducerContext for Acknowledge {
    type DeliveryOpaque = Box<oneshot::Sender<Result<RecordMetadata, SendError>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Self::DeliveryOpaque) {
        let answer = match result {
            Ok(message) => Ok(RecordMetadata {
                partition: message.partition(),
                offset: message.offset(),
            }),
            Err((failure, _)) => Err(SendError::Failed(failure.to_string())),
        };
        // The caller may have stopped waiting.
        let _ = waiting.send(answer);
    }
}

impl Sender {
    /// A producer on `cluster`.
    ///
    /// # Errors
    ///
    /// When a setting is refused.
    pub fn new(cluster: Arc<Cluster>) -> Result<Self, Error> {
        let producer = Arc::new(producer(&cluster, 1).map_err(error)?);
        Ok(Self {
            cluster,
            producer: Arc::new(RwLock::new(producer)),
            trouble: Arc::new(Mutex::new(Some("connecting".to_owned()))),
        })
    }

    /// Proves once a second that the producer reaches the broker, and replaces it when it does not although a fresh
    /// client does; runs for as long as the process. Records that wait in the former producer fail: whether the last of
    /// them were written is not known.
    pub async fn attend(&self) {
        let begun = Instant::now();
        let mut failing = Failing::default();
        let mut every = tokio::time::interval(LOOK_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut number = 2;
        loop {
            every.tick().await;
            let sender = self.clone();
            let proved = tokio::task::spawn_blocking(move || sender.prove()).await;
            let trouble = match proved {
                Ok(proved) => proved.err(),
                Err(error) => Some(error.to_string()),
            };
            self.tell(trouble.as_deref());
            if trouble.is_none() {
                failing.answered();
                continue;
            }
            if !failing.failed(begun.elapsed()) {
                continue;
            }
            let cluster = Arc::clone(&self.cluster);
            let made = tokio::task::spawn_blocking(move || fresh(&cluster, number)).await;
            match made {
                Ok(Ok(fresh)) => {
                    tracing::warn!(
                        client = "commands",
                        number,
                        "log client replaced: a fresh one gets answers"
                    );
                    failing.replaced();
                    number += 1;
                    let mut current = self.producer.write().expect("no holder panics");
                    drop_in_background(std::mem::replace(&mut *current, Arc::new(fresh)));
                }
                Ok(Err(error)) => tracing::debug!(%error, "no fresh producer either"),
                Err(error) => tracing::error!(%error, "a fresh producer could not be made"),
            }
        }
    }

    /// Whether a command would be written now, as of the last proof.
    ///
    /// # Errors
    ///
    /// Why not, for readiness.
    pub fn health(&self) -> Result<(), String> {
        let trouble = self.trouble.lock().expect("no holder panics");
        trouble.clone().map_or(Ok(()), Err)
    }

    fn tell(&self, trouble: Option<&str>) {
        let mut told = self.trouble.lock().expect("no holder panics");
        if told.as_deref() != trouble {
            *told = trouble.map(str::to_owned);
        }
    }

    fn prove(&self) -> Result<(), String> {
        let producer = self.current();
        if producer.context().waits_in_vain.load(Ordering::Relaxed) >= IN_VAIN {
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
        Arc::clone(&self.producer.read().expect("no holder panics"))
    }

    /// Hands a command to the producer; the future ends when it is durable, however long that takes. Dropping the
    /// future does not take the command back.
    ///
    /// # Errors
    ///
    /// At once when too much is under way, later when the broker refuses it.
    pub fn send(
        &self,
        service: Service,
        key: &str,
        payload: &[u8],
        headers: &[Header],
    ) -> Result<impl Future<Output = Result<RecordMetadata, SendError>> + use<>, SendError> {
        let topic = self.cluster.topic(service, Topic::Commands);
        let (waiting, answer) = oneshot::channel();
        let headers = headers.iter().fold(
            OwnedHeaders::new_with_capacity(headers.len()),
            |headers, (key, value)| {
                headers.insert(RecordHeader {
                    key,
                    value: Some(value),
                })
            },
        );
        let record = BaseRecord::with_opaque_to(&topic, Box::new(waiting))
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

    /// Waits until everything handed over is written or failed.
    pub fn flush(&self, timeout: Duration) {
        if let Err(failure) = self.current().flush(timeout) {
            tracing::warn!(error = %failure, "commands were still under way at the end");
        }
    }
}

fn producer(cluster: &Cluster, number: u32) -> KafkaResult<ThreadedProducer<Acknowledge>> {
    settings::producer(cluster)
        .set("client.id", format!("{}commands-{number}", cluster.prefix))
        .set("linger.ms", "1")
        // For ever: when a record expires, librdkafka begins anew under another producer id and writes once more what is
        // under way, and the broker does not see that it has some of it already. Who waits has a deadline.
        .set("delivery.timeout.ms", "0")
        .create_with_context(Acknowledge::default())
}

/// A producer, if the broker answers a fresh client.
fn fresh(cluster: &Cluster, number: u32) -> KafkaResult<ThreadedProducer<Acknowledge>> {
    let topic = cluster.topic(Service::Orders, Topic::Commands);
    if is_answered_afresh(cluster, &topic) {
        producer(cluster, number)
    } else {
        Err(KafkaError::MetadataFetch(RDKafkaErrorCode::AllBrokersDown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(state: &str, waiting: i64, answers: u64) -> Statistics {
        let broker = Broker {
            state: state.to_owned(),
            waitresp_cnt: waiting,
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
        let activity = Activity::default();
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
