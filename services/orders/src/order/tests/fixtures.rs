//! Fixtures: given/when/then, an order of two lines, constructors of its commands, events and messages, and a history
//! for every status.

use contracts::Message;
use contracts::inventory::v1::{CommitStock, ReleaseStock, ReserveStock, stock_command};
use contracts::orders::v1::{
    Address, Contact, OrderLine, OrderLineRefused, OrderLineReleased, OrderPaymentCancelled,
    OrderPaymentDeclined, OrderShipmentCancelled, OrderShipmentRefused, RecordPaymentCancelled,
    RecordPaymentDeclined, RecordPaymentProcessed, RecordShipmentCancelled,
    RecordShipmentDelivered, RecordShipmentDispatched, RecordShipmentRefused, RecordStockRefused,
    RecordStockReleased, RecordStockReserved,
};
use contracts::payments::v1::{CancelPayment, payment_command};
use contracts::rules::uuid_v7_at;
use contracts::shipping::v1::{CancelShipment, ShipOrder, shipment_command};

use super::super::*;

pub(super) const NOW: i64 = 1_700_000_000_000;
pub(super) const RULES: OrderRules = OrderRules {
    horizon_ms: 900_000,
    stock_wait_ms: 1_000,
    payment_wait_ms: 2_000,
    shipping_wait_ms: 3_000,
    delivery_wait_ms: 4_000,
};

/// An order id generated `offset_ms` after [`NOW`].
pub(super) fn id_at(offset_ms: i64) -> String {
    let millis = u64::try_from(NOW + offset_ms).expect("after 1970");
    uuid_v7_at(millis, &[7; 10]).to_string()
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
    pub(super) fn has_status(self, status: OrderStatus) -> Self {
        assert_eq!(self.order.status(), status);
        self
    }
}

// The order: 2 pieces of "a" at 50, and 3 of "b" at 10 with a discount of 5. The total is 125.

pub(super) fn line(sku: &str, quantity: u32, unit_price: i64, discount: i64) -> OrderLine {
    OrderLine {
        sku: sku.into(),
        quantity,
        unit_price,
        discount,
        description: String::new(),
    }
}

