//! Orders.

use contracts::orders::v1::order_event::Event;
use contracts::orders::v1::{EndReason, OrderStatus};
use sqlx::types::time::OffsetDateTime;
use uuid::Uuid;

use super::{ApplyError, Occurrence, Row, add, text};

/// A row of `orders`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderRow {
    /// The order.
    pub order_id: Uuid,
    /// An [`OrderStatus`].
    pub status: i16,
    /// An [`EndReason`]: why the order is being, or was, cancelled or rejected.
    pub end_reason: i16,
    /// Who placed it.
    pub customer_id: String,
    /// Minor units.
    pub total: i64,
    /// ISO 4217.
    pub currency: String,
    /// Lines of the order.
    pub line_count: i32,
    /// Time of the first event.
    pub placed_at: OffsetDateTime,
    /// Time of the confirmation.
    pub confirmed_at: Option<OffsetDateTime>,
    /// Time of the last event.
    pub updated_at: OffsetDateTime,
    /// Events folded so far.
    pub version: i64,
    /// The carrier's; empty before dispatch.
    pub tracking_number: String,
    /// Minor units given back.
    pub refunded: i64,
    /// Not delivered by its deadline.
    pub late: bool,
}

from_row!(OrderRow {
    order_id,
    status,
    end_reason,
    customer_id,
    total,
    currency,
    line_count,
    placed_at,
    confirmed_at,
    updated_at,
    version,
    tracking_number,
    refunded,
    late
});

impl Row for OrderRow {
    type Event = Event;

    fn key(&self) -> String {
        self.order_id.to_string()
    }

    fn version(&self) -> i64 {
        self.version
    }

    fn apply(
        row: Option<&Self>,
        occurrence: &Occurrence<'_>,
        event: &Event,
    ) -> Result<Self, ApplyError> {
        let Some(row) = row else {
            return created(occurrence, event);
        };
        let mut row = row.clone();
        row.version = occurrence.version;
        row.updated_at = occurrence.time;
        match event {
            Event::OrderCreated(_) => return Err(ApplyError::Creation),
            Event::OrderStockReserved(_) => row.enter(OrderStatus::AwaitingPayment),
            Event::OrderConfirmed(_) => {
                row.enter(OrderStatus::Confirmed);
                row.confirmed_at = Some(occurrence.time);
            }
            Event::OrderShipped(shipped) => {
                row.enter(OrderStatus::Shipped);
                // A cancellation that came too late leaves no reason behind.
                row.end_reason = EndReason::Unspecified as i16;
                row.tracking_number = text("tracking_number", &shipped.tracking_number)?;
            }
            Event::OrderDelivered(_) => row.enter(OrderStatus::Delivered),
            Event::OrderCancelling(cancelling) => {
                row.enter(OrderStatus::Cancelling);
                row.end_reason = small("end_reason", cancelling.goal)?;
            }
            Event::OrderPaymentCancelled(cancelled) => {
                row.refunded = add("refunded", row.refunded, cancelled.refunded)?;
            }
            Event::OrderCancelled(_) => {
                row.enter(OrderStatus::Cancelled);
                row.end_reason = EndReason::Customer as i16;
            }
            Event::OrderRejected(rejected) => {
                row.enter(OrderStatus::Rejected);
                row.end_reason = small("end_reason", rejected.reason)?;
            }
            Event::OrderFlaggedLate(_) => row.late = true,
            // Progress inside a status.
            Event::OrderLineReserved(_)
            | Event::OrderLineRefused(_)
            | Event::OrderPaymentDeclined(_)
            | Event::OrderShipmentRefused(_)
            | Event::OrderShipmentCancelled(_)
            | Event::OrderLineReleased(_) => {}
        }
        Ok(row)
    }
}

impl OrderRow {
    fn enter(&mut self, status: OrderStatus) {
        self.status = status as i16;
    }
}

fn created(occurrence: &Occurrence<'_>, event: &Event) -> Result<OrderRow, ApplyError> {
    let Event::OrderCreated(created) = event else {
        return Err(ApplyError::Creation);
    };
    for line in &created.lines {
        text("sku", &line.sku)?;
        text("description", &line.description)?;
    }
    Ok(OrderRow {
        order_id: order_id(occurrence.id)?,
        status: OrderStatus::Pending as i16,
        end_reason: EndReason::Unspecified as i16,
        customer_id: text("customer_id", &created.customer_id)?,
        total: created.total,
        currency: text("currency", &created.currency)?,
        line_count: i32::try_from(created.lines.len()).map_err(|_| ApplyError::Range {
            field: "line_count",
        })?,
        placed_at: occurrence.time,
        confirmed_at: None,
        updated_at: occurrence.time,
        version: occurrence.version,
        tracking_number: String::new(),
        refunded: 0,
        late: false,
    })
}

/// The order that a key names. Only the usual spelling is one: two spellings would be two keys, on two partitions.
pub(super) fn order_id(key: &str) -> Result<Uuid, ApplyError> {
    let id = Uuid::try_parse(key).map_err(|_| ApplyError::Id)?;
    if id.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == key {
        Ok(id)
    } else {
        Err(ApplyError::Id)
    }
}

/// An enumeration's number as a column holds it.
pub(super) fn small(field: &'static str, number: i32) -> Result<i16, ApplyError> {
    i16::try_from(number).map_err(|_| ApplyError::Range { field })
}
