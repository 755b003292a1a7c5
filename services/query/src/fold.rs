//! The read model's rows as folds of the log: pure, one file per aggregate.

mod milestones;
mod order;
mod payment;
mod shipment;
mod stock;

use std::collections::{BTreeMap, HashMap, HashSet};

use contracts::rules::canonical_uuid;
use observability::TraceParent;
use sqlx::types::time::OffsetDateTime;
use uuid::Uuid;

pub use milestones::{MILESTONES, Milestone, milestones};
pub use order::OrderRow;
pub use payment::PaymentRow;
pub use shipment::ShipmentRow;
pub use stock::StockRow;

/// A row of the read model: the fold of one aggregate's events.
pub trait Row: Clone + Sized {
    /// The events of the aggregate.
    type Event;

    /// The aggregate's id, which is also the key of its records.
    fn key(&self) -> String;

    /// Events folded so far.
    fn version(&self) -> i64;

    /// The row after the next event.
    ///
    /// # Errors
    ///
    /// The event cannot be represented in a row. The previous row is unchanged.
    fn apply(
        row: Option<&Self>,
        metadata: &EventMetadata<'_>,
        event: &Self::Event,
    ) -> Result<Self, ApplyError>;
}

/// The metadata of an event that its row depends on.
#[derive(Clone, Copy, Debug)]
pub struct EventMetadata<'a> {
    /// The aggregate.
    pub id: &'a str,
    /// Position of the event among the aggregate's, from 1.
    pub version: i64,
    /// When it happened.
    pub time: OffsetDateTime,
}

/// Why an event cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Events between the row and this one are missing.
    #[error("version {found} follows version {row}")]
    Gap {
        /// Version of the row.
        row: i64,
        /// Version of the event.
        found: i64,
    },
    /// The key is not an id of this kind of aggregate in its canonical form.
    #[error("the key is no order id")]
    Id,
    /// The first event does not create the aggregate, or a later event does.
    #[error("the aggregate is created by its first event and by no other")]
    Creation,
    /// A number is outside the range of its column.
    #[error("{field} is out of range")]
    Range {
        /// The column.
        field: &'static str,
    },
    /// The text contains NUL, which PostgreSQL's `text` cannot store.
    #[error("{field} holds a NUL character")]
    Text {
        /// The column.
        field: &'static str,
    },
}

/// One record of an events topic, in the order of its partition.
#[derive(Clone, Debug)]
pub struct Entry<E> {
    /// Partition of the topic.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
    /// The record's key; empty when it has none.
    pub key: Vec<u8>,
    /// The event, or why the record could not be read.
    pub content: Result<Change<E>, String>,
}

/// A decoded event.
#[derive(Clone, Debug)]
pub struct Change<E> {
    /// The aggregate; equal to the record's key.
    pub id: String,
    /// Position of the event among the aggregate's, from 1.
    pub version: i64,
    /// When it happened.
    pub time: OffsetDateTime,
    /// The event itself.
    pub event: E,
    /// The record's payload.
    pub payload: Vec<u8>,
    /// The context of its sampled trace. Boxed, because most events have none.
    pub trace: Option<Box<TraceParent>>,
}

/// What a batch of entries does to one kind of aggregate.
#[derive(Debug)]
pub struct Folded<R: Row> {
    /// The last row of every aggregate that changed.
    pub changed: Vec<R>,
    /// The entries that were applied, in their order.
    pub applied: Vec<Applied<R::Event>>,
    /// The keys that were parked, and the parked keys with further records.
    pub parked: Vec<Parked>,
    /// Number of entries that had already been applied.
    pub repeated: usize,
}

/// An applied event and its position in the log.
#[derive(Debug)]
pub struct Applied<E> {
    /// Partition of the topic.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
    /// The event.
    pub change: Change<E>,
}

