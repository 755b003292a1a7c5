//! The language of the tests: an order of two lines, its commands, events and messages by short names, a history
//! for every status, and given/when/then over them.

use contracts::Message;
use contracts::inventory::v1::{CommitStock, ReleaseStock, ReserveStock, stock_command};
use contracts::orders::v1::{
    Address, Contact, OrderLine, RecordPaymentCancelled, RecordPaymentDeclined,
    RecordPaymentProcessed, RecordShipmentCancelled, RecordShipmentDelivered,
    RecordShipmentDispatched, RecordShipmentRefused, RecordStockRefused, RecordStockReleased,
    RecordStockReserved,
};
use contracts::payments::v1::{CancelPayment, payment_command};
use contracts::shipping::v1::{CancelShipment, ShipOrder, shipment_command};
use uuid::Builder;

use super::super::*;

pub(super) const NOW: i64 = 1_700_000_000_000;
pub(super) const RULES: OrderRules = OrderRules {
    horizon_ms: 900_000,
    stock_wait_ms: 1_000,
    payment_wait_ms: 2_000,
    shipping_wait_ms: 3_000,
    delivery_wait_ms: 4_000,
};

/// An order id made `offset_ms` after [`NOW`].
pub(super) fn id_at(offset_ms: i64) -> String {
    let millis = u64::try_from(NOW + offset_ms).expect("after 1970");
    Builder::from_unix_timestamp_millis(millis, &[7; 10])
        .into_uuid()
        .to_string()
}

pub(super) struct Given {
    pub(super) order: Order,
    id: String,
    evicted_through_ms: i64,
}

pub(super) fn given(history: Vec<Event>) -> Given {
    let mut order = Order::default();
    for event in &history {
        assert!(
            fold::follows(&order, event),
            "{event:?} cannot follow {:?}",
            order.status()
        );
        OrderRules::evolve(&mut order, event);
    }
    Given {
        order,
        id: id_at(0),
        evicted_through_ms: 0,
    }
}

impl Given {
    pub(super) fn id(self, id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            ..self
        }
    }

    pub(super) fn evicted_through(self, evicted_through_ms: i64) -> Self {
        Self {
            evicted_through_ms,
            ..self
        }
    }

    pub(super) fn when(self, command: Command) -> When {
        let context = Context {
            aggregate_id: &self.id,
            version: 0,
            time_ms: NOW,
            evicted_through_ms: self.evicted_through_ms,
        };
        let result = RULES.decide(&self.order, &command, &context);
        let (mut order, mut messages) = (self.order, Vec::new());
        for event in result.iter().flatten() {
            assert!(
                fold::follows(&order, event),
                "{event:?} cannot follow {:?}",
                order.status()
            );
            OrderRules::evolve(&mut order, event);
            messages.extend(OrderRules::react(&order, event, &self.id));
        }
        When {
            result,
            order,
            messages,
        }
    }
}

pub(super) struct When {
    pub(super) result: Result<Vec<Event>, Rejection>,
    pub(super) order: Order,
    pub(super) messages: Vec<Message>,
}

impl When {
    #[track_caller]
    pub(super) fn then(self, expected: Vec<Event>) -> Self {
        assert_eq!(self.result, Ok(expected));
        self
    }

    #[track_caller]
    pub(super) fn rejected(self, code: OrderRejectionCode) {
        let status = self.order.status;
        assert_eq!(
            self.result,
            Err(Rejection {
                code: code.into(),
                status
            })
        );
    }

    #[track_caller]
    pub(super) fn sends(self, expected: Vec<Message>) -> Self {
        assert_eq!(self.messages, expected);
        self
    }

    #[track_caller]
    pub(super) fn is(self, status: OrderStatus) -> Self {
        assert_eq!(self.order.status(), status);
        self
    }
}

// The order of the tests: 2 of "a" at 50 and 3 of "b" at 10 with 5 off, 125 in all.

pub(super) fn line(sku: &str, quantity: u32, unit_price: i64, discount: i64) -> OrderLine {
    OrderLine {
        sku: sku.into(),
        quantity,
        unit_price,
        discount,
        description: String::new(),
    }
}

