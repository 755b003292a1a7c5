//! The fold of an order: the state machine, and how each event changes the state.

use contracts::orders::v1::{
    EndReason, LineProgress, LineState, OrderCreated, OrderStatus, PaymentProgress,
    ShipmentProgress,
};

use super::{Event, Order, sku_of};

/// The state machine: whether an event can follow.
pub(super) fn follows(order: &Order, event: &Event) -> bool {
    use OrderStatus::*;
    match (order.status(), event) {
        (Unspecified, Event::OrderCreated(_)) => true,
        (
            Pending,
            Event::OrderLineReserved(_) | Event::OrderStockReserved(_) | Event::OrderLineRefused(_),
        ) => true,
        (Pending, Event::OrderConfirmed(_)) => order.total == 0,
        (AwaitingPayment, Event::OrderConfirmed(_) | Event::OrderPaymentDeclined(_)) => true,
        (Confirmed, Event::OrderShipped(_) | Event::OrderShipmentRefused(_)) => true,
        (Shipped, Event::OrderDelivered(_) | Event::OrderFlaggedLate(_)) => true,

        (Pending | AwaitingPayment | Confirmed, Event::OrderCancelling(_)) => true,
        (
            Cancelling,
            Event::OrderShipped(_)
            | Event::OrderShipmentRefused(_)
            | Event::OrderShipmentCancelled(_),
        ) => order.shipment() == ShipmentProgress::Cancelling,
        (
            Cancelling,
            Event::OrderLineReleased(_)
            | Event::OrderPaymentCancelled(_)
            | Event::OrderCancelled(_)
            | Event::OrderRejected(_),
        ) => true,

        _ => false,
    }
}

/// Changes the order by an event that [`follows`].
pub(super) fn apply(order: &mut Order, event: &Event) {
    match event {
        Event::OrderCreated(event) => create(order, event),
        Event::OrderLineReserved(event) => {
            move_line(
                order,
                &event.sku,
                LineProgress::Asked,
                LineProgress::Reserved,
            );
        }
        Event::OrderStockReserved(event) => {
            order.deadline_ms = event.deadline_ms;
            // A free order stays PENDING until OrderConfirmed, which follows in the same decision.
            if order.total > 0 {
                order.set_status(OrderStatus::AwaitingPayment);
                order.set_payment(PaymentProgress::Asked);
            }
        }
        Event::OrderConfirmed(event) => {
            order.set_status(OrderStatus::Confirmed);
            if order.total > 0 {
                order.set_payment(PaymentProgress::Processed);
            }
            order.set_shipment(ShipmentProgress::Asked);
            order
                .provider_reference
                .clone_from(&event.provider_reference);
            order.deadline_ms = event.deadline_ms;
        }
        Event::OrderShipped(event) => {
            order.set_status(OrderStatus::Shipped);
            order.set_shipment(ShipmentProgress::Dispatched);
            order.tracking_number.clone_from(&event.tracking_number);
            order.deadline_ms = event.deadline_ms;
            // A cancellation that came too late has no further effect.
            order.set_goal(EndReason::Unspecified);
        }
        Event::OrderDelivered(_) => {
            order.set_shipment(ShipmentProgress::Delivered);
            finish(order, OrderStatus::Delivered);
        }
        Event::OrderFlaggedLate(_) => {
            order.late = true;
            order.deadline_ms = 0;
        }

        Event::OrderLineRefused(event) => {
            move_line(
                order,
                &event.sku,
                LineProgress::Asked,
                LineProgress::Refused,
            );
        }
        Event::OrderPaymentDeclined(_) => order.set_payment(PaymentProgress::Declined),
        Event::OrderShipmentRefused(_) => {
            order.set_shipment(ShipmentProgress::Refused);
            // Before OrderCancelling this is the reason of the compensation, after it the awaited decision.
            if order.status() == OrderStatus::Cancelling {
                undo(order);
            }
        }
        Event::OrderCancelling(event) => {
            order.set_status(OrderStatus::Cancelling);
            order.set_goal(event.goal());
            order.deadline_ms = 0;
            if order.shipment() == ShipmentProgress::Asked {
                order.set_shipment(ShipmentProgress::Cancelling);
            } else {
                undo(order);
            }
        }
        Event::OrderShipmentCancelled(_) => {
            order.set_shipment(ShipmentProgress::Cancelled);
            undo(order);
        }
        Event::OrderLineReleased(event) => {
            move_line(
                order,
                &event.sku,
                LineProgress::Releasing,
                LineProgress::Released,
            );
        }
        Event::OrderPaymentCancelled(event) => {
            order.set_payment(PaymentProgress::Cancelled);
            order.refunded = event.refunded;
        }
        Event::OrderCancelled(_) => finish(order, OrderStatus::Cancelled),
        Event::OrderRejected(_) => finish(order, OrderStatus::Rejected),
    }
}

fn create(order: &mut Order, event: &OrderCreated) {
    let requested = |line| LineState {
        line: Some(line),
        progress: LineProgress::Asked.into(),
    };
    *order = Order {
        status: OrderStatus::Pending.into(),
        customer_id: event.customer_id.clone(),
        contact: event.contact.clone(),
        lines: event.lines.iter().cloned().map(requested).collect(),
        currency: event.currency.clone(),
        total: event.total,
        body_digest: event.body_digest.clone(),
        deadline_ms: event.deadline_ms,
        ..Order::default()
    };
}

fn finish(order: &mut Order, status: OrderStatus) {
    order.set_status(status);
    order.deadline_ms = 0;
}

/// Marks all lines and the payment as being undone: also lines and a charge without an answer yet.
fn undo(order: &mut Order) {
    for line in &mut order.lines {
        if line.progress() != LineProgress::Refused {
            line.set_progress(LineProgress::Releasing);
        }
    }
    if matches!(
        order.payment(),
        PaymentProgress::Asked | PaymentProgress::Processed
    ) {
        order.set_payment(PaymentProgress::Cancelling);
    }
}

fn move_line(order: &mut Order, sku: &str, from: LineProgress, to: LineProgress) {
    let line = order
        .lines
        .iter_mut()
        .find(|line| sku_of(line) == sku && line.progress() == from);
    if let Some(line) = line {
        line.set_progress(to);
    }
}
