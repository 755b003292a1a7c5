//! The order: its rule book, and the process manager that leads it through inventory, payments and shipping.
//!
//! ```text
//! -                 PlaceOrder             PENDING            reserve every line
//! PENDING           every line reserved    AWAITING_PAYMENT   charge the total
//! PENDING           … and nothing to pay   CONFIRMED          ship
//! AWAITING_PAYMENT  charged                CONFIRMED          ship
//! CONFIRMED         dispatched             SHIPPED            deduct the stock, settle the payment
//! SHIPPED           delivered              DELIVERED
//! SHIPPED           deadline               SHIPPED            flagged as late, nothing is undone
//!
//! PENDING           a line refused         CANCELLING(OUT_OF_STOCK)
//! AWAITING_PAYMENT  declined               CANCELLING(PAYMENT_DECLINED)
//! CONFIRMED         refused by the carrier CANCELLING(UNDELIVERABLE)
//! these three       deadline               CANCELLING(EXPIRED)
//! these three       CancelOrder            CANCELLING(CUSTOMER)
//!
//! CANCELLING        a shipment is asked for: cancel it and wait for shipping's verdict, which is one of
//!                   dispatched             SHIPPED            too late: the happy path goes on
//!                   cancelled or refused   CANCELLING         release every line, cancel the payment
//! CANCELLING        no shipment            CANCELLING         release every line, cancel the payment
//! CANCELLING        every answer is there  CANCELLED (CUSTOMER) or REJECTED (the other reasons)
//! ```
//!
//! Answers that do not fit the status are late or repeated and give no event.

use std::convert::Infallible;

use contracts::orders::v1::{
    CancelOrder, EndReason, ExpireStep, LineProgress, LineState, OrderCancelled, OrderCancelling,
    OrderCommandAccepted, OrderConfirmed, OrderCreated, OrderDelivered, OrderFlaggedLate,
    OrderLineRefused, OrderLineReleased, OrderLineReserved, OrderPaymentCancelled,
    OrderPaymentDeclined, OrderRejected, OrderRejectionCode, OrderShipmentCancelled,
    OrderShipmentRefused, OrderShipped, OrderStatus, OrderStockReserved, PaymentProgress,
    PlaceOrder, ShipmentProgress, order_command, order_event, order_outcome,
};
use contracts::rules::{CrossField as _, order_total, uuid_v7_time_ms};
use contracts::{Message, Orders};
use engine::{Context, Decider, Outstanding};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

mod fold;
mod messages;
#[cfg(test)]
mod tests;

/// The rule book of orders, with the times it works with (all in milliseconds).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderRules {
    /// How old the id of a new order may be. Within it, a repeated PlaceOrder is told from a new one.
    pub horizon_ms: i64,
    /// How long inventory may take to answer for every line.
    pub stock_wait_ms: i64,
    /// How long payments may take to charge.
    pub payment_wait_ms: i64,
    /// How long shipping may take to hand the parcel over.
    pub shipping_wait_ms: i64,
    /// How long a parcel may be on its way before the order is flagged as late.
    pub delivery_wait_ms: i64,
}

impl Default for OrderRules {
    fn default() -> Self {
        const MINUTE: i64 = 60_000;
        const HOUR: i64 = 60 * MINUTE;
        Self {
            horizon_ms: 15 * MINUTE,
            stock_wait_ms: 15 * MINUTE,
            payment_wait_ms: 15 * MINUTE,
            shipping_wait_ms: HOUR,
            delivery_wait_ms: 14 * 24 * HOUR,
        }
    }
}

/// How far the clock that made an order id may be ahead of the broker's, milliseconds.
const ID_AHEAD_MS: i64 = 5 * 60_000;

/// What a client, another service or a timer tells an order.
type Command = order_command::Command;

/// What happened to an order.
type Event = order_event::Event;

/// An order. Its `deadline_ms` is not 0 exactly while a timer runs.
type Order = contracts::orders::v1::Order;

/// Why a client's command was refused.
type Rejection = contracts::orders::v1::OrderRejection;

