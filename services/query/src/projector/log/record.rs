//! Records as the projector fetches them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use contracts::Service;
use observability::TraceParent;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};

use crate::projector::topics::Topics;
use crate::tables::RecordIdentity;

/// A partition of a service's events.
pub type Source = (Service, i32);

/// A record of an events topic.
#[derive(Clone, Debug)]
pub struct FetchedRecord {
    /// Its partition.
    pub source: Source,
    /// Offset in the partition.
    pub offset: i64,
    /// Key; empty when the record has none.
    pub key: Vec<u8>,
    /// Value; `None` for a tombstone.
    pub value: Option<Vec<u8>>,
    /// Send time in Unix milliseconds.
    pub time_ms: Option<i64>,
    /// The context of its trace, if that is sampled. Boxed, because most records have none.
    pub trace: Option<Box<TraceParent>>,
}

impl FetchedRecord {
    /// The record of `message`; `None` when its topic is not an events topic.
    pub(super) fn from_message(topics: &Topics, message: &BorrowedMessage<'_>) -> Option<Self> {
        Some(Self {
            source: topics.source(message.topic(), message.partition())?,
            offset: message.offset(),
            key: message.key().unwrap_or_default().to_vec(),
            value: message.payload().map(<[u8]>::to_vec),
            time_ms: message.timestamp().to_millis(),
            trace: trace(message),
        })
    }

    /// The identity of the record, to detect a replaced log.
    pub fn identity(&self) -> RecordIdentity {
        RecordIdentity {
            offset: self.offset,
            sent_ms: self.time_ms,
            key: self.key.clone(),
        }
    }
}

fn trace(message: &BorrowedMessage<'_>) -> Option<Box<TraceParent>> {
    let headers = message.headers()?;
    // rdkafka panics on a header whose name is not UTF-8, and any producer may write one.
    let trace = catch_unwind(AssertUnwindSafe(|| {
        let headers = headers.iter();
        TraceParent::from_record(headers.filter_map(|header| Some((header.key, header.value?))))
    }));
    trace.ok()??.sampled().map(Box::new)
}
