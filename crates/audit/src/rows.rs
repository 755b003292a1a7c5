//! Rows of the read model as the auditor compares them. Times are Unix microseconds, the precision of the database.

use std::fmt;

use contracts::Service;
use engine::log::Partition;
use uuid::Uuid;

use crate::dedup_window::hash;

/// A row of one of the tables.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Row {
    /// Of `orders`.
    Order(OrderRow),
    /// Of `order_lines`.
    OrderLine(OrderLineRow),
    /// Of `order_events`.
    OrderEvent(OrderEventRow),
    /// Of `stock`.
    Stock(StockRow),
    /// Of `payments`.
    Payment(PaymentRow),
    /// Of `shipments`.
    Shipment(ShipmentRow),
}

/// Primary key of a row: table, aggregate, and line position or event version (0 in the other tables).
pub type RowKey = (&'static str, String, i64);

impl Row {
    /// The primary key.
    pub fn key(&self) -> RowKey {
        match self {
            Self::Order(row) => ("orders", row.order_id.to_string(), 0),
            Self::OrderLine(row) => ("order_lines", row.order_id.to_string(), row.position.into()),
            Self::OrderEvent(row) => ("order_events", row.order_id.to_string(), row.version),
            Self::Stock(row) => ("stock", row.sku.clone(), 0),
            Self::Payment(row) => ("payments", row.order_id.to_string(), 0),
            Self::Shipment(row) => ("shipments", row.order_id.to_string(), 0),
        }
    }
}

/// A row of `orders`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub struct OrderRow {
    pub order_id: Uuid,
    pub status: i16,
    pub end_reason: i16,
    pub customer_id: String,
    pub total: i64,
    pub currency: String,
    pub line_count: i32,
    pub placed_at: i64,
    pub confirmed_at: Option<i64>,
    pub updated_at: i64,
    pub version: i64,
    pub tracking_number: String,
    pub refunded: i64,
    pub late: bool,
}

/// A row of `order_lines`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub struct OrderLineRow {
    pub order_id: Uuid,
    pub position: i32,
    pub sku: String,
    pub quantity: i64,
    pub unit_price: i64,
    pub discount: i64,
    pub description: String,
}

/// A row of `order_events`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub struct OrderEventRow {
    pub order_id: Uuid,
    pub version: i64,
    pub partition: Partition,
    pub offset: i64,
    pub time: i64,
    pub kind: String,
    /// The message of the record, without its frame.
    pub record: Vec<u8>,
}

impl fmt::Debug for OrderEventRow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("OrderEventRow")
            .field("version", &self.version)
            .field("partition", &self.partition)
            .field("offset", &self.offset)
            .field("time", &self.time)
            .field("kind", &self.kind)
            .field("record_bytes", &self.record.len())
            .field("record_hash", &hash(&self.record))
            .finish_non_exhaustive()
    }
}

/// A row of `stock`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub struct StockRow {
    pub sku: String,
    pub on_hand: i64,
    pub reserved: i64,
    pub received: i64,
    pub deducted: i64,
    pub version: i64,
}

/// A row of `payments`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub struct PaymentRow {
    pub order_id: Uuid,
    pub status: i16,
    pub amount: i64,
    pub currency: String,
    pub provider_reference: String,
    pub flagged: bool,
    pub version: i64,
}

/// A row of `shipments`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub struct ShipmentRow {
    pub order_id: Uuid,
    pub status: i16,
    pub tracking_number: String,
    pub version: i64,
}

/// A key whose records the projector has parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedKey {
    /// The service of the events.
    pub service: Service,
    /// The partition of the events.
    pub partition: Partition,
    /// The key.
    pub key: Vec<u8>,
    /// Offset of the first parked record.
    pub first_offset: i64,
    /// Why it was parked.
    pub error: String,
}
