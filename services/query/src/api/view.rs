//! Converts rows into messages of the API.

use contracts::orders::v1::OrderLine;
use contracts::query::v1::{GetStockResponse, OrderView};
use prost_types::Timestamp;
use sqlx::types::time::OffsetDateTime;

use crate::fold::{OrderRow, StockRow};

/// An order with these lines.
pub fn order(row: OrderRow, lines: Vec<OrderLine>) -> OrderView {
    OrderView {
        order_id: row.order_id.to_string(),
        status: i32::from(row.status),
        end_reason: i32::from(row.end_reason),
        customer_id: row.customer_id,
        lines,
        total: row.total,
        currency: row.currency,
        placed_at: Some(timestamp(row.placed_at)),
        updated_at: Some(timestamp(row.updated_at)),
        version: row.version.unsigned_abs(),
        tracking_number: row.tracking_number,
        refunded: row.refunded,
        late: row.late,
        confirmed_at: row.confirmed_at.map(timestamp),
    }
}

/// A product's stock. The fold guarantees that every number except `received` is not negative.
pub fn stock(row: StockRow) -> GetStockResponse {
    GetStockResponse {
        on_hand: row.on_hand.unsigned_abs(),
        reserved: row.reserved.unsigned_abs(),
        available: (row.on_hand - row.reserved).unsigned_abs(),
        received: row.received,
        deducted: row.deducted.unsigned_abs(),
        version: row.version.unsigned_abs(),
        sku: row.sku,
    }
}

fn timestamp(time: OffsetDateTime) -> Timestamp {
    Timestamp {
        seconds: time.unix_timestamp(),
        nanos: i32::try_from(time.nanosecond()).expect("a second has 10⁹ nanoseconds"),
    }
}