pub(super) fn place_lines(lines: Vec<OrderLine>) -> PlaceOrder {
    let address = Address {
        name: "Ada".into(),
        street: "1 Main Street".into(),
        postal_code: "12345".into(),
        city: "Ulm".into(),
        country: "DE".into(),
    };
    PlaceOrder {
        customer_id: "ada".into(),
        contact: Some(Contact {
            address: Some(address),
            ..Contact::default()
        }),
        lines,
        currency: "EUR".into(),
    }
}

pub(super) fn place() -> PlaceOrder {
    place_lines(vec![line("a", 2, 50, 0), line("b", 3, 10, 5)])
}

pub(super) fn free() -> PlaceOrder {
    place_lines(vec![line("a", 2, 0, 0)])
}

// Commands.

pub(super) fn cancel_by(customer_id: &str) -> Command {
    Command::CancelOrder(CancelOrder {
        customer_id: customer_id.into(),
    })
}

pub(super) fn stock_reserved(sku: &str) -> Command {
    Command::RecordStockReserved(RecordStockReserved { sku: sku.into() })
}

pub(super) fn stock_refused(sku: &str) -> Command {
    Command::RecordStockRefused(RecordStockRefused {
        sku: sku.into(),
        available: 1,
    })
}

pub(super) fn stock_released(sku: &str) -> Command {
    Command::RecordStockReleased(RecordStockReleased { sku: sku.into() })
}

pub(super) fn payment_processed() -> Command {
    Command::RecordPaymentProcessed(RecordPaymentProcessed {
        provider_reference: "p-1".into(),
    })
}

pub(super) fn payment_declined() -> Command {
    Command::RecordPaymentDeclined(RecordPaymentDeclined {
        reason: "no funds".into(),
    })
}

pub(super) fn payment_cancelled(refunded: i64) -> Command {
    Command::RecordPaymentCancelled(RecordPaymentCancelled { refunded })
}

pub(super) fn dispatched() -> Command {
    Command::RecordShipmentDispatched(RecordShipmentDispatched {
        tracking_number: "t-1".into(),
    })
}

pub(super) fn arrived() -> Command {
    Command::RecordShipmentDelivered(RecordShipmentDelivered {})
}

pub(super) fn shipment_refused() -> Command {
    Command::RecordShipmentRefused(RecordShipmentRefused {
        reason: "no such street".into(),
    })
}

pub(super) fn shipment_cancelled() -> Command {
    Command::RecordShipmentCancelled(RecordShipmentCancelled {})
}

pub(super) fn expire(step: OrderStatus, deadline_ms: i64) -> Command {
    Command::ExpireStep(ExpireStep {
        step: step.into(),
        deadline_ms,
    })
}

// Events.

pub(super) fn created_by(place: PlaceOrder) -> Event {
    Event::OrderCreated(OrderCreated {
        total: order_total(&place.lines).expect("the lines add up"),
        body_digest: Sha256::digest(place.encode_to_vec()).to_vec(),
        deadline_ms: NOW + 1_000,
        customer_id: place.customer_id,
        contact: place.contact,
        lines: place.lines,
        currency: place.currency,
    })
}

pub(super) fn line_reserved(sku: &str) -> Event {
    Event::OrderLineReserved(OrderLineReserved { sku: sku.into() })
}

pub(super) fn line_refused(sku: &str) -> Event {
    Event::OrderLineRefused(OrderLineRefused {
        sku: sku.into(),
        available: 1,
    })
}

pub(super) fn line_released(sku: &str) -> Event {
    Event::OrderLineReleased(OrderLineReleased { sku: sku.into() })
}

pub(super) fn all_reserved() -> Event {
    Event::OrderStockReserved(OrderStockReserved {
        deadline_ms: NOW + 2_000,
    })
}

pub(super) fn confirmed_with(reference: &str) -> Event {
    let deadline_ms = NOW + 3_000;
    Event::OrderConfirmed(OrderConfirmed {
        provider_reference: reference.into(),
        deadline_ms,
    })
}

pub(super) fn order_shipped() -> Event {
    let deadline_ms = NOW + 4_000;
    Event::OrderShipped(OrderShipped {
        tracking_number: "t-1".into(),
        deadline_ms,
    })
}

pub(super) fn order_declined() -> Event {
    Event::OrderPaymentDeclined(OrderPaymentDeclined {
        reason: "no funds".into(),
    })
}

