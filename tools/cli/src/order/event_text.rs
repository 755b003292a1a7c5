//! Events as text for people.

use contracts::inventory::v1::stock_event::Event as StockEvent;
use contracts::orders::v1::EndReason;
use contracts::orders::v1::order_event::Event as OrderEvent;
use contracts::payments::v1::payment_event::Event as PaymentEvent;
use contracts::shipping::v1::shipment_event::Event as ShipmentEvent;

use terminal::{count, end_reason, enum_text, money};

/// An event of an order; amounts are in its `currency`.
pub fn of_order(event: &OrderEvent, currency: &str) -> String {
    match event {
        OrderEvent::OrderCreated(created) => format!(
            "placed by {}: {}, {}",
            created.customer_id,
            number(created.lines.len(), "line"),
            money(created.total, &created.currency)
        ),
        OrderEvent::OrderLineReserved(line) => format!("{} is reserved", line.sku),
        OrderEvent::OrderStockReserved(_) => "everything is reserved, payment is next".into(),
        OrderEvent::OrderConfirmed(confirmed) if confirmed.provider_reference.is_empty() => {
            "confirmed, with nothing to pay; shipping is next".into()
        }
        OrderEvent::OrderConfirmed(_) => "paid and confirmed, shipping is next".into(),
        OrderEvent::OrderShipped(shipped) => format!("shipped as {}", shipped.tracking_number),
        OrderEvent::OrderDelivered(_) => "delivered".into(),
        OrderEvent::OrderLineRefused(line) => format!(
            "{} is out of stock, {} available",
            line.sku,
            count(line.available)
        ),
        OrderEvent::OrderPaymentDeclined(declined) => {
            format!("the payment is declined: {}", declined.reason)
        }
        OrderEvent::OrderShipmentRefused(refused) => {
            format!("the carrier refuses the parcel: {}", refused.reason)
        }
        OrderEvent::OrderCancelling(cancelling) => match cancelling.goal() {
            EndReason::Customer => "the customer cancels: everything is to be undone".into(),
            goal => format!("everything is to be undone: {}", end_reason(goal)),
        },
        OrderEvent::OrderShipmentCancelled(_) => "nothing will be shipped".into(),
        OrderEvent::OrderLineReleased(line) => format!("{} is released", line.sku),
        OrderEvent::OrderPaymentCancelled(payment) if payment.refunded > 0 => {
            format!("{} are given back", money(payment.refunded, currency))
        }
        OrderEvent::OrderPaymentCancelled(_) => {
            "the payment is over, nothing had been charged".into()
        }
        OrderEvent::OrderCancelled(_) => "cancelled".into(),
        OrderEvent::OrderRejected(rejected) => {
            format!("rejected: {}", end_reason(rejected.reason()))
        }
        OrderEvent::OrderFlaggedLate(_) => "not delivered by its deadline: flagged as late".into(),
    }
}

/// An event of a stock item.
pub fn of_stock(event: &StockEvent) -> String {
    match event {
        StockEvent::StockAdjusted(adjusted) => format!("adjusted by {:+}", adjusted.delta),
        StockEvent::StockReserved(reserved) => {
            format!("{} reserved", number(reserved.quantity, "piece"))
        }
        StockEvent::StockRefused(refused) => format!(
            "{} refused, {} available",
            number(refused.quantity, "piece"),
            count(refused.available)
        ),
        StockEvent::StockReleased(released) if released.quantity == 0 => {
            "nothing to release".into()
        }
        StockEvent::StockReleased(released) => {
            format!("{} released", number(released.quantity, "piece"))
        }
        StockEvent::StockDeducted(deducted) if deducted.quantity == 0 => "nothing to deduct".into(),
        StockEvent::StockDeducted(deducted) => {
            format!("{} deducted", number(deducted.quantity, "piece"))
        }
    }
}

/// An event of a payment.
pub fn of_payment(event: &PaymentEvent) -> String {
    match event {
        PaymentEvent::PaymentRequested(requested) => {
            let amount = requested.amount.clone().unwrap_or_default();
            format!(
                "asked to charge {}",
                money(amount.minor_units, &amount.currency)
            )
        }
        PaymentEvent::PaymentProcessed(processed) => {
            format!("charged as {}", processed.provider_reference)
        }
        PaymentEvent::PaymentDeclined(declined) => format!("declined: {}", declined.reason),
        PaymentEvent::PaymentSettled(_) => "settled".into(),
        PaymentEvent::PaymentCancelRequested(_) => {
            "asked to cancel, before the charge is answered".into()
        }
        PaymentEvent::PaymentVoided(_) => "voided: it will never be charged".into(),
        PaymentEvent::PaymentRefundRequested(refund) if refund.captured => format!(
            "charged all the same as {}: asked to give it back",
            refund.provider_reference
        ),
        PaymentEvent::PaymentRefundRequested(_) => "asked to give the charge back".into(),
        PaymentEvent::PaymentRefunded(refunded) => {
            format!("given back as {}", refunded.provider_reference)
        }
        PaymentEvent::PaymentRefundRefused(refused) => {
            format!(
                "the refund is refused, and tried again later: {}",
                refused.reason
            )
        }
        PaymentEvent::PaymentCancelSettled(settled) => format!(
            "nothing to cancel: {}",
            over(settled.status().as_str_name(), "PAYMENT_STATUS_")
        ),
    }
}

