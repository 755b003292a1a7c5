//! Orders.

use contracts::orders::v1::order_event::Event;
use contracts::orders::v1::{EndReason, OrderStatus};
use sqlx::types::time::OffsetDateTime;
use uuid::Uuid;

use super::{ApplyError, EventMetadata, Row, add, order_id, text, to_smallint};

/// A row of `orders`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderRow {
    /// The order.
    pub order_id: Uuid,
    /// An [`OrderStatus`].
    pub status: i16,
    /// An [`EndReason`]: why the order is being, or was, cancelled or rejected.
    pub end_reason: i16,
    /// The customer.
    pub customer_id: String,
    /// Total in minor units.
    pub total: i64,
    /// ISO 4217.
    pub currency: String,
    /// Number of lines.
    pub line_count: i32,
    /// Time of the first event.
    pub placed_at: OffsetDateTime,
    /// Time of the confirmation.
    pub confirmed_at: Option<OffsetDateTime>,
    /// Time of the last event.
    pub updated_at: OffsetDateTime,
    /// Events folded so far.
    pub version: i64,
    /// The carrier's number; empty before dispatch.
    pub tracking_number: String,
    /// Refunded amount in minor units.
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
        metadata: &EventMetadata<'_>,
        event: &Event,
    ) -> Result<Self, ApplyError> {
        let Some(row) = row else {
            return created(metadata, event);
        };
        let mut row = row.clone();
        row.version = metadata.version;
        row.updated_at = metadata.time;
        match event {
            Event::OrderCreated(_) => return Err(ApplyError::Creation),
            Event::OrderStockReserved(_) => row.set_status(OrderStatus::AwaitingPayment),
            Event::OrderConfirmed(_) => {
                row.set_status(OrderStatus::Confirmed);
                row.confirmed_at = Some(metadata.time);
            }
            Event::OrderShipped(shipped) => {
                row.set_status(OrderStatus::Shipped);
                // The cancellation came too late: the order has no end reason.
                row.end_reason = EndReason::Unspecified as i16;
                row.tracking_number = text("tracking_number", &shipped.tracking_number)?;
            }
            Event::OrderDelivered(_) => row.set_status(OrderStatus::Delivered),
            Event::OrderCancelling(cancelling) => {
                row.set_status(OrderStatus::Cancelling);
                row.end_reason = to_smallint("end_reason", cancelling.goal)?;
            }
            Event::OrderPaymentCancelled(cancelled) => {
                row.refunded = add("refunded", row.refunded, cancelled.refunded)?;
            }
            Event::OrderCancelled(_) => {
                row.set_status(OrderStatus::Cancelled);
                row.end_reason = EndReason::Customer as i16;
            }
            Event::OrderRejected(rejected) => {
                row.set_status(OrderStatus::Rejected);
                row.end_reason = to_smallint("end_reason", rejected.reason)?;
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
    fn set_status(&mut self, status: OrderStatus) {
        self.status = status as i16;
    }
}

fn created(metadata: &EventMetadata<'_>, event: &Event) -> Result<OrderRow, ApplyError> {
    let Event::OrderCreated(created) = event else {
        return Err(ApplyError::Creation);
    };
    for line in &created.lines {
        text("sku", &line.sku)?;
        text("description", &line.description)?;
    }
    Ok(OrderRow {
        order_id: order_id(metadata.id)?,
        status: OrderStatus::Pending as i16,
        end_reason: EndReason::Unspecified as i16,
        customer_id: text("customer_id", &created.customer_id)?,
        total: created.total,
        currency: text("currency", &created.currency)?,
        line_count: i32::try_from(created.lines.len()).map_err(|_| ApplyError::Range {
            field: "line_count",
        })?,
        placed_at: metadata.time,
        confirmed_at: None,
        updated_at: metadata.time,
        version: metadata.version,
        tracking_number: String::new(),
        refunded: 0,
        late: false,
    })
}
