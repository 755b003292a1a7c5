//! Invariants, checked from the events and the partners' ledgers alone.

use std::collections::BTreeMap;

use contracts::Payments;
use contracts::inventory::v1::stock_event;
use contracts::orders::v1::{OrderStatus, order_event};
use contracts::payments::v1::{PaymentStatus, payment_event};
use contracts::shipping::v1::{ShipmentStatus, shipment_event};
use engine::Decider;
use inventory::StockRules;
use orders::OrderRules;
use shipping::ShipmentRules;

use super::partners::{Provider, Verdict};
use super::platform::{Aggregate, Platform};

/// I4: reserved and deducted pieces have been received before, at any time.
pub fn of_stock(sku: &str, item: &Aggregate<StockRules>) {
    use stock_event::Event;
    let (mut received, mut deducted) = (0_i64, 0_i64);
    let mut reserved = BTreeMap::<&str, i64>::new();
    for event in &item.events {
        match event {
            Event::StockAdjusted(adjusted) => received += adjusted.delta,
            Event::StockReserved(event) => {
                let before = reserved.insert(&event.order_id, event.quantity.into());
                assert_eq!(
                    before, None,
                    "{sku} was reserved twice for {}",
                    event.order_id
                );
            }
            Event::StockRefused(_) => {}
            Event::StockReleased(event) => {
                let held = reserved.remove(event.order_id.as_str()).unwrap_or(0);
                assert_eq!(held, i64::from(event.quantity));
            }
            Event::StockDeducted(event) => {
                let held = reserved.remove(event.order_id.as_str());
                assert_eq!(
                    held,
                    Some(event.quantity.into()),
                    "only what is reserved leaves"
                );
                deducted += i64::from(event.quantity);
            }
        }
        let promised = reserved.values().sum::<i64>() + deducted;
        assert!(
            promised <= received,
            "{sku}: {promised} of {received} promised"
        );
    }
    let counted = (
        i64::try_from(item.state.reserved),
        i64::try_from(item.state.deducted),
        item.state.received,
    );
    assert_eq!(
        counted,
        (Ok(reserved.values().sum()), Ok(deducted), received)
    );
}

/// I3: at most one successful charge, at most one successful refund.
pub fn of_charges(provider: &Provider, order_id: &str) {
    let [(charges, charged), (refunds, refunded)] = provider.of_order(order_id);
    assert!(charges <= 1, "{order_id} was charged {charges} times");
    assert!(refunds <= 1, "{order_id} was refunded {refunds} times");
    assert!(refunded <= charged);
}

/// I14: every event is a transition of the order's state machine.
pub fn of_order(id: &str, order: &Aggregate<OrderRules>) {
    use OrderStatus::*;
    use order_event::Event::*;
    let mut status = Unspecified;
    for event in &order.events {
        let next = match (status, event) {
            (Unspecified, OrderCreated(_)) => Pending,
            (Pending, OrderLineReserved(_) | OrderLineRefused(_)) => Pending,
            (Pending, OrderStockReserved(_)) if order.state.total > 0 => AwaitingPayment,
            (Pending, OrderStockReserved(_)) => Pending,
            (Pending, OrderConfirmed(_)) if order.state.total == 0 => Confirmed,
            (AwaitingPayment, OrderConfirmed(_)) => Confirmed,
            (AwaitingPayment, OrderPaymentDeclined(_)) => AwaitingPayment,
            (Confirmed, OrderShipmentRefused(_)) => Confirmed,
            (Confirmed | Cancelling, OrderShipped(_)) => Shipped,
            (Shipped, OrderFlaggedLate(_)) => Shipped,
            (Shipped, OrderDelivered(_)) => Delivered,
            (Pending | AwaitingPayment | Confirmed, OrderCancelling(_)) => Cancelling,
            (
                Cancelling,
                OrderLineReleased(_)
                | OrderPaymentCancelled(_)
                | OrderShipmentCancelled(_)
                | OrderShipmentRefused(_),
            ) => Cancelling,
            (Cancelling, OrderCancelled(_)) => Cancelled,
            (Cancelling, OrderRejected(_)) => Rejected,
            (status, event) => panic!("{id}: {event:?} after {status:?}"),
        };
        status = next;
    }
    assert_eq!(status, order.state.status());
}