fn reject<T>(code: OrderRejectionCode, order: &Order) -> Result<T, Rejection> {
    Err(Rejection {
        code: code.into(),
        status: order.status,
    })
}

impl Decider for OrderRules {
    type Contract = Orders;
    type Rejection = Rejection;
    type Effect = Infallible;

    const RULES_VERSION: u32 = 1;

    fn decide(
        &self,
        order: &Order,
        command: &Command,
        context: &Context<'_>,
    ) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::PlaceOrder(command) => self.place(order, command, context),
            Command::CancelOrder(command) => cancel(order, command),
            answer => Ok(self.record(order, answer, context.time_ms)),
        }
    }

    fn evolve(order: &mut Order, event: &Event) {
        if fold::follows(order, event) {
            fold::apply(order, event);
        }
    }

    fn react(order: &Order, event: &Event, id: &str) -> Vec<Message> {
        match event {
            // Happy path.
            Event::OrderCreated(_) => messages::reserve_lines(order, id).collect(),
            Event::OrderStockReserved(_) => messages::charge(order, id).into_iter().collect(),
            Event::OrderConfirmed(_) => vec![messages::ship(order, id)],
            Event::OrderShipped(_) => messages::commit_lines(order, id)
                .chain(messages::settle(order, id))
                .collect(),

            // Compensation: when a shipment has been asked for, only after shipping's verdict.
            Event::OrderCancelling(_) if order.shipment() == ShipmentProgress::Cancelling => {
                vec![messages::cancel_shipment(id)]
            }
            Event::OrderCancelling(_)
            | Event::OrderShipmentCancelled(_)
            | Event::OrderShipmentRefused(_) => messages::release_lines(order, id)
                .chain(messages::cancel_payment(order, id))
                .collect(),

            _ => Vec::new(),
        }
    }

    fn outstanding(order: &Order, _id: &str) -> Vec<Outstanding<Self>> {
        if order.deadline_ms == 0 {
            return Vec::new();
        }
        let expire = ExpireStep {
            step: order.status,
            deadline_ms: order.deadline_ms,
        };
        vec![Outstanding::Timer {
            due_ms: order.deadline_ms,
            command: Command::ExpireStep(expire),
        }]
    }

    fn accepted(order: &Order) -> order_outcome::Outcome {
        order_outcome::Outcome::Accepted(OrderCommandAccepted {
            status: order.status,
        })
    }

    fn rejected(rejection: &Rejection) -> order_outcome::Outcome {
        order_outcome::Outcome::Rejection(*rejection)
    }

    fn finished(order: &Order) -> bool {
        matches!(
            order.status(),
            OrderStatus::Delivered | OrderStatus::Cancelled | OrderStatus::Rejected
        )
    }

    fn is_id(id: &str) -> bool {
        // Only the canonical spelling: two spellings would be two keys.
        id.len() == 36
            && !id.contains(|letter: char| letter.is_ascii_uppercase())
            && uuid_v7_time_ms(id).is_some()
    }
}

impl OrderRules {
    fn place(
        &self,
        order: &Order,
        place: &PlaceOrder,
        context: &Context<'_>,
    ) -> Result<Vec<Event>, Rejection> {
        let body_digest = Sha256::digest(place.encode_to_vec()).to_vec();
        if order.status() != OrderStatus::Unspecified {
            return if order.body_digest == body_digest {
                Ok(Vec::new())
            } else {
                reject(OrderRejectionCode::IdReused, order)
            };
        }
        if !self.can_be_new(context) {
            return reject(OrderRejectionCode::Stale, order);
        }
        let mut violations = Vec::new();
        place.cross_field(&mut violations);
        let total = order_total(&place.lines).filter(|_| violations.is_empty());
        let Some(total) = total else {
            return reject(OrderRejectionCode::Invalid, order);
        };
        Ok(vec![Event::OrderCreated(OrderCreated {
            customer_id: place.customer_id.clone(),
            contact: place.contact.clone(),
            lines: place.lines.clone(),
            currency: place.currency.clone(),
            total,
            body_digest,
            deadline_ms: context.time_ms.saturating_add(self.stock_wait_ms),
        })])
    }

