//! The events that record the answers of inventory, payments and shipping as they are.

use contracts::orders::v1::{
    OrderLineRefused, OrderLineReleased, OrderPaymentCancelled, OrderPaymentDeclined,
    OrderShipmentCancelled, OrderShipmentRefused, RecordPaymentCancelled, RecordPaymentDeclined,
    RecordShipmentCancelled, RecordShipmentRefused, RecordStockRefused, RecordStockReleased,
};

use super::Event;

pub(super) fn line_refused(answer: &RecordStockRefused) -> Event {
    Event::OrderLineRefused(OrderLineRefused {
        sku: answer.sku.clone(),
        available: answer.available,
    })
}

pub(super) fn payment_declined(answer: &RecordPaymentDeclined) -> Event {
    Event::OrderPaymentDeclined(OrderPaymentDeclined {
        reason: answer.reason.clone(),
    })
}

pub(super) fn shipment_refused(answer: &RecordShipmentRefused) -> Event {
    Event::OrderShipmentRefused(OrderShipmentRefused {
        reason: answer.reason.clone(),
    })
}

pub(super) fn shipment_cancelled(_answer: &RecordShipmentCancelled) -> Event {
    Event::OrderShipmentCancelled(OrderShipmentCancelled {})
}

pub(super) fn line_released(answer: &RecordStockReleased) -> Event {
    Event::OrderLineReleased(OrderLineReleased {
        sku: answer.sku.clone(),
    })
}

pub(super) fn payment_cancelled(answer: &RecordPaymentCancelled) -> Event {
    Event::OrderPaymentCancelled(OrderPaymentCancelled {
        refunded: answer.refunded,
    })
}
