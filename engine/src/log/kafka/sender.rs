//! Sends single commands: of callers, of timers, of effects that have been answered.

use std::sync::Arc;
use std::time::Duration;

use contracts::{Service, Topic};
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header as RecordHeader, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;

use super::context::report;
use super::{Cluster, Error, Partition, error, settings};
use crate::log::Header;

/// A producer of commands; cheap to clone.
#[derive(Clone)]
pub struct Sender {
    cluster: Arc<Cluster>,
    producer: ThreadedProducer<Acknowledge>,
}

/// Where a command stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
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
struct Acknowledge;

impl ClientContext for Acknowledge {
    fn error(&self, error: KafkaError, reason: &str) {
        report(&error, reason);
    }
}

impl ProducerContext for Acknowledge {
    type DeliveryOpaque = Box<oneshot::Sender<Result<Receipt, SendError>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Self::DeliveryOpaque) {
        let answer = match result {
            Ok(message) => Ok(Receipt {
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
        let producer = settings::producer(&cluster)
            .set("linger.ms", "1")
            // For ever: when a record expires, librdkafka begins anew under another producer id and writes once more
            // what is under way, and the broker does not see that it has some of it already. Who waits has a deadline.
            .set("delivery.timeout.ms", "0")
            .create_with_context(Acknowledge)
            .map_err(error)?;
        Ok(Self { cluster, producer })
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
    ) -> Result<impl Future<Output = Result<Receipt, SendError>> + use<>, SendError> {
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
        self.producer
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
        if let Err(failure) = self.producer.flush(timeout) {
            tracing::warn!(error = %failure, "commands were still under way at the end");
        }
    }
}
