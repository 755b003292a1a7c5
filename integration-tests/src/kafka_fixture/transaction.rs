//! Transactions of a producer that belongs to no engine.

use engine::log::Input;
use rdkafka::message::{Header as RecordHeader, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::eventually::DEADLINE;

/// An open transaction of another producer.
pub struct OpenTransaction {
    pub(super) producer: BaseProducer,
}

impl OpenTransaction {
    /// Writes a record unchanged and waits until Kafka has it.
    ///
    /// # Panics
    ///
    /// When Kafka rejects the record.
    pub fn write(&self, topic: &str, record: &Input) {
        produce(&self.producer, topic, record);
        self.producer.flush(DEADLINE).expect("Kafka accepts it");
    }

    /// Commits the transaction.
    ///
    /// # Panics
    ///
    /// When Kafka rejects the commit.
    pub fn commit(self) {
        self.producer
            .commit_transaction(DEADLINE)
            .expect("it commits");
    }

    /// Aborts the transaction.
    ///
    /// # Panics
    ///
    /// When Kafka rejects the abort.
    pub fn abort(self) {
        self.producer
            .abort_transaction(DEADLINE)
            .expect("it aborts");
    }
}

pub(super) fn produce(producer: &BaseProducer, topic: &str, record: &Input) {
    let headers = record
        .headers
        .iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(RecordHeader {
                key,
                value: Some(value),
            })
        });
    let mut message = BaseRecord::<[u8], [u8]>::to(topic)
        .partition(record.partition)
        .headers(headers);
    if let Some(key) = &record.key {
        message = message.key(key);
    }
    if let Some(payload) = &record.payload {
        message = message.payload(payload);
    }
    producer
        .send(message)
        .map_err(|(error, _)| error)
        .expect("the queue has room");
}