/// An event of a shipment.
pub fn of_shipment(event: &ShipmentEvent) -> String {
    match event {
        ShipmentEvent::ShipmentRequested(requested) => {
            format!("asked to ship {}", number(requested.pieces, "piece"))
        }
        ShipmentEvent::ShipmentDispatched(dispatched) => {
            format!("handed to the carrier as {}", dispatched.tracking_number)
        }
        ShipmentEvent::ShipmentDelivered(_) => "delivered".into(),
        ShipmentEvent::ShipmentRefused(refused) => {
            format!("refused by the carrier: {}", refused.reason)
        }
        ShipmentEvent::ShipmentCancelRequested(_) => {
            "asked to cancel, before the carrier has answered".into()
        }
        ShipmentEvent::ShipmentCancelled(_) => "voided: it will never be shipped".into(),
        ShipmentEvent::ShipmentCancelRefused(_) => "too late to cancel: it is on its way".into(),
        ShipmentEvent::ShipmentCancelSettled(settled) => format!(
            "nothing to cancel: {}",
            over(settled.status().as_str_name(), "SHIPMENT_STATUS_")
        ),
    }
}

/// The status of a payment or a shipment when its cancellation arrived.
fn over(status: &str, prefix: &str) -> String {
    match enum_text(status, prefix).as_str() {
        "unspecified" => "it was never asked for".into(),
        status => format!("it is {status}"),
    }
}

/// `1 piece`, `2 pieces`.
fn number(number: impl TryInto<u64>, noun: &str) -> String {
    match number.try_into().unwrap_or_default() {
        1 => format!("1 {noun}"),
        number => format!("{} {noun}s", count(number)),
    }
}

#[cfg(test)]
mod tests {
    use contracts::inventory::v1::{StockRefused, StockReleased};
    use contracts::orders::v1::{
        Contact, OrderCancelling, OrderCreated, OrderLine, OrderPaymentCancelled, OrderRejected,
    };
    use contracts::payments::v1::{PaymentCancelSettled, PaymentRefundRequested, PaymentStatus};
    use contracts::shipping::v1::{ShipmentCancelSettled, ShipmentRequested};

    use super::*;

    #[test]
    fn the_text_of_an_order_has_no_contact() {
        let created = OrderEvent::OrderCreated(OrderCreated {
            customer_id: "ada".into(),
            contact: Some(Contact {
                email: "ada@example.com".into(),
                ..Default::default()
            }),
            lines: vec![OrderLine::default()],
            currency: "EUR".into(),
            total: 1_250,
            ..Default::default()
        });
        assert_eq!(of_order(&created, ""), "placed by ada: 1 line, 12.50 EUR");
    }

    #[test]
    fn the_end_of_an_order_names_its_reason() {
        for (event, event_text) in [
            (
                OrderEvent::OrderCancelling(OrderCancelling {
                    goal: EndReason::Customer.into(),
                }),
                "the customer cancels: everything is to be undone",
            ),
            (
                OrderEvent::OrderCancelling(OrderCancelling {
                    goal: EndReason::OutOfStock.into(),
                }),
                "everything is to be undone: out of stock",
            ),
            (
                OrderEvent::OrderRejected(OrderRejected {
                    reason: EndReason::Expired.into(),
                }),
                "rejected: expired",
            ),
            (
                OrderEvent::OrderPaymentCancelled(OrderPaymentCancelled { refunded: 500 }),
                "500 JPY are given back",
            ),
            (
                OrderEvent::OrderPaymentCancelled(OrderPaymentCancelled { refunded: 0 }),
                "the payment is over, nothing had been charged",
            ),
        ] {
            assert_eq!(of_order(&event, "JPY"), event_text);
        }
    }

    #[test]
    fn events_of_other_services_name_what_was_requested() {
        let refused = StockEvent::StockRefused(StockRefused {
            quantity: 1,
            available: 0,
            ..Default::default()
        });
        assert_eq!(of_stock(&refused), "1 piece refused, 0 available");
        let released = StockEvent::StockReleased(StockReleased::default());
        assert_eq!(of_stock(&released), "nothing to release");

        let captured = PaymentEvent::PaymentRefundRequested(PaymentRefundRequested {
            captured: true,
            provider_reference: "ch_1".into(),
        });
        assert!(of_payment(&captured).starts_with("charged all the same as ch_1"));
        let settled = PaymentEvent::PaymentCancelSettled(PaymentCancelSettled {
            status: PaymentStatus::Declined.into(),
        });
        assert_eq!(of_payment(&settled), "nothing to cancel: it is declined");

        let requested = ShipmentEvent::ShipmentRequested(ShipmentRequested {
            pieces: 1_200,
            ..Default::default()
        });
        assert_eq!(of_shipment(&requested), "asked to ship 1,200 pieces");
        let never = ShipmentEvent::ShipmentCancelSettled(ShipmentCancelSettled::default());
        assert_eq!(
            of_shipment(&never),
            "nothing to cancel: it was never asked for"
        );
    }
}
