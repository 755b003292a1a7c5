//! What applied events say about the lives of their orders.

use std::collections::HashMap;
use std::time::Duration;

use contracts::orders::v1::order_event::Event;
use observability::TraceParent;
use sqlx::types::time::OffsetDateTime;

use super::{Applied, Folded, OrderRow, Row as _};

/// An order has come to a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The status, in one word.
    pub status: &'static str,
    /// ISO 4217.
    pub currency: String,
    /// The order's total in minor units.
    pub total: i64,
    /// When, by the log.
    pub time: OffsetDateTime,
    /// How long that took since the order was created, by the log; `None` for the creation itself, and for a status
    /// that nobody waits for.
    pub since_created: Option<Duration>,
    /// The recorded trace in which it happened.
    pub trace: Option<TraceParent>,
}

/// The steps of a batch, in the order of its events.
pub fn steps(orders: &Folded<OrderRow>) -> Vec<Step> {
    let rows: HashMap<String, &OrderRow> =
        orders.changed.iter().map(|row| (row.key(), row)).collect();
    let step = |applied: &Applied<Event>| {
        let (status, is_waited_for) = status(&applied.change.event)?;
        let row = rows.get(&applied.change.id)?;
        let took = applied.change.time - row.placed_at;
        Some(Step {
            status,
            currency: row.currency.clone(),
            total: row.total,
            time: applied.change.time,
            // Commands are stamped by one broker, but its clock may be set back.
            since_created: is_waited_for.then(|| took.try_into().unwrap_or_default()),
            trace: applied.change.trace.as_deref().copied(),
        })
    };
    orders.applied.iter().filter_map(step).collect()
}

/// Every status that an order can come to.
pub const STATUSES: [&str; 7] = [
    "created",
    "awaiting_payment",
    "confirmed",
    "shipped",
    "delivered",
    "cancelled",
    "rejected",
];

/// The status that an event leads to, and whether the time until then is measured.
const fn status(event: &Event) -> Option<(&'static str, bool)> {
    match event {
        Event::OrderCreated(_) => Some(("created", false)),
        Event::OrderStockReserved(_) => Some(("awaiting_payment", false)),
        Event::OrderConfirmed(_) => Some(("confirmed", true)),
        Event::OrderShipped(_) => Some(("shipped", true)),
        Event::OrderDelivered(_) => Some(("delivered", true)),
        Event::OrderCancelled(_) => Some(("cancelled", true)),
        Event::OrderRejected(_) => Some(("rejected", true)),
        _ => None,
    }
}
