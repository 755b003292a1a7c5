//! Evidence in memory: a copy that can be changed at will.

use std::collections::BTreeMap;

use contracts::sandbox::v1::{LedgerBooking, LedgerPayment};
use contracts::{Service, Topic};

use crate::evidence::{Cut, Error, Evidence, Items, Seen, TopicPartition};
use crate::journal::ClientObservation;
use crate::rows::{Parked, Row};

/// A copy of everything.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// How far it goes.
    pub cut: Cut,
    /// Records of each partition, by offset.
    pub records: BTreeMap<TopicPartition, Vec<Seen>>,
    /// Rows of the read model.
    pub rows: Option<Vec<Row>>,
    /// Keys that the read model has set aside.
    pub parked: Vec<Parked>,
    /// The payment provider's ledger.
    pub payments: Option<Vec<LedgerPayment>>,
    /// The carrier's ledger.
    pub bookings: Option<Vec<LedgerBooking>>,
    /// What clients have noted.
    pub journal: Option<Vec<ClientObservation>>,
}

impl Memory {
    /// A copy of `evidence`.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn copy(evidence: &impl Evidence) -> Result<Self, Error> {
        fn all<T>(items: Option<Items<'_, T>>) -> Result<Option<Vec<T>>, Error> {
            items.map(Iterator::collect).transpose()
        }
        let cut = evidence.cut().clone();
        let mut records = BTreeMap::new();
        for service in Service::ALL {
            for topic in Topic::ALL {
                for partition in 0..cut.partitions {
                    let place = TopicPartition::new(service, topic, partition);
                    let seen: Result<Vec<_>, _> = evidence.records(place)?.collect();
                    records.insert(place, seen?);
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

    /// Records of a partition, to be changed.
    pub fn records_mut(&mut self, place: TopicPartition) -> &mut Vec<Seen> {
        self.records.entry(place).or_default()
    }
}

fn items<T: Clone>(items: &[T]) -> Items<'_, T> {
    Box::new(items.iter().cloned().map(Ok))
}

impl Evidence for Memory {
    fn cut(&self) -> &Cut {
        &self.cut
    }

    fn records(&self, place: TopicPartition) -> Result<Items<'_, Seen>, Error> {
        Ok(items(self.records.get(&place).map_or(&[], Vec::as_slice)))
    }

    fn rows(&self) -> Result<Option<Items<'_, Row>>, Error> {
        Ok(self.rows.as_deref().map(items))
    }

    fn parked(&self) -> Result<Vec<Parked>, Error> {
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
