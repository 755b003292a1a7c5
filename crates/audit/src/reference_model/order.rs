//! The order: its state machine, money and rows.

use contracts::orders::v1::order_command::Command;
use contracts::orders::v1::order_event::Event;
use contracts::orders::v1::order_outcome::Outcome;
use contracts::orders::v1::{EndReason, OrderCreated, OrderRejectionCode, OrderStatus as Status};
use contracts::{Body as _, Orders};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{EventContext, ProcessedCommand, ReferenceModel};
use crate::context::AuditContext;
use crate::report::{Example, Invariant};
use crate::rows::{OrderEventRow, OrderLineRow, OrderRow, Row};

/// The reservation of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineState {
    Requested,
    Reserved,
    Refused,
    Released,
}

/// A payment or shipment that the order requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum RequestState {
    #[default]
    NotRequested,
    /// In progress, or completed and not undone.
    Open,
    /// Refused, or undone.
    Closed,
}

/// The reference model of an order.
#[derive(Clone, Debug)]
pub(crate) struct OrderModel {
    pub(crate) status: Status,
    pub(crate) version: u64,
    pub(crate) total: i64,
    pub(crate) currency: String,
    /// Refunded amount by the events of the order, in minor units.
    pub(crate) refunded: i64,
    pub(crate) body_digest: Vec<u8>,
    /// SKU, pieces and reservation.
    lines: Vec<(String, u32, LineState)>,
    payment: RequestState,
    shipment: RequestState,
    goal: EndReason,
    is_stock_reserved: bool,
    pub(crate) row: Option<OrderRow>,
}

impl OrderModel {
    fn new(created: &OrderCreated) -> Self {
        let line = |line: &contracts::orders::v1::OrderLine| {
            (line.sku.clone(), line.quantity, LineState::Requested)
        };
        Self {
            status: Status::Pending,
            version: 0,
            total: created.total,
            currency: created.currency.clone(),
            refunded: 0,
            body_digest: created.body_digest.clone(),
            lines: created.lines.iter().map(line).collect(),
            payment: RequestState::NotRequested,
            shipment: RequestState::NotRequested,
            goal: EndReason::Unspecified,
            is_stock_reserved: false,
            row: None,
        }
    }

    pub(crate) const fn is_final(&self) -> bool {
        matches!(
            self.status,
            Status::Delivered | Status::Cancelled | Status::Rejected
        )
    }

    /// Shipped or delivered: its total is charged and not refunded.
    pub(crate) const fn is_paid(&self) -> bool {
        matches!(self.status, Status::Shipped | Status::Delivered)
    }

    /// Finished without a delivery.
    pub(crate) const fn is_undone(&self) -> bool {
        matches!(self.status, Status::Cancelled | Status::Rejected)
    }

    fn advance_line(&mut self, sku: &str, from: &[LineState], to: LineState) -> bool {
        let line = self
            .lines
            .iter_mut()
            .find(|(known, _, line)| known == sku && from.contains(line));
        line.map(|(_, _, line)| *line = to).is_some()
    }

    fn has_released_all(&self) -> bool {
        self.payment != RequestState::Open
            && self.shipment != RequestState::Open
            && self
                .lines
                .iter()
                .all(|(_, _, line)| matches!(line, LineState::Refused | LineState::Released))
    }

