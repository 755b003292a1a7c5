//! From records to events: unframe, resolve the schema, decode, check.

use std::collections::HashMap;

use contracts::inventory::v1::stock_event;
use contracts::orders::v1::order_event;
use contracts::payments::v1::payment_event;
use contracts::shipping::v1::shipment_event;
use contracts::{
    Body as _, Contract, Inventory, Orders, Payments, Record as _, Service, Shipping, Topic,
    Validate as _,
};
use prost::Message as _;
use registry::{Resolution, Schemas, frame};
use sqlx::types::time::OffsetDateTime;

use super::log::{Fetched, Source};
use super::trace::Spans;
use crate::fold::{Change, Entry};

const NANOS_PER_MS: i128 = 1_000_000;

/// Entries of all four topics, each in the order of its partitions.
#[derive(Debug, Default)]
pub struct Batch {
    /// Of orders.
    pub orders: Vec<Entry<order_event::Event>>,
    /// Of stock items.
    pub stock: Vec<Entry<stock_event::Event>>,
    /// Of payments.
    pub payments: Vec<Entry<payment_event::Event>>,
    /// Of shipments.
    pub shipments: Vec<Entry<shipment_event::Event>>,
    /// A schema id that an event was decoded with.
    pub schema_id: Option<u32>,
    /// When the last record of each partition was sent, in Unix milliseconds.
    pub sent_ms: HashMap<Source, i64>,
    /// The spans of its events.
    pub spans: Spans,
}

/// Why a record is handed back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// The registry has not answered.
    #[error("its schema is not resolved yet")]
    Registry,
    /// An event of a kind that this binary does not know.
    #[error("its schema is newer than this program, which must be upgraded")]
    Newer,
    /// The registry does not have its schema under this topic: poison, unless the registry was replaced.
    #[error("schema {id} is not one of this topic")]
    Stranger {
        /// The schema.
        id: u32,
    },
}

impl Batch {
    /// Takes a record in, or hands it back when it can be neither applied nor set aside for now.
    pub fn push(&mut self, schemas: &Schemas, record: Fetched) -> Result<(), (Fetched, Obstacle)> {
        let (source, sent_ms) = (record.source, record.time_ms);
        match source.0 {
            Service::Orders => {
                let entry = entry::<Orders>(schemas, record, &mut self.schema_id, &mut self.spans)?;
                self.orders.push(entry);
            }
            Service::Inventory => {
                let entry =
                    entry::<Inventory>(schemas, record, &mut self.schema_id, &mut self.spans)?;
                self.stock.push(entry);
            }
            Service::Payments => {
                let entry =
                    entry::<Payments>(schemas, record, &mut self.schema_id, &mut self.spans)?;
                self.payments.push(entry);
            }
            Service::Shipping => {
                let entry =
                    entry::<Shipping>(schemas, record, &mut self.schema_id, &mut self.spans)?;
                self.shipments.push(entry);
            }
        }
        if let Some(sent_ms) = sent_ms {
            self.sent_ms.insert(source, sent_ms);
        }
        Ok(())
    }

    /// Takes a record in as one that holds no event.
    pub fn refuse(&mut self, record: Fetched, error: String) {
        match record.source.0 {
            Service::Orders => self.orders.push(refused(record, error)),
            Service::Inventory => self.stock.push(refused(record, error)),
            Service::Payments => self.payments.push(refused(record, error)),
            Service::Shipping => self.shipments.push(refused(record, error)),
        }
    }

    /// Entries in all.
    pub fn len(&self) -> usize {
        self.orders.len() + self.stock.len() + self.payments.len() + self.shipments.len()
    }
}

/// Why a record holds no event.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("the record has no value")]
    Tombstone,
    #[error(transparent)]
    Frame(#[from] frame::Error),
    #[error("the record cannot be decoded: {0}")]
    Decode(#[from] prost::DecodeError),
    #[error("metadata or event is missing")]
    Empty,
    #[error("the field rules are violated: {0}")]
    Rules(String),
    #[error("the key is not the aggregate {id:?}")]
    Key { id: String },
    #[error("the time or the version is out of range")]
    Range,
}

enum Stop {
    Obstacle(Obstacle),
    Unreadable(Unreadable),
}

impl<E: Into<Unreadable>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Unreadable(error.into())
    }
}

fn entry<C: Contract>(
    schemas: &Schemas,
    record: Fetched,
    schema_id: &mut Option<u32>,
    spans: &mut Spans,
) -> Result<Entry<C::Event>, (Fetched, Obstacle)> {
    match change::<C>(schemas, &record, schema_id) {
        Ok(change) => {
            spans.project(&record, change.event.kind(), &change.id);
            Ok(Entry {
                partition: record.source.1,
                offset: record.offset,
                key: record.key,
                content: Ok(change),
            })
        }
        Err(Stop::Obstacle(obstacle)) => Err((record, obstacle)),
        Err(Stop::Unreadable(unreadable)) => Ok(refused(record, unreadable.to_string())),
    }
}

fn refused<E>(record: Fetched, error: String) -> Entry<E> {
    let (service, partition) = record.source;
    tracing::error!(%service, partition, offset = record.offset, error, "record without a readable event");
    Entry {
        partition,
        offset: record.offset,
        key: record.key,
        content: Err(error),
    }
}

fn change<C: Contract>(
    schemas: &Schemas,
    record: &Fetched,
    schema_id: &mut Option<u32>,
) -> Result<Change<C::Event>, Stop> {
    let value = record.value.as_deref().ok_or(Unreadable::Tombstone)?;
    let framed = frame::unframe(value)?;
    let id = framed.schema_id;
    let newer = match schemas.resolve(C::SERVICE, Topic::Events, id) {
        Resolution::Known => false,
        Resolution::Newer => true,
        Resolution::Pending => return Err(Stop::Obstacle(Obstacle::Registry)),
        Resolution::Foreign | Resolution::Unknown => {
            return Err(Stop::Obstacle(Obstacle::Stranger { id }));
        }
    };
    *schema_id = Some(id);
    let Some((metadata, event)) = C::EventRecord::decode(framed.payload)?.into_parts() else {
        // A field that this binary does not know reads as an empty oneof: the event is one of a later version.
        return Err(if newer {
            Stop::Obstacle(Obstacle::Newer)
        } else {
            Unreadable::Empty.into()
        });
    };
    metadata
        .validate()
        .map_err(|error| Unreadable::Rules(error.to_string()))?;
    if let Some(violation) = event.violations().first() {
        return Err(Unreadable::Rules(violation.to_string()).into());
    }
    if record.key != metadata.aggregate_id.as_bytes() {
        return Err(Unreadable::Key {
            id: metadata.aggregate_id,
        }
        .into());
    }
    Ok(Change {
        version: i64::try_from(metadata.aggregate_version)
            .ok()
            .filter(|version| *version > 0)
            .ok_or(Unreadable::Range)?,
        time: OffsetDateTime::from_unix_timestamp_nanos(
            i128::from(metadata.time_ms) * NANOS_PER_MS,
        )
        .map_err(|_| Unreadable::Range)?,
        id: metadata.aggregate_id,
        event,
        trace: record.trace.clone(),
        // Only orders have a history.
        payload: if C::SERVICE == Service::Orders {
            framed.payload.to_vec()
        } else {
            Vec::new()
        },
    })
}
