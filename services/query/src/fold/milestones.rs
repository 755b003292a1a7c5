//! Milestones of orders: the statuses that applied events lead to, and the time since creation.

use std::collections::HashMap;
use std::time::Duration;

use contracts::orders::v1::order_event::Event;
use observability::TraceParent;
use sqlx::types::time::OffsetDateTime;

use super::{Applied, Folded, OrderRow, Row as _};

/// An order has reached a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Milestone {
    /// One of [`MILESTONES`].
    pub status: &'static str,
    /// ISO 4217.
    pub currency: String,
    /// The order's total in minor units.
    pub total: i64,
    /// Event time.
    pub time: OffsetDateTime,
    /// Event time since the order was created. `None` for statuses whose duration is not measured.
    pub since_created: Option<Duration>,
    /// The sampled trace of the event.
    pub trace: Option<TraceParent>,
}

/// The milestones of a batch, in the order of its events.
pub fn milestones(orders: &Folded<OrderRow>) -> Vec<Milestone> {
    let rows: HashMap<String, &OrderRow> =
        orders.changed.iter().map(|row| (row.key(), row)).collect();
    let milestone = |applied: &Applied<Event>| {
        let (status, is_timed) = milestone_status(&applied.change.event)?;
        let row = rows.get(&applied.change.id)?;
        let took = applied.change.time - row.placed_at;
        Some(Milestone {
            status,
            currency: row.currency.clone(),
            total: row.total,
            time: applied.change.time,
            // The times come from one broker, but its clock may be set back.
            since_created: is_timed.then(|| took.try_into().unwrap_or_default()),
            trace: applied.change.trace.as_deref().copied(),
        })
    };
    orders.applied.iter().filter_map(milestone).collect()
}

/// Every status that counts as a milestone.
pub const MILESTONES: [&str; 7] = [
    "created",
    "awaiting_payment",
    "confirmed",
    "shipped",
    "delivered",
    "cancelled",
    "rejected",
];

/// The status that an event leads to, and whether the time until it is measured.
const fn milestone_status(event: &Event) -> Option<(&'static str, bool)> {
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
