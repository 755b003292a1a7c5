//! Decodes records into events: unframe, resolve the schema, decode, validate.

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

use super::log::{FetchedRecord, Source};
use super::trace::Spans;
use crate::fold::{Change, Entry};

const NANOS_PER_MS: i128 = 1_000_000;

/// Entries of the four events topics, in partition order.
#[derive(Debug, Default)]
pub struct Batch {
    /// Order events.
    pub orders: Vec<Entry<order_event::Event>>,
    /// Stock events.
    pub stock: Vec<Entry<stock_event::Event>>,
    /// Payment events.
    pub payments: Vec<Entry<payment_event::Event>>,
    /// Shipment events.
    pub shipments: Vec<Entry<shipment_event::Event>>,
    /// The schema id of the last event that was read.
    pub schema_id: Option<u32>,
    /// Partition and offset of each record.
    pub records: Vec<(Source, i64)>,
    /// Send time of the last record of each partition, in Unix milliseconds.
    pub sent_ms: HashMap<Source, i64>,
    /// The spans of the events.
    pub spans: Spans,
}

/// Why the schema of a record cannot be used now. The record is neither applied nor parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The registry has not answered yet.
    #[error("its schema is not resolved yet")]
    Unresolved,
    /// The event is of a kind that this binary does not know.
    #[error("its schema is newer than this program, which must be upgraded")]
    Newer,
    /// The registry does not have this schema under the topic: the record is poison, unless the registry was replaced.
    #[error("schema {id} is not one of this topic")]
    Unknown {
        /// The schema id.
        id: u32,
    },
}

impl Batch {
    /// Adds a record, or returns it when its schema cannot be used now.
    pub fn push(
        &mut self,
        schemas: &Schemas,
        record: FetchedRecord,
    ) -> Result<(), (FetchedRecord, SchemaError)> {
        let (source, offset, sent_ms) = (record.source, record.offset, record.time_ms);
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
        self.records.push((source, offset));
        if let Some(sent_ms) = sent_ms {
            self.sent_ms.insert(source, sent_ms);
        }
        Ok(())
    }

    /// Adds a record that has no readable event.
    pub fn push_unreadable(&mut self, record: FetchedRecord, error: String) {
        self.records.push((record.source, record.offset));
        match record.source.0 {
            Service::Orders => self.orders.push(unreadable_entry(record, error)),
            Service::Inventory => self.stock.push(unreadable_entry(record, error)),
            Service::Payments => self.payments.push(unreadable_entry(record, error)),
            Service::Shipping => self.shipments.push(unreadable_entry(record, error)),
        }
    }

    /// Number of entries of all topics.
    pub fn len(&self) -> usize {
        self.orders.len() + self.stock.len() + self.payments.len() + self.shipments.len()
    }
}

/// Why a record has no readable event.
#[derive(Debug, thiserror::Error)]
enum InvalidRecord {
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

enum DecodeError {
    Schema(SchemaError),
    Invalid(InvalidRecord),
}

impl<E: Into<InvalidRecord>> From<E> for DecodeError {
    fn from(error: E) -> Self {
        Self::Invalid(error.into())
    }
}

fn entry<C: Contract>(
    schemas: &Schemas,
    record: FetchedRecord,
    schema_id: &mut Option<u32>,
    spans: &mut Spans,
) -> Result<Entry<C::Event>, (FetchedRecord, SchemaError)> {
    match decode::<C>(schemas, &record, schema_id) {
        Ok(change) => {
            spans.start_event(&record, change.event.kind(), &change.id);
            Ok(Entry {
                partition: record.source.1,
                offset: record.offset,
                key: record.key,
                content: Ok(change),
            })
        }
        Err(DecodeError::Schema(error)) => Err((record, error)),
        Err(DecodeError::Invalid(error)) => Ok(unreadable_entry(record, error.to_string())),
    }
}

fn unreadable_entry<E>(record: FetchedRecord, error: String) -> Entry<E> {
    let (service, partition) = record.source;
    tracing::error!(%service, partition, offset = record.offset, error, "record without a readable event");
    Entry {
        partition,
        offset: record.offset,
        key: record.key,
        content: Err(error),
    }
}

fn decode<C: Contract>(
    schemas: &Schemas,
    record: &FetchedRecord,
    schema_id: &mut Option<u32>,
) -> Result<Change<C::Event>, DecodeError> {
    let value = record.value.as_deref().ok_or(InvalidRecord::Tombstone)?;
    let framed = frame::unframe(value)?;
    let id = framed.schema_id;
    let newer = match schemas.resolve(C::SERVICE, Topic::Events, id) {
        Resolution::Known => false,
        Resolution::Newer => true,
        Resolution::Pending => return Err(DecodeError::Schema(SchemaError::Unresolved)),
        Resolution::Foreign | Resolution::Unknown => {
            return Err(DecodeError::Schema(SchemaError::Unknown { id }));
        }
    };
    *schema_id = Some(id);
    let Some((metadata, event)) = C::EventRecord::decode(framed.payload)?.into_parts() else {
        // An unknown variant decodes as an empty oneof: the event was added in a later version.
        return Err(if newer {
            DecodeError::Schema(SchemaError::Newer)
        } else {
            InvalidRecord::Empty.into()
        });
    };
    metadata
        .validate()
        .map_err(|error| InvalidRecord::Rules(error.to_string()))?;
    if let Some(violation) = event.violations().first() {
        return Err(InvalidRecord::Rules(violation.to_string()).into());
    }
    if record.key != metadata.aggregate_id.as_bytes() {
        return Err(InvalidRecord::Key {
            id: metadata.aggregate_id,
        }
        .into());
    }
    Ok(Change {
        version: i64::try_from(metadata.aggregate_version)
            .ok()
            .filter(|version| *version > 0)
            .ok_or(InvalidRecord::Range)?,
        time: OffsetDateTime::from_unix_timestamp_nanos(
            i128::from(metadata.time_ms) * NANOS_PER_MS,
        )
        .map_err(|_| InvalidRecord::Range)?,
        id: metadata.aggregate_id,
        event,
        trace: record.trace.clone(),
        // Only orders have a history table.
        payload: if C::SERVICE == Service::Orders {
            framed.payload.to_vec()
        } else {
            Vec::new()
        },
    })
}
