//! The read model's rows as folds of the log: pure, one file per aggregate.

mod life;
mod order;
mod payment;
mod shipment;
mod stock;

use std::collections::{BTreeMap, HashMap, HashSet};

use observability::TraceParent;
use sqlx::types::time::OffsetDateTime;

pub use life::{STATUSES, Step, steps};
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
    /// The event cannot be shown in a row; the row before it stays what it was.
    fn apply(
        row: Option<&Self>,
        occurrence: &Occurrence<'_>,
        event: &Self::Event,
    ) -> Result<Self, ApplyError>;
}

/// What an event says besides its body.
#[derive(Clone, Copy, Debug)]
pub struct Occurrence<'a> {
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
    /// The key is no id of this kind of aggregate in its one spelling.
    #[error("the key is no order id")]
    Id,
    /// The first event is not the one that creates the aggregate, or a later one is.
    #[error("the aggregate is created by its first event and by no other")]
    Creation,
    /// A number leaves the range that the read model holds.
    #[error("{field} is out of range")]
    Range {
        /// The column.
        field: &'static str,
    },
    /// PostgreSQL's text holds no NUL.
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
    /// The event, or why there is none to be had from the record.
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
    /// What happened.
    pub event: E,
    /// The record's payload.
    pub payload: Vec<u8>,
    /// The recorded trace that it belongs to; most belong to none, and shall not be larger for it.
    pub trace: Option<Box<TraceParent>>,
}

/// What a batch of entries does to one kind of aggregate.
#[derive(Debug)]
pub struct Folded<R: Row> {
    /// The last row of every aggregate that changed.
    pub changed: Vec<R>,
    /// The entries that were applied, in their order.
    pub applied: Vec<Applied<R::Event>>,
    /// The keys that were parked or had further records set aside.
    pub parked: Vec<Parked>,
    /// Entries that had been applied before.
    pub repeated: usize,
}

/// An applied event and where it stands.
#[derive(Debug)]
pub struct Applied<E> {
    /// Partition of the topic.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
    /// The event.
    pub change: Change<E>,
}

/// Records of one key that were set aside.
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
    /// How many.
    pub records: i64,
    /// What is wrong with the first record.
    pub error: String,
}

/// Said of a record that is set aside only because an earlier one of its key was.
const BEHIND_PARKED: &str = "an earlier record of the key is parked";

/// Folds a batch over the rows that it concerns.
///
/// `rows` holds the current rows of all keys in the batch; an absent one does not exist yet. `parked` holds the keys
/// that wait behind a record that could not be applied; keys that join them are added.
pub fn fold<R: Row>(
    rows: &mut HashMap<String, R>,
    parked: &mut HashSet<Vec<u8>>,
    entries: Vec<Entry<R::Event>>,
) -> Folded<R> {
    let mut changed = HashSet::new();
    let mut applied = Vec::with_capacity(entries.len());
    let mut aside = BTreeMap::<(i32, Vec<u8>), Parked>::new();
    let mut repeated = 0;
    for Entry {
        partition,
        offset,
        key,
        content,
    } in entries
    {
        let misfit = match content {
            _ if parked.contains(&key) => BEHIND_PARKED.into(),
            Err(error) => error,
            Ok(change) => match step(rows.get(&change.id), &change) {
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
                Err(misfit) => misfit.to_string(),
            },
        };
        // A record without a key belongs to no aggregate: nothing waits behind it.
        if !key.is_empty() {
            parked.insert(key.clone());
        }
        aside
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
                error: misfit,
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
        parked: aside.into_values().collect(),
        repeated,
    }
}

/// The row after a change; `None` when the row contains it already.
fn step<R: Row>(row: Option<&R>, change: &Change<R::Event>) -> Result<Option<R>, ApplyError> {
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
    let occurrence = Occurrence {
        id: &change.id,
        version: change.version,
        time: change.time,
    };
    R::apply(row, &occurrence, &change.event).map(Some)
}

/// The text as a column can hold it.
fn text(field: &'static str, text: &str) -> Result<String, ApplyError> {
    if text.contains('\0') {
        Err(ApplyError::Text { field })
    } else {
        Ok(text.to_owned())
    }
}

/// The sum, if a column can hold it.
fn add(field: &'static str, value: i64, delta: i64) -> Result<i64, ApplyError> {
    value.checked_add(delta).ok_or(ApplyError::Range { field })
}

#[cfg(test)]
mod tests;
