//! Evidence in memory. Tests change it.

use std::collections::BTreeMap;

use contracts::sandbox::v1::{LedgerBooking, LedgerPayment};
use contracts::{Service, Topic};

use crate::client_observation::ClientObservation;
use crate::evidence::{Cut, Error, Evidence, Items, LogRecord, TopicPartition};
use crate::rows::{ParkedKey, Row};

/// Evidence in memory.
#[derive(Clone, Debug, Default)]
pub struct InMemoryEvidence {
    /// The limits of the evidence.
    pub cut: Cut,
    /// Records of each partition, by offset.
    pub records: BTreeMap<TopicPartition, Vec<LogRecord>>,
    /// Rows of the read model.
    pub rows: Option<Vec<Row>>,
    /// Keys that the projector has parked.
    pub parked: Vec<ParkedKey>,
    /// The payment provider's ledger.
    pub payments: Option<Vec<LedgerPayment>>,
    /// The carrier's ledger.
    pub bookings: Option<Vec<LedgerBooking>>,
    /// Observations of clients.
    pub journal: Option<Vec<ClientObservation>>,
}

impl InMemoryEvidence {
    /// Copies `evidence`.
    ///
    /// # Errors
    ///
    /// The evidence cannot be read.
    pub fn copy(evidence: &impl Evidence) -> Result<Self, Error> {
        fn all<T>(items: Option<Items<'_, T>>) -> Result<Option<Vec<T>>, Error> {
            items.map(Iterator::collect).transpose()
        }
        let cut = evidence.cut().clone();
        let mut records = BTreeMap::new();
        for service in Service::ALL {
            for topic in Topic::ALL {
                for partition in 0..cut.partitions {
                    let topic_partition = TopicPartition::new(service, topic, partition);
                    let read: Result<Vec<_>, _> = evidence.records(topic_partition)?.collect();
                    records.insert(topic_partition, read?);
                }
            }
        }
        Ok(Self {
            cut,
            records,
            rows: all(evidence.rows()?)?,
            parked: evidence.parked()?,
            payments: all(evidence.payments()?)?,
            bookings: all(evidence.bookings()?)?,
            journal: all(evidence.journal()?)?,
        })
    }

    /// The records of a partition, for changes.
    pub fn records_mut(&mut self, topic_partition: TopicPartition) -> &mut Vec<LogRecord> {
        self.records.entry(topic_partition).or_default()
    }
}

fn items<T: Clone>(items: &[T]) -> Items<'_, T> {
    Box::new(items.iter().cloned().map(Ok))
}

impl Evidence for InMemoryEvidence {
    fn cut(&self) -> &Cut {
        &self.cut
    }

    fn records(&self, topic_partition: TopicPartition) -> Result<Items<'_, LogRecord>, Error> {
        Ok(items(
            self.records
                .get(&topic_partition)
                .map_or(&[], Vec::as_slice),
        ))
    }

    fn rows(&self) -> Result<Option<Items<'_, Row>>, Error> {
        Ok(self.rows.as_deref().map(items))
    }

    fn parked(&self) -> Result<Vec<ParkedKey>, Error> {
        Ok(self.parked.clone())
    }

    fn payments(&self) -> Result<Option<Items<'_, LedgerPayment>>, Error> {
        Ok(self.payments.as_deref().map(items))
    }

    fn bookings(&self) -> Result<Option<Items<'_, LedgerBooking>>, Error> {
        Ok(self.bookings.as_deref().map(items))
    }

    fn journal(&self) -> Result<Option<Items<'_, ClientObservation>>, Error> {
        Ok(self.journal.as_deref().map(items))
    }
}