pub(super) fn carrier_refused() -> Event {
    Event::OrderShipmentRefused(OrderShipmentRefused {
        reason: "no such street".into(),
    })
}

pub(super) fn order_delivered() -> Event {
    Event::OrderDelivered(OrderDelivered {})
}

pub(super) fn cancelling_for(goal: EndReason) -> Event {
    Event::OrderCancelling(OrderCancelling { goal: goal.into() })
}

pub(super) fn order_shipment_cancelled() -> Event {
    Event::OrderShipmentCancelled(OrderShipmentCancelled {})
}

pub(super) fn payment_given_back(refunded: i64) -> Event {
    Event::OrderPaymentCancelled(OrderPaymentCancelled { refunded })
}

pub(super) fn order_cancelled() -> Event {
    Event::OrderCancelled(OrderCancelled {})
}

pub(super) fn rejected_for(reason: EndReason) -> Event {
    Event::OrderRejected(OrderRejected {
        reason: reason.into(),
    })
}

// Histories, one per status.

pub(super) fn pending() -> Vec<Event> {
    vec![created_by(place())]
}

pub(super) fn awaiting_payment() -> Vec<Event> {
    [
        pending(),
        vec![line_reserved("a"), line_reserved("b"), all_reserved()],
    ]
    .concat()
}

pub(super) fn confirmed() -> Vec<Event> {
    [awaiting_payment(), vec![confirmed_with("p-1")]].concat()
}

pub(super) fn shipped() -> Vec<Event> {
    [confirmed(), vec![order_shipped()]].concat()
}

pub(super) fn late() -> Vec<Event> {
    [
        shipped(),
        vec![Event::OrderFlaggedLate(OrderFlaggedLate {})],
    ]
    .concat()
}

pub(super) fn delivered() -> Vec<Event> {
    [shipped(), vec![order_delivered()]].concat()
}

/// Cancelled by the customer while shipping was asked: shipping decides.
pub(super) fn awaiting_verdict() -> Vec<Event> {
    [confirmed(), vec![cancelling_for(EndReason::Customer)]].concat()
}

/// Cancelled by the customer, nothing is given back yet.
pub(super) fn undoing() -> Vec<Event> {
    [awaiting_verdict(), vec![order_shipment_cancelled()]].concat()
}

pub(super) fn cancelled() -> Vec<Event> {
    let undone = [
        line_released("a"),
        line_released("b"),
        payment_given_back(125),
    ];
    [undoing(), undone.to_vec(), vec![order_cancelled()]].concat()
}

pub(super) fn rejected() -> Vec<Event> {
    let refused = [
        line_refused("a"),
        cancelling_for(EndReason::OutOfStock),
        line_released("b"),
    ];
    [
        pending(),
        refused.to_vec(),
        vec![rejected_for(EndReason::OutOfStock)],
    ]
    .concat()
}

// Messages.

pub(super) fn to_stock(sku: &str, command: stock_command::Command) -> Message {
    Message::new(sku, command)
}

pub(super) fn reserve(sku: &str, quantity: u32) -> Message {
    let reserve = ReserveStock {
        order_id: id_at(0),
        quantity,
    };
    to_stock(sku, stock_command::Command::ReserveStock(reserve))
}

pub(super) fn release(sku: &str) -> Message {
    to_stock(
        sku,
        stock_command::Command::ReleaseStock(ReleaseStock { order_id: id_at(0) }),
    )
}

pub(super) fn commit(sku: &str) -> Message {
    to_stock(
        sku,
        stock_command::Command::CommitStock(CommitStock { order_id: id_at(0) }),
    )
}

pub(super) fn to_payment(command: payment_command::Command) -> Message {
    Message::new(id_at(0), command)
}

pub(super) fn cancel_payment() -> Message {
    to_payment(payment_command::Command::CancelPayment(CancelPayment {}))
}

pub(super) fn to_shipment(command: shipment_command::Command) -> Message {
    Message::new(id_at(0), command)
}

pub(super) fn ship(pieces: u64) -> Message {
    let contact = place().contact;
    to_shipment(shipment_command::Command::ShipOrder(ShipOrder {
        contact,
        pieces,
    }))
}

pub(super) fn cancel_shipment() -> Message {
    to_shipment(shipment_command::Command::CancelShipment(CancelShipment {}))
}
