//! The order: its rule book, and the process manager that coordinates inventory, payments and shipping.
//!
//! ```text
//! -                 PlaceOrder             PENDING            reserve every line
//! PENDING           every line reserved    AWAITING_PAYMENT   charge the total
//! PENDING           … and nothing to pay   CONFIRMED          ship
//! AWAITING_PAYMENT  charged                CONFIRMED          ship
//! CONFIRMED         dispatched             SHIPPED            deduct the stock, settle the payment
//! SHIPPED           delivered              DELIVERED
//! SHIPPED           deadline               SHIPPED            flagged as late, no compensation
//!
//! PENDING           a line refused         CANCELLING(OUT_OF_STOCK)
//! AWAITING_PAYMENT  declined               CANCELLING(PAYMENT_DECLINED)
//! CONFIRMED         refused by the carrier CANCELLING(UNDELIVERABLE)
//! PENDING, AWAITING_PAYMENT or CONFIRMED:
//!                   deadline               CANCELLING(EXPIRED)
//!                   CancelOrder            CANCELLING(CUSTOMER)
//!
//! CANCELLING        a shipment was requested: cancel it and wait for shipping's decision, which is one of
//!                   dispatched             SHIPPED            too late to cancel: the happy path continues
//!                   cancelled or refused   CANCELLING         release every line, cancel the payment
//! CANCELLING        no shipment            CANCELLING         release every line, cancel the payment
//! CANCELLING        every answer received  CANCELLED (CUSTOMER) or REJECTED (the other reasons)
//! ```
//!
//! Answers that do not fit the status are late or repeated and give no event.

use std::convert::Infallible;

use contracts::orders::v1::{
    CancelOrder, EndReason, ExpireStep, LineProgress, LineState, OrderCancelled, OrderCancelling,
    OrderCommandAccepted, OrderConfirmed, OrderCreated, OrderDelivered, OrderFlaggedLate,
    OrderLineReserved, OrderRejected, OrderRejectionCode, OrderShipped, OrderStatus,
    OrderStockReserved, PaymentProgress, PlaceOrder, ShipmentProgress, order_command, order_event,
    order_outcome,
};
use contracts::rules::{
    CrossField as _, canonical_uuid, is_final, order_total, uuid_v7, uuid_v7_time_ms,
};
use contracts::{Message, Orders};
use engine::{Context, Decider, Outstanding};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

mod answers;
mod fold;
mod messages;
#[cfg(test)]
mod tests;

/// The rule book of orders. All times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderRules {
    /// How old the id of a new order may be. Within this time, a repeated PlaceOrder is recognised.
    pub horizon_ms: i64,
    /// How long inventory may take to answer for all lines.
    pub stock_wait_ms: i64,
    /// How long payments may take to charge.
    pub payment_wait_ms: i64,
    /// How long shipping may take to hand the parcel over.
    pub shipping_wait_ms: i64,
    /// How long a parcel may be in transit before the order is flagged as late.
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

/// How far the clock that generated an order id may be ahead of the broker's clock, milliseconds.
const MAX_CLOCK_SKEW_MS: i64 = 5 * 60_000;

/// A command to an order: from a client, another service or a timer.
type Command = order_command::Command;

/// An event of an order.
type Event = order_event::Event;

/// The state of an order. `deadline_ms` is not 0 if and only if a timer is running.
type Order = contracts::orders::v1::Order;

/// Why a client's command is rejected.
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
            trigger => Ok(self.advance(order, trigger, context.time_ms)),
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

            // Compensation. Once a shipment was requested, everything else waits for shipping's decision.
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
        is_final(order.status())
    }

    fn is_id(id: &str) -> bool {
        canonical_uuid(id).is_some() && uuid_v7(id).is_some()
    }
}

impl OrderRules {
    fn place(
        &self,
        order: &Order,
        request: &PlaceOrder,
        context: &Context<'_>,
    ) -> Result<Vec<Event>, Rejection> {
        let body_digest = Sha256::digest(request.encode_to_vec()).to_vec();
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
        request.cross_field(&mut violations);
        let total = order_total(&request.lines).filter(|_| violations.is_empty());
        let Some(total) = total else {
            return reject(OrderRejectionCode::Invalid, order);
        };
        Ok(vec![Event::OrderCreated(OrderCreated {
            customer_id: request.customer_id.clone(),
            contact: request.contact.clone(),
            lines: request.lines.clone(),
            currency: request.currency.clone(),
            total,
            body_digest,
            deadline_ms: context.time_ms.saturating_add(self.stock_wait_ms),
        })])
    }

    /// Whether an unknown id is certainly new, not that of an evicted order.
    fn can_be_new(&self, context: &Context<'_>) -> bool {
        let oldest = context.time_ms.saturating_sub(self.horizon_ms);
        let newest = context.time_ms.saturating_add(MAX_CLOCK_SKEW_MS);
        uuid_v7_time_ms(context.aggregate_id).is_some_and(|id_time| {
            (oldest..=newest).contains(&id_time) && id_time > context.evicted_through_ms
        })
    }