    /// Whether the id of an unknown order cannot belong to one that has left memory.
    fn can_be_new(&self, context: &Context<'_>) -> bool {
        let oldest = context.time_ms.saturating_sub(self.horizon_ms);
        let newest = context.time_ms.saturating_add(ID_AHEAD_MS);
        uuid_v7_time_ms(context.aggregate_id).is_some_and(|id_time| {
            (oldest..=newest).contains(&id_time) && id_time > context.evicted_through_ms
        })
    }

    /// Takes note of what another service or a timer says. What does not fit the status came late or twice.
    fn record(&self, order: &Order, answer: &Command, time_ms: i64) -> Vec<Event> {
        use OrderStatus::{AwaitingPayment, Cancelling, Confirmed, Pending, Shipped};
        match (order.status(), answer) {
            // Happy path.
            (Pending, Command::RecordStockReserved(answer))
                if is_line(order, &answer.sku, LineProgress::Asked) =>
            {
                self.line_reserved(order, answer.sku.clone(), time_ms)
            }
            (AwaitingPayment, Command::RecordPaymentProcessed(answer)) => {
                vec![self.confirmed(answer.provider_reference.clone(), time_ms)]
            }
            (Confirmed | Cancelling, Command::RecordShipmentDispatched(answer))
                if is_shipment_undecided(order) =>
            {
                vec![self.shipped(answer.tracking_number.clone(), time_ms)]
            }
            (Shipped, Command::RecordShipmentDelivered(_)) => {
                vec![Event::OrderDelivered(OrderDelivered {})]
            }

            // Refusals, each of which begins the compensation.
            (Pending, Command::RecordStockRefused(answer))
                if is_line(order, &answer.sku, LineProgress::Asked) =>
            {
                let (sku, available) = (answer.sku.clone(), answer.available);
                let refusal = Event::OrderLineRefused(OrderLineRefused { sku, available });
                compensate(order, Some(refusal), EndReason::OutOfStock)
            }
            (AwaitingPayment, Command::RecordPaymentDeclined(answer)) => {
                let reason = answer.reason.clone();
                let refusal = Event::OrderPaymentDeclined(OrderPaymentDeclined { reason });
                compensate(order, Some(refusal), EndReason::PaymentDeclined)
            }
            (Confirmed, Command::RecordShipmentRefused(answer)) => {
                let reason = answer.reason.clone();
                let refusal = Event::OrderShipmentRefused(OrderShipmentRefused { reason });
                compensate(order, Some(refusal), EndReason::Undeliverable)
            }

            // Answers to the compensation.
            (Cancelling, Command::RecordShipmentCancelled(_)) if is_shipment_undecided(order) => {
                compensated(
                    order,
                    Event::OrderShipmentCancelled(OrderShipmentCancelled {}),
                )
            }
            (Cancelling, Command::RecordShipmentRefused(answer))
                if is_shipment_undecided(order) =>
            {
                let reason = answer.reason.clone();
                compensated(
                    order,
                    Event::OrderShipmentRefused(OrderShipmentRefused { reason }),
                )
            }
            (Cancelling, Command::RecordStockReleased(answer))
                if is_line(order, &answer.sku, LineProgress::Releasing) =>
            {
                let sku = answer.sku.clone();
                compensated(order, Event::OrderLineReleased(OrderLineReleased { sku }))
            }
            (Cancelling, Command::RecordPaymentCancelled(answer))
                if order.payment() == PaymentProgress::Cancelling =>
            {
                let refunded = answer.refunded;
                compensated(
                    order,
                    Event::OrderPaymentCancelled(OrderPaymentCancelled { refunded }),
                )
            }

            (status, Command::ExpireStep(expired)) if is_waiting(order, expired) => match status {
                Shipped => vec![Event::OrderFlaggedLate(OrderFlaggedLate {})],
                _ => compensate(order, None, EndReason::Expired),
            },

            _ => Vec::new(),
        }
    }