/// Records of one key that were parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// Partition of the topic.
    pub partition: i32,
    /// Key of the records; empty for records without one.
    pub key: Vec<u8>,
    /// Offset of the first record.
    pub first_offset: i64,
    /// Offset of the last record.
    pub last_offset: i64,
    /// Number of records.
    pub records: i64,
    /// What is wrong with the first record.
    pub error: String,
}

/// The error of a record that is parked only because an earlier record of its key is.
const BEHIND_PARKED: &str = "an earlier record of the key is parked";

/// Folds a batch over the rows that it concerns.
///
/// `rows` holds the current row of each aggregate in the batch, if it has one. `parked` holds the keys with a record
/// that could not be applied; newly parked keys are added.
pub fn fold<R: Row>(
    rows: &mut HashMap<String, R>,
    parked: &mut HashSet<Vec<u8>>,
    entries: Vec<Entry<R::Event>>,
) -> Folded<R> {
    let mut changed = HashSet::new();
    let mut applied = Vec::with_capacity(entries.len());
    let mut newly_parked = BTreeMap::<(i32, Vec<u8>), Parked>::new();
    let mut repeated = 0;
    for Entry {
        partition,
        offset,
        key,
        content,
    } in entries
    {
        let error = match content {
            _ if parked.contains(&key) => BEHIND_PARKED.into(),
            Err(error) => error,
            Ok(change) => match next_row(rows.get(&change.id), &change) {
                Ok(Some(row)) => {
                    if !changed.contains(&change.id) {
                        changed.insert(change.id.clone());
                    }
                    rows.insert(change.id.clone(), row);
                    applied.push(Applied {
                        partition,
                        offset,
                        change,
                    });
                    continue;
                }
                Ok(None) => {
                    repeated += 1;
                    continue;
                }
                Err(error) => error.to_string(),
            },
        };
        // A record without a key belongs to no aggregate: later records do not depend on it.
        if !key.is_empty() {
            parked.insert(key.clone());
        }
        newly_parked
            .entry((partition, key))
            .and_modify(|parked| {
                parked.last_offset = offset;
                parked.records += 1;
            })
            .or_insert_with_key(|(_, key)| Parked {
                partition,
                key: key.clone(),
                first_offset: offset,
                last_offset: offset,
                records: 1,
                error,
            });
    }
    let changed = changed
        .iter()
        .filter_map(|id| rows.get(id))
        .cloned()
        .collect();
    Folded {
        changed,
        applied,
        parked: newly_parked.into_values().collect(),
        repeated,
    }
}

/// The row after a change; `None` when the row already includes it.
fn next_row<R: Row>(row: Option<&R>, change: &Change<R::Event>) -> Result<Option<R>, ApplyError> {
    let version = row.map_or(0, Row::version);
    if change.version <= version {
        return Ok(None);
    }
    if change.version > version + 1 {
        return Err(ApplyError::Gap {
            row: version,
            found: change.version,
        });
    }
    let metadata = EventMetadata {
        id: &change.id,
        version: change.version,
        time: change.time,
    };
    R::apply(row, &metadata, &change.event).map(Some)
}

/// Parses a key as an order id.
fn order_id(key: &str) -> Result<Uuid, ApplyError> {
    canonical_uuid(key).ok_or(ApplyError::Id)
}

/// The number of an enumeration value as a `smallint`.
fn to_smallint(field: &'static str, number: i32) -> Result<i16, ApplyError> {
    i16::try_from(number).map_err(|_| ApplyError::Range { field })
}

/// The text, if a column can store it.
fn text(field: &'static str, text: &str) -> Result<String, ApplyError> {
    if text.contains('\0') {
        Err(ApplyError::Text { field })
    } else {
        Ok(text.to_owned())
    }
}

/// The sum, if a column can store it.
fn add(field: &'static str, value: i64, delta: i64) -> Result<i64, ApplyError> {
    value.checked_add(delta).ok_or(ApplyError::Range { field })
}

#[cfg(test)]
mod tests;