pub(super) fn order_with(lines: Vec<OrderLine>) -> PlaceOrder {
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

pub(super) fn place_order() -> PlaceOrder {
    order_with(vec![line("a", 2, 50, 0), line("b", 3, 10, 5)])
}

pub(super) fn free_order() -> PlaceOrder {
    order_with(vec![line("a", 2, 0, 0)])
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

pub(super) fn shipment_dispatched() -> Command {
    Command::RecordShipmentDispatched(RecordShipmentDispatched {
        tracking_number: "t-1".into(),
    })
}

pub(super) fn shipment_delivered() -> Command {
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

pub(super) fn order_created(place_order: PlaceOrder) -> Event {
    Event::OrderCreated(OrderCreated {
        total: order_total(&place_order.lines).expect("the lines add up"),
        body_digest: Sha256::digest(place_order.encode_to_vec()).to_vec(),
        deadline_ms: NOW + 1_000,
        customer_id: place_order.customer_id,
        contact: place_order.contact,
        lines: place_order.lines,
        currency: place_order.currency,
    })
}

pub(super) fn order_line_reserved(sku: &str) -> Event {
    Event::OrderLineReserved(OrderLineReserved { sku: sku.into() })
}

pub(super) fn order_line_refused(sku: &str) -> Event {
    Event::OrderLineRefused(OrderLineRefused {
        sku: sku.into(),
        available: 1,
    })
}

pub(super) fn order_line_released(sku: &str) -> Event {
    Event::OrderLineReleased(OrderLineReleased { sku: sku.into() })
}

pub(super) fn order_stock_reserved() -> Event {
    Event::OrderStockReserved(OrderStockReserved {
        deadline_ms: NOW + 2_000,
    })
}

pub(super) fn order_confirmed(reference: &str) -> Event {
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

pub(super) fn order_payment_declined() -> Event {
    Event::OrderPaymentDeclined(OrderPaymentDeclined {
        reason: "no funds".into(),
    })
}

pub(super) fn order_shipment_refused() -> Event {
    Event::OrderShipmentRefused(OrderShipmentRefused {
        reason: "no such street".into(),
    })
}

pub(super) fn order_delivered() -> Event {
    Event::OrderDelivered(OrderDelivered {})
}

pub(super) fn order_cancelling(goal: EndReason) -> Event {
    Event::OrderCancelling(OrderCancelling { goal: goal.into() })
}

pub(super) fn order_shipment_cancelled() -> Event {
    Event::OrderShipmentCancelled(OrderShipmentCancelled {})
}

pub(super) fn order_payment_cancelled(refunded: i64) -> Event {
    Event::OrderPaymentCancelled(OrderPaymentCancelled { refunded })
}

pub(super) fn order_cancelled() -> Event {
    Event::OrderCancelled(OrderCancelled {})
}

pub(super) fn order_rejected(reason: EndReason) -> Event {
    Event::OrderRejected(OrderRejected {
        reason: reason.into(),
    })
}

// Histories, one per status.

pub(super) fn pending() -> Vec<Event> {
    vec![order_created(place_order())]
}

pub(super) fn awaiting_payment() -> Vec<Event> {
    [
        pending(),
        vec![
            order_line_reserved("a"),
            order_line_reserved("b"),
            order_stock_reserved(),
        ],
    ]
    .concat()
}

pub(super) fn confirmed() -> Vec<Event> {
    [awaiting_payment(), vec![order_confirmed("p-1")]].concat()
}

pub(super) fn shipped() -> Vec<Event> {
    [confirmed(), vec![order_shipped()]].concat()
}

pub(super) fn flagged_late() -> Vec<Event> {
    [
        shipped(),
        vec![Event::OrderFlaggedLate(OrderFlaggedLate {})],
    ]
    .concat()
}

pub(super) fn delivered() -> Vec<Event> {
    [shipped(), vec![order_delivered()]].concat()
}

/// Cancelled by the customer after the shipment was requested: shipping has not decided yet.
pub(super) fn cancelling_shipment() -> Vec<Event> {
    [confirmed(), vec![order_cancelling(EndReason::Customer)]].concat()
}

/// Cancelled by the customer and shipping; neither the lines nor the payment have answered yet.
pub(super) fn compensating() -> Vec<Event> {
    [cancelling_shipment(), vec![order_shipment_cancelled()]].concat()
}

pub(super) fn cancelled() -> Vec<Event> {
    let undone = [
        order_line_released("a"),
        order_line_released("b"),
        order_payment_cancelled(125),
    ];
    [compensating(), undone.to_vec(), vec![order_cancelled()]].concat()
}

pub(super) fn rejected() -> Vec<Event> {
    let refused = [
        order_line_refused("a"),
        order_cancelling(EndReason::OutOfStock),
        order_line_released("b"),
    ];
    [
        pending(),
        refused.to_vec(),
        vec![order_rejected(EndReason::OutOfStock)],
    ]
    .concat()
}

// Messages.

pub(super) fn to_stock(sku: &str, command: stock_command::Command) -> Message {
    Message::new(sku, command)
}

pub(super) fn reserve_stock(sku: &str, quantity: u32) -> Message {
    let reserve = ReserveStock {
        order_id: id_at(0),
        quantity,
    };
    to_stock(sku, stock_command::Command::ReserveStock(reserve))
}

pub(super) fn release_stock(sku: &str) -> Message {
    to_stock(
        sku,
        stock_command::Command::ReleaseStock(ReleaseStock { order_id: id_at(0) }),
    )
}

pub(super) fn commit_stock(sku: &str) -> Message {
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

pub(super) fn ship_order(pieces: u64) -> Message {
    let contact = place_order().contact;
    to_shipment(shipment_command::Command::ShipOrder(ShipOrder {
        contact,
        pieces,
    }))
}

pub(super) fn cancel_shipment() -> Message {
    to_shipment(shipment_command::Command::CancelShipment(CancelShipment {}))
}