    fn line_reserved(&self, order: &Order, sku: String, time_ms: i64) -> Vec<Event> {
        let is_last = order
            .lines
            .iter()
            .all(|line| line.progress() == LineProgress::Reserved || sku_of(line) == sku);
        let mut events = vec![Event::OrderLineReserved(OrderLineReserved { sku })];
        if is_last {
            let deadline_ms = time_ms.saturating_add(self.payment_wait_ms);
            events.push(Event::OrderStockReserved(OrderStockReserved {
                deadline_ms,
            }));
            if order.total == 0 {
                events.push(self.confirmed(String::new(), time_ms));
            }
        }
        events
    }

    fn confirmed(&self, provider_reference: String, time_ms: i64) -> Event {
        let deadline_ms = time_ms.saturating_add(self.shipping_wait_ms);
        Event::OrderConfirmed(OrderConfirmed {
            provider_reference,
            deadline_ms,
        })
    }

    fn shipped(&self, tracking_number: String, time_ms: i64) -> Event {
        let deadline_ms = time_ms.saturating_add(self.delivery_wait_ms);
        Event::OrderShipped(OrderShipped {
            tracking_number,
            deadline_ms,
        })
    }
}

fn cancel(order: &Order, cancel: &CancelOrder) -> Result<Vec<Event>, Rejection> {
    use OrderStatus::*;
    match order.status() {
        Unspecified => reject(OrderRejectionCode::UnknownOrder, order),
        _ if order.customer_id != cancel.customer_id => {
            reject(OrderRejectionCode::ForeignOrder, order)
        }
        Pending | AwaitingPayment | Confirmed => Ok(compensate(order, None, EndReason::Customer)),
        Cancelling | Cancelled => Ok(Vec::new()),
        Shipped | Delivered | Rejected => reject(OrderRejectionCode::TooLate, order),
    }
}

/// Begins the compensation, and ends it in the same breath when the refusal was all there was to wait for.
fn compensate(order: &Order, refusal: Option<Event>, goal: EndReason) -> Vec<Event> {
    let refused = usize::from(refusal.is_some());
    let mut events = Vec::from_iter(refusal);
    events.push(Event::OrderCancelling(OrderCancelling {
        goal: goal.into(),
    }));
    events.extend((open_ends(order) == refused).then(|| end(goal)));
    events
}

/// Takes note of an answer to the compensation, and ends it when this was the last one.
fn compensated(order: &Order, answer: Event) -> Vec<Event> {
    let mut events = vec![answer];
    events.extend((open_ends(order) == 1).then(|| end(order.goal())));
    events
}

fn end(goal: EndReason) -> Event {
    match goal {
        EndReason::Customer => Event::OrderCancelled(OrderCancelled {}),
        reason => Event::OrderRejected(OrderRejected {
            reason: reason.into(),
        }),
    }
}

/// How many lines, payments and shipments are neither refused nor undone.
fn open_ends(order: &Order) -> usize {
    let lines = order.lines.iter().filter(|line| {
        !matches!(
            line.progress(),
            LineProgress::Refused | LineProgress::Released
        )
    });
    let payment = !matches!(
        order.payment(),
        PaymentProgress::Unspecified | PaymentProgress::Declined | PaymentProgress::Cancelled
    );
    let shipment = !matches!(
        order.shipment(),
        ShipmentProgress::Unspecified | ShipmentProgress::Refused | ShipmentProgress::Cancelled
    );
    lines.count() + usize::from(payment) + usize::from(shipment)
}

fn is_shipment_undecided(order: &Order) -> bool {
    matches!(
        order.shipment(),
        ShipmentProgress::Asked | ShipmentProgress::Cancelling
    )
}

fn is_line(order: &Order, sku: &str, progress: LineProgress) -> bool {
    order
        .lines
        .iter()
        .any(|line| sku_of(line) == sku && line.progress() == progress)
}

/// Judged by step and deadline, not by the time: the timer's clock and the broker's may differ, and a timer rings
/// once.
fn is_waiting(order: &Order, expired: &ExpireStep) -> bool {
    order.deadline_ms != 0
        && order.deadline_ms == expired.deadline_ms
        && order.status == expired.step
}

fn sku_of(line: &LineState) -> &str {
    line.line.as_ref().map_or("", |line| line.sku.as_str())
}