    /// Applies an event, also an invalid one as far as possible. The error is the text of the finding.
    fn apply(&mut self, event: &Event) -> Result<(), String> {
        use Status::{AwaitingPayment, Cancelled, Cancelling, Confirmed, Delivered, Pending};
        use Status::{Rejected, Shipped};
        let status = self.status;
        let allow = |allowed: bool, why: &str| {
            if allowed {
                Ok(())
            } else {
                Err(format!(
                    "{} while {}: {why}",
                    event.kind(),
                    status_name(status)
                ))
            }
        };
        match event {
            Event::OrderCreated(_) => allow(false, "it is created already"),
            Event::OrderLineReserved(event) => {
                let is_line =
                    self.advance_line(&event.sku, &[LineState::Requested], LineState::Reserved);
                allow(status == Pending && is_line, "no such line waits")
            }
            Event::OrderLineRefused(event) => {
                let is_line =
                    self.advance_line(&event.sku, &[LineState::Requested], LineState::Refused);
                allow(status == Pending && is_line, "no such line waits")
            }
            Event::OrderStockReserved(_) => {
                let all = self
                    .lines
                    .iter()
                    .all(|(_, _, line)| *line == LineState::Reserved);
                let is_first = !self.is_stock_reserved;
                self.is_stock_reserved = true;
                if self.total > 0 {
                    self.status = AwaitingPayment;
                    self.payment = RequestState::Open;
                }
                allow(
                    status == Pending && all && is_first,
                    "not every line is reserved",
                )
            }
            Event::OrderConfirmed(_) => {
                self.status = Confirmed;
                self.shipment = RequestState::Open;
                let is_due = if self.total > 0 {
                    status == AwaitingPayment
                } else {
                    status == Pending && self.is_stock_reserved
                };
                allow(is_due, "it is not reserved and paid")
            }
            Event::OrderPaymentDeclined(_) => {
                let is_due = status == AwaitingPayment && self.payment == RequestState::Open;
                self.payment = RequestState::Closed;
                allow(is_due, "no payment waits")
            }
            Event::OrderShipped(_) => {
                let is_due =
                    matches!(status, Confirmed | Cancelling) && self.shipment == RequestState::Open;
                self.status = Shipped;
                self.goal = EndReason::Unspecified;
                allow(is_due, "no shipment waits")
            }
            Event::OrderShipmentRefused(_) => {
                let is_due =
                    matches!(status, Confirmed | Cancelling) && self.shipment == RequestState::Open;
                self.shipment = RequestState::Closed;
                allow(is_due, "no shipment waits")
            }
            Event::OrderDelivered(_) => {
                self.status = Delivered;
                allow(status == Shipped, "it is not on its way")
            }
            Event::OrderFlaggedLate(_) => allow(status == Shipped, "it is not on its way"),
            Event::OrderCancelling(event) => {
                self.goal = event.goal();
                self.status = Cancelling;
                let has_refused = self
                    .lines
                    .iter()
                    .any(|(_, _, line)| *line == LineState::Refused);
                let is_due = match event.goal() {
                    EndReason::Customer | EndReason::Expired => {
                        matches!(status, Pending | AwaitingPayment | Confirmed)
                    }
                    EndReason::OutOfStock => status == Pending && has_refused,
                    EndReason::PaymentDeclined => {
                        status == AwaitingPayment && self.payment == RequestState::Closed
                    }
                    EndReason::Undeliverable => {
                        status == Confirmed && self.shipment == RequestState::Closed
                    }
                    EndReason::Unspecified => false,
                };
                allow(is_due, "there is no such reason")
            }
            Event::OrderShipmentCancelled(_) => {
                let is_due = status == Cancelling && self.shipment == RequestState::Open;
                self.shipment = RequestState::Closed;
                allow(is_due, "no shipment waits")
            }
            Event::OrderLineReleased(event) => {
                let held = [LineState::Requested, LineState::Reserved];
                let is_line = self.advance_line(&event.sku, &held, LineState::Released);
                let is_due = status == Cancelling && self.shipment != RequestState::Open && is_line;
                allow(is_due, "no such line is to be released")
            }
            Event::OrderPaymentCancelled(event) => {
                let is_due = status == Cancelling
                    && self.shipment != RequestState::Open
                    && self.payment == RequestState::Open;
                self.payment = RequestState::Closed;
                self.refunded = self.refunded.saturating_add(event.refunded);
                allow(is_due, "no payment is to be cancelled")
            }
            Event::OrderCancelled(_) => {
                self.status = Cancelled;
                let is_due = status == Cancelling && self.goal == EndReason::Customer;
                allow(is_due && self.has_released_all(), "something is still held")
            }
            Event::OrderRejected(event) => {
                self.status = Rejected;
                let is_due = status == Cancelling
                    && self.goal != EndReason::Customer
                    && self.goal == event.reason();
                allow(
                    is_due && self.has_released_all(),
                    "something is still held, or for no such reason",
                )
            }
        }
    }
}