    /// The process manager: the events that follow from an answer of another service or from a timer. An answer that
    /// does not fit the status is late or repeated, and nothing follows from it.
    fn advance(&self, order: &Order, trigger: &Command, time_ms: i64) -> Vec<Event> {
        use LineProgress::{Asked, Releasing};
        use OrderStatus::{AwaitingPayment, Cancelling, Confirmed, Pending, Shipped};
        use order_command::Command::*;
        match (order.status(), trigger) {
            // Happy path.
            (Pending, RecordStockReserved(answer)) if has_line(order, &answer.sku, Asked) => {
                self.line_reserved(order, answer.sku.clone(), time_ms)
            }
            (AwaitingPayment, RecordPaymentProcessed(answer)) => {
                vec![self.confirmed(answer.provider_reference.clone(), time_ms)]
            }
            (Confirmed | Cancelling, RecordShipmentDispatched(answer))
                if is_shipment_pending(order) =>
            {
                vec![self.shipped(answer.tracking_number.clone(), time_ms)]
            }
            (Shipped, RecordShipmentDelivered(_)) => vec![Event::OrderDelivered(OrderDelivered {})],
            (Shipped, ExpireStep(timer)) if is_current(order, timer) => {
                vec![Event::OrderFlaggedLate(OrderFlaggedLate {})]
            }

            // Compensation: a refusal or a deadline begins it.
            (Pending, RecordStockRefused(answer)) if has_line(order, &answer.sku, Asked) => {
                let refusal = answers::line_refused(answer);
                begin_compensation(order, Some(refusal), EndReason::OutOfStock)
            }
            (AwaitingPayment, RecordPaymentDeclined(answer)) => {
                let refusal = answers::payment_declined(answer);
                begin_compensation(order, Some(refusal), EndReason::PaymentDeclined)
            }
            (Confirmed, RecordShipmentRefused(answer)) => {
                let refusal = answers::shipment_refused(answer);
                begin_compensation(order, Some(refusal), EndReason::Undeliverable)
            }
            (_, ExpireStep(timer)) if is_current(order, timer) => {
                begin_compensation(order, None, EndReason::Expired)
            }

            // Compensation: each answer continues it, the last one ends it.
            (Cancelling, RecordShipmentCancelled(answer)) if is_shipment_pending(order) => {
                continue_compensation(order, answers::shipment_cancelled(answer))
            }
            (Cancelling, RecordShipmentRefused(answer)) if is_shipment_pending(order) => {
                continue_compensation(order, answers::shipment_refused(answer))
            }
            (Cancelling, RecordStockReleased(answer))
                if has_line(order, &answer.sku, Releasing) =>
            {
                continue_compensation(order, answers::line_released(answer))
            }
            (Cancelling, RecordPaymentCancelled(answer)) if is_payment_cancelling(order) => {
                continue_compensation(order, answers::payment_cancelled(answer))
            }

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

fn cancel(order: &Order, request: &CancelOrder) -> Result<Vec<Event>, Rejection> {
    use OrderStatus::*;
    match order.status() {
        Unspecified => reject(OrderRejectionCode::UnknownOrder, order),
        _ if order.customer_id != request.customer_id => {
            reject(OrderRejectionCode::ForeignOrder, order)
        }
        Pending | AwaitingPayment | Confirmed => {
            Ok(begin_compensation(order, None, EndReason::Customer))
        }
        Cancelling | Cancelled => Ok(Vec::new()),
        Shipped | Delivered | Rejected => reject(OrderRejectionCode::TooLate, order),
    }
}

/// Begins the compensation. Ends it at once when only the refused part was unresolved.
fn begin_compensation(order: &Order, refusal: Option<Event>, end_reason: EndReason) -> Vec<Event> {
    let refused = usize::from(refusal.is_some());
    let mut events = Vec::from_iter(refusal);
    events.push(Event::OrderCancelling(OrderCancelling {
        goal: end_reason.into(),
    }));
    events.extend((unresolved_parts(order) == refused).then(|| end_event(end_reason)));
    events
}

/// Records an answer to the compensation. Ends the compensation when it is the last answer.
fn continue_compensation(order: &Order, answer: Event) -> Vec<Event> {
    let mut events = vec![answer];
    events.extend((unresolved_parts(order) == 1).then(|| end_event(order.goal())));
    events
}

fn end_event(end_reason: EndReason) -> Event {
    match end_reason {
        EndReason::Customer => Event::OrderCancelled(OrderCancelled {}),
        reason => Event::OrderRejected(OrderRejected {
            reason: reason.into(),
        }),
    }
}

/// The number of lines, payments and shipments that are neither refused nor undone.
fn unresolved_parts(order: &Order) -> usize {
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

fn is_payment_cancelling(order: &Order) -> bool {
    order.payment() == PaymentProgress::Cancelling
}

/// Whether shipping has not decided yet.
fn is_shipment_pending(order: &Order) -> bool {
    matches!(
        order.shipment(),
        ShipmentProgress::Asked | ShipmentProgress::Cancelling
    )
}

fn has_line(order: &Order, sku: &str, progress: LineProgress) -> bool {
    order
        .lines
        .iter()
        .any(|line| sku_of(line) == sku && line.progress() == progress)
}

/// Whether the timer belongs to the current step. Compares step and deadline, not the time: the timer's clock and the
/// broker's may differ, and a timer fires once.
fn is_current(order: &Order, timer: &ExpireStep) -> bool {
    order.deadline_ms != 0 && order.deadline_ms == timer.deadline_ms && order.status == timer.step
}

fn sku_of(line: &LineState) -> &str {
    line.line.as_ref().map_or("", |line| line.sku.as_str())
}