/// I14 for payments.
pub fn of_payment<P: Decider<Contract = Payments>>(payment: &Aggregate<P>) {
    use PaymentStatus::*;
    use payment_event::Event::*;
    let mut status = Unspecified;
    for event in &payment.events {
        let next = match (status, event) {
            (Unspecified, PaymentRequested(_)) => Requested,
            (Requested, PaymentProcessed(_)) => Processed,
            (Requested | CancelRequested, PaymentDeclined(_)) => Declined,
            (Processed, PaymentSettled(_)) => Settled,
            (Requested, PaymentCancelRequested(_)) => CancelRequested,
            (CancelRequested, PaymentVoided(_)) => Voided,
            (CancelRequested | Processed, PaymentRefundRequested(_)) => Refunding,
            (Refunding, PaymentRefundRefused(_)) => Refunding,
            (Refunding, PaymentRefunded(_)) => Refunded,
            (Unspecified | Declined | Voided | Refunded | Settled, PaymentCancelSettled(_)) => {
                status
            }
            (status, event) => panic!("{event:?} after {status:?}"),
        };
        status = next;
    }
    assert_eq!(status, payment.state.status());
}

/// I14 for shipments.
pub fn of_shipment(shipment: &Aggregate<ShipmentRules>) {
    use ShipmentStatus::*;
    use shipment_event::Event::*;
    let mut status = Unspecified;
    for event in &shipment.events {
        let next = match (status, event) {
            (Unspecified, ShipmentRequested(_)) => Requested,
            (Requested | Cancelling, ShipmentDispatched(_)) => Dispatched,
            (Requested | Cancelling, ShipmentRefused(_)) => Refused,
            (Dispatched, ShipmentDelivered(_)) => Delivered,
            (Requested, ShipmentCancelRequested(_)) => Cancelling,
            (Cancelling, ShipmentCancelled(_)) => Cancelled,
            (Dispatched | Delivered, ShipmentCancelRefused(_)) => status,
            (Unspecified | Refused | Cancelled, ShipmentCancelSettled(_)) => status,
            (status, event) => panic!("{event:?} after {status:?}"),
        };
        status = next;
    }
    assert_eq!(status, shipment.state.status());
}

/// I1, I2, I3, I5, I11, I15, I17: everything that holds when no step is left.
pub fn at_rest<P>(platform: &Platform<P>)
where
    P: Decider<Contract = Payments, Effect = payments::Effect>,
{
    let (mut kept, mut owed) = (0, 0);
    for (id, place) in &platform.acknowledged {
        let order = &platform.orders.aggregates[id];
        assert!(
            OrderRules::finished(&order.state),
            "{id} hangs in {:?}",
            order.state.status()
        );
        assert_eq!(order.state.lines.len(), place.lines.len());
        let [(_, charged), (_, refunded)] = platform.provider.of_order(id);
        kept += charged - refunded;
        if order.state.status() == OrderStatus::Delivered {
            owed += order.state.total;
            assert_eq!((charged, refunded), (order.state.total, 0), "{id} is paid");
        } else {
            assert_eq!(charged, refunded, "{id} got its money back");
            assert_eq!(
                order.state.refunded, refunded,
                "{id} knows what it got back"
            );
        }
        assert_parcel_matches_order(platform, id, order.state.status());
        assert_captured_matches_provider(platform, id);
    }
    assert_eq!(
        kept, owed,
        "what was charged and not refunded is what is paid"
    );
    for (sku, item) in &platform.stock.aggregates {
        assert_eq!(item.state.reserved, 0, "{sku} is still reserved");
    }
    platform.orders.assert_replays();
    platform.stock.assert_replays();
    platform.payments.assert_replays();
    platform.shipments.assert_replays();
}

fn assert_parcel_matches_order<P>(platform: &Platform<P>, id: &str, status: OrderStatus)
where
    P: Decider<Contract = Payments, Effect = payments::Effect>,
{
    let booking = platform.carrier.bookings.get(&format!("{id}/book/1"));
    assert_eq!(
        booking == Some(&Verdict::Done),
        status == OrderStatus::Delivered,
        "{id} is {status:?}, its parcel {booking:?}"
    );
}

/// The captured charges of the events are those in the provider's ledger.
fn assert_captured_matches_provider<P>(platform: &Platform<P>, id: &str)
where
    P: Decider<Contract = Payments, Effect = payments::Effect>,
{
    use payment_event::Event;
    let events = platform
        .payments
        .aggregates
        .get(id)
        .map_or(&[][..], |payment| payment.events.as_slice());
    let captured = events.iter().filter(|event| match event {
        Event::PaymentProcessed(_) => true,
        Event::PaymentRefundRequested(refund) => refund.captured,
        _ => false,
    });
    let refunded = events
        .iter()
        .filter(|event| matches!(event, Event::PaymentRefunded(_)));
    let [(charges, _), (refunds, _)] = platform.provider.of_order(id);
    assert_eq!(
        (captured.count(), refunded.count()),
        (charges, refunds),
        "{id}"
    );
}