fn status_name(status: Status) -> String {
    let name = status.as_str_name().trim_start_matches("ORDER_STATUS_");
    name.to_ascii_lowercase()
}

/// Σ quantity × unit price − discount, in minor units.
fn lines_total(created: &OrderCreated) -> i128 {
    let line = |line: &contracts::orders::v1::OrderLine| {
        i128::from(line.quantity) * i128::from(line.unit_price) - i128::from(line.discount)
    };
    created.lines.iter().map(line).sum()
}

impl ReferenceModel for Orders {
    fn apply_event(context: &mut AuditContext, at: &EventContext<'_>, event: &Event) {
        let AuditContext {
            aggregates,
            findings,
            ..
        } = context;
        let lifecycle = aggregates.lifecycle_mut(at);
        findings.checked(Invariant::I14);
        match (&mut lifecycle.order, event) {
            (order @ None, Event::OrderCreated(created)) => {
                *order = Some(OrderModel::new(created));
                findings.checked(Invariant::I11);
                if lines_total(created) != i128::from(created.total) {
                    let wrong = format!(
                        "its total is {}, its lines are worth {}",
                        created.total,
                        lines_total(created)
                    );
                    findings.violated(Invariant::I11, at.example(wrong));
                }
                context.clients.check_created(findings, at, created);
            }
            (None, _) => {
                let wrong = format!("{} of an order that was never created", event.kind());
                findings.violated(Invariant::I14, at.example(wrong));
                return;
            }
            (Some(order), event) => {
                if let Err(wrong) = order.apply(event) {
                    findings.violated(Invariant::I14, at.example(wrong));
                }
            }
        }
        let Some(order) = &mut lifecycle.order else {
            return;
        };
        order.version = at.version;
        if matches!(event, Event::OrderShipped(_)) {
            for (sku, pieces, _) in &order.lines {
                context.shipped.add(sku, *pieces);
            }
        }
        if at.is_applied
            && let Ok(order_id) = Uuid::try_parse(at.id)
        {
            order.row = updated_row(order.row.take(), order_id, at, event);
            for row in inserted_rows(order_id, at, event) {
                context.read_model.expect(row);
            }
        }
        aggregates.queue_if_finished(at.id);
    }

    fn check_business_outcome(context: &mut AuditContext, processed: &ProcessedCommand<'_, Self>) {
        let id = processed.metadata.aggregate_id.as_str();
        let Command::PlaceOrder(request) = processed.command else {
            return;
        };
        let may_be_evicted = context
            .aggregates
            .may_be_evicted(processed.topic_partition.partition, id);
        let findings = &mut context.findings;
        let example = |wrong: &str| {
            Example::new(wrong)
                .at(processed.topic_partition, processed.offset)
                .of_aggregate(id)
        };
        let existing = context
            .aggregates
            .lifecycles
            .get(id)
            .and_then(|lifecycle| lifecycle.order.as_ref());
        let is_same = existing
            .map(|order| order.body_digest == Sha256::digest(request.encode_to_vec()).to_vec());
        if existing.is_some() {
            findings.checked(Invariant::I13);
        }
        match processed.outcome {
            Some(Outcome::Accepted(_)) => {
                if existing.is_none() && may_be_evicted {
                    // The worker may hold it for longer than this audit.
                    findings.unchecked(Invariant::I2);
                    return;
                }
                findings.checked(Invariant::I2);
                if existing.is_none() {
                    let wrong = "PlaceOrder was accepted, and there is no such order";
                    findings.violated(Invariant::I2, example(wrong));
                }
                if is_same == Some(false) {
                    let wrong = "PlaceOrder was accepted although its id is taken by another body";
                    findings.violated(Invariant::I13, example(wrong));
                }
            }
            Some(Outcome::Rejection(rejection)) => {
                findings.checked(Invariant::I2);
                if is_same == Some(true) && rejection.code() == OrderRejectionCode::IdReused {
                    let wrong =
                        "PlaceOrder was repeated with the same body and refused as another one";
                    findings.violated(Invariant::I13, example(wrong));
                }
                if processed.events > 0 {
                    let wrong = "PlaceOrder was refused, and has events";
                    findings.violated(Invariant::I2, example(wrong));
                }
            }
            Some(Outcome::Parked(_)) | None => {}
        }
        if processed.events > 0 && is_same == Some(false) {
            let wrong = "an order was created from another body than its command's";
            findings.violated(Invariant::I13, example(wrong));
        }
    }

    fn clear_deadlines(event: &mut Event) {
        match event {
            Event::OrderCreated(event) => event.deadline_ms = 0,
            Event::OrderStockReserved(event) => event.deadline_ms = 0,
            Event::OrderConfirmed(event) => event.deadline_ms = 0,
            Event::OrderShipped(event) => event.deadline_ms = 0,
            _ => {}
        }
    }

    fn is_known(context: &AuditContext, id: &str) -> bool {
        let lifecycle = context.aggregates.lifecycles.get(id);
        lifecycle.is_some_and(|lifecycle| lifecycle.order.is_some())
    }
}

/// The row after an event.
fn updated_row(
    before: Option<OrderRow>,
    order_id: Uuid,
    at: &EventContext<'_>,
    event: &Event,
) -> Option<OrderRow> {
    let mut row = match (before, event) {
        (Some(row), _) => row,
        (None, Event::OrderCreated(created)) => OrderRow {
            order_id,
            status: Status::Pending as i16,
            end_reason: 0,
            customer_id: created.customer_id.clone(),
            total: created.total,
            currency: created.currency.clone(),
            line_count: i32::try_from(created.lines.len()).unwrap_or(i32::MAX),
            placed_at: at.row_time(),
            confirmed_at: None,
            updated_at: 0,
            version: 0,
            tracking_number: String::new(),
            refunded: 0,
            late: false,
        },
        (None, _) => return None,
    };
    row.version = at.row_version();
    row.updated_at = at.row_time();
    let reason = |reason: i32| i16::try_from(reason).unwrap_or(i16::MAX);
    let (status, end_reason) = match event {
        Event::OrderStockReserved(_) => (Some(Status::AwaitingPayment), None),
        Event::OrderConfirmed(_) => (Some(Status::Confirmed), None),
        Event::OrderShipped(_) => (Some(Status::Shipped), Some(0)),
        Event::OrderDelivered(_) => (Some(Status::Delivered), None),
        Event::OrderCancelling(event) => (Some(Status::Cancelling), Some(reason(event.goal))),
        Event::OrderCancelled(_) => {
            let customer = EndReason::Customer as i32;
            (Some(Status::Cancelled), Some(reason(customer)))
        }
        Event::OrderRejected(event) => (Some(Status::Rejected), Some(reason(event.reason))),
        _ => (None, None),
    };
    row.status = status.map_or(row.status, |status| status as i16);
    row.end_reason = end_reason.unwrap_or(row.end_reason);
    match event {
        Event::OrderConfirmed(_) => row.confirmed_at = Some(at.row_time()),
        Event::OrderShipped(event) => row.tracking_number.clone_from(&event.tracking_number),
        Event::OrderPaymentCancelled(event) => {
            row.refunded = row.refunded.saturating_add(event.refunded);
        }
        Event::OrderFlaggedLate(_) => row.late = true,
        _ => {}
    }
    Some(row)
}

/// The rows that an event inserts and that never change.
fn inserted_rows<'a>(
    order_id: Uuid,
    at: &EventContext<'a>,
    event: &'a Event,
) -> impl Iterator<Item = Row> + 'a {
    let event_row = OrderEventRow {
        order_id,
        version: at.row_version(),
        partition: at.topic_partition.partition,
        offset: at.offset,
        time: at.row_time(),
        kind: event.kind().to_owned(),
        record: at.record.to_vec(),
    };
    let lines = match event {
        Event::OrderCreated(created) => created.lines.as_slice(),
        _ => &[],
    };
    let lines = (0..).zip(lines).map(move |(position, line)| {
        Row::OrderLine(OrderLineRow {
            order_id,
            position,
            sku: line.sku.clone(),
            quantity: line.quantity.into(),
            unit_price: line.unit_price,
            discount: line.discount,
            description: line.description.clone(),
        })
    });
    std::iter::once(Row::OrderEvent(event_row)).chain(lines)
}
