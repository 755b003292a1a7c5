//! The summary of an order, computed from its events. Pure.

use std::collections::BTreeMap;

use contracts::inventory::v1::stock_event::Event as StockEvent;
use contracts::orders::v1::order_event::Event as OrderEvent;
use contracts::orders::v1::{EndReason, OrderStatus};
use contracts::payments::v1::payment_event::Event as PaymentEvent;
use contracts::rules::is_final;
use engine::{Decider as _, State};
use orders::OrderRules;
use serde::Serialize;
use terminal::{Align, Table, count, duration_ms, end_reason, enum_text, money};

use super::timeline::{Event, EventBody};

/// Status, money, stock and durations of an order. The fields are keys of `--json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The status, such as `awaiting payment`.
    pub status: String,
    /// Why the order is cancelled or rejected; empty when it is neither.
    pub end_reason: String,
    /// Version of the order.
    pub version: u64,
    /// Whether the order was not delivered by its deadline.
    pub late: bool,
    /// Currency of all amounts.
    pub currency: String,
    /// Total in minor units.
    pub total: i64,
    /// Charged minor units.
    pub charged: i64,
    /// Refunded minor units.
    pub refunded: i64,
    /// Stock movements by product.
    pub stock: Vec<Stock>,
    /// How long the order was in each status, in order of time.
    pub steps: Vec<StatusPeriod>,
}

/// The movements of one product for the order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stock {
    /// The product.
    pub sku: String,
    /// Reserved pieces.
    pub reserved: u64,
    /// Released pieces.
    pub released: u64,
    /// Deducted pieces.
    pub deducted: u64,
}

/// The time that the order spent in one status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StatusPeriod {
    /// The status.
    pub status: String,
    /// Duration in milliseconds; `None` for the current status.
    pub ms: Option<i64>,
}

impl Summary {
    /// Computes the summary. The events of the order must be in the order of their versions, the others may be in any.
    pub fn of(events: &[Event]) -> Self {
        let mut summary = Self::default();
        let mut order = State::<OrderRules>::default();
        let mut entered: Vec<(OrderStatus, i64)> = Vec::new();
        let mut stock: BTreeMap<&str, Stock> = BTreeMap::new();
        let mut amount = 0;
        for event in events {
            match &event.body {
                EventBody::Order(body) => {
                    OrderRules::evolve(&mut order, body);
                    summary.version = event.version;
                    if let OrderEvent::OrderCancelling(cancelling) = body {
                        summary.end_reason = end_reason(cancelling.goal());
                    }
                    if entered.last().map(|(status, _)| *status) != Some(order.status()) {
                        entered.push((order.status(), event.time_ms));
                    }
                }
                EventBody::Stock(body) => {
                    let stock = stock.entry(&event.aggregate_id).or_default();
                    match body {
                        StockEvent::StockReserved(reserved) => {
                            stock.reserved += u64::from(reserved.quantity);
                        }
                        StockEvent::StockReleased(released) => {
                            stock.released += u64::from(released.quantity);
                        }
                        StockEvent::StockDeducted(deducted) => {
                            stock.deducted += u64::from(deducted.quantity);
                        }
                        StockEvent::StockRefused(_) | StockEvent::StockAdjusted(_) => {}
                    }
                }
                EventBody::Payment(body) => match body {
                    PaymentEvent::PaymentRequested(requested) => {
                        amount = requested
                            .amount
                            .as_ref()
                            .map_or(0, |amount| amount.minor_units);
                    }
                    PaymentEvent::PaymentProcessed(_) => summary.charged += amount,
                    PaymentEvent::PaymentRefundRequested(refund) if refund.captured => {
                        summary.charged += amount;
                    }
                    PaymentEvent::PaymentRefunded(_) => summary.refunded += amount,
                    _ => {}
                },
                EventBody::Shipment(_) | EventBody::Unknown(_) => {}
            }
        }
        // A cancellation that came too late has no effect.
        if order.goal() == EndReason::Unspecified {
            summary.end_reason.clear();
        }
        summary.status = status(order.status());
        summary.late = order.late;
        summary.total = order.total;
        summary.currency = order.currency;
        summary.stock = stock
            .into_iter()
            .map(|(sku, stock)| Stock {
                sku: sku.to_owned(),
                ..stock
            })
            .collect();
        summary.steps = status_periods(&entered);
        summary
    }
}

/// One period from entering a status to entering the next. A final status has no period.
fn status_periods(entered: &[(OrderStatus, i64)]) -> Vec<StatusPeriod> {
    let mut status_periods: Vec<_> = entered
        .windows(2)
        .map(|pair| StatusPeriod {
            status: status(pair[0].0),
            ms: Some(pair[1].1 - pair[0].1),
        })
        .collect();
    let open = entered.last().filter(|(status, _)| !is_final(*status));
    status_periods.extend(open.map(|(last, _)| StatusPeriod {
        status: status(*last),
        ms: None,
    }));
    status_periods
}

impl StatusPeriod {
    fn text(&self) -> String {
        let took = self.ms.map_or("until now".to_owned(), duration_ms);
        format!("{} {took}", self.status)
    }
}

fn status(status: OrderStatus) -> String {
    enum_text(status.as_str_name(), "ORDER_STATUS_")
}

impl std::fmt::Display for Summary {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut table = Table::new([("", Align::Left), ("", Align::Left)]);
        let mut status = self.status.clone();
        if !self.end_reason.is_empty() {
            status.push_str(&format!(", {}", self.end_reason));
        }
        if self.late {
            status.push_str(", late");
        }
        table.row([
            "status".into(),
            format!("{status}, version {}", self.version),
        ]);
        table.row([
            "money".into(),
            format!(
                "{} charged, {} given back, of a total of {}",
                money(self.charged, &self.currency),
                money(self.refunded, &self.currency),
                money(self.total, &self.currency)
            ),
        ]);
        for (number, stock) in self.stock.iter().enumerate() {
            let title = if number == 0 { "stock" } else { "" };
            table.row([
                title.into(),
                format!(
                    "{}: {} reserved, {} released, {} deducted",
                    stock.sku,
                    count(stock.reserved),
                    count(stock.released),
                    count(stock.deducted)
                ),
            ]);
        }
        let steps: Vec<_> = self.steps.iter().map(StatusPeriod::text).collect();
        table.row(["steps".into(), steps.join(", ")]);
        write!(formatter, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use contracts::core::v1::Money;
    use contracts::inventory::v1::{StockReleased, StockReserved};
    use contracts::orders::v1::{
        OrderCancelled, OrderCancelling, OrderCreated, OrderLine, OrderLineReserved,
        OrderPaymentCancelled, OrderStockReserved,
    };
    use contracts::payments::v1::{PaymentRefundRequested, PaymentRefunded, PaymentRequested};

    use super::*;

    fn events_of(events: impl IntoIterator<Item = (&'static str, i64, EventBody)>) -> Vec<Event> {
        events
            .into_iter()
            .zip(1..)
            .map(|((aggregate_id, time_ms, body), version)| Event {
                id: version.to_string(),
                aggregate_id: aggregate_id.into(),
                version,
                time_ms,
                command_id: String::new(),
                actor: String::new(),
                body,
            })
            .collect()
    }

    fn placed_and_reserved() -> Vec<(&'static str, i64, EventBody)> {
        let line = OrderLine {
            sku: "mug".into(),
            quantity: 2,
            unit_price: 150,
            ..Default::default()
        };
        let created = OrderCreated {
            lines: vec![line],
            currency: "EUR".into(),
            total: 300,
            deadline_ms: 1,
            ..Default::default()
        };
        let reserved = StockReserved {
            quantity: 2,
            ..Default::default()
        };
        let line = OrderLineReserved { sku: "mug".into() };
        vec![
            ("o", 0, EventBody::Order(OrderEvent::OrderCreated(created))),
            (
                "mug",
                5,
                EventBody::Stock(StockEvent::StockReserved(reserved)),
            ),
            (
                "o",
                9,
                EventBody::Order(OrderEvent::OrderLineReserved(line)),
            ),
            (
                "o",
                9,
                EventBody::Order(OrderEvent::OrderStockReserved(OrderStockReserved {
                    deadline_ms: 2,
                })),
            ),
        ]
    }

    #[test]
    fn the_current_status_of_an_open_order_has_no_duration() {
        let summary = Summary::of(&events_of(placed_and_reserved()));
        assert_eq!(
            (summary.status.as_str(), summary.total),
            ("awaiting payment", 300)
        );
        assert_eq!(
            summary.steps,
            [
                StatusPeriod {
                    status: "pending".into(),
                    ms: Some(9)
                },
                StatusPeriod {
                    status: "awaiting payment".into(),
                    ms: None
                },
            ]
        );
    }

    #[test]
    fn a_cancelled_order_has_its_money_refunded_and_its_stock_released() {
        let mut events = placed_and_reserved();
        let cancelling = OrderCancelling {
            goal: EndReason::Customer.into(),
        };
        let amount = Some(Money {
            minor_units: 300,
            currency: "EUR".into(),
        });
        let requested = PaymentRequested {
            amount,
            ..Default::default()
        };
        let refund = PaymentRefundRequested {
            captured: true,
            ..Default::default()
        };
        let released = StockReleased {
            quantity: 2,
            ..Default::default()
        };
        events.extend([
            (
                "o",
                20,
                EventBody::Payment(PaymentEvent::PaymentRequested(requested)),
            ),
            (
                "o",
                30,
                EventBody::Order(OrderEvent::OrderCancelling(cancelling)),
            ),
            (
                "o",
                40,
                EventBody::Payment(PaymentEvent::PaymentRefundRequested(refund)),
            ),
            (
                "o",
                50,
                EventBody::Payment(PaymentEvent::PaymentRefunded(PaymentRefunded::default())),
            ),
            (
                "mug",
                50,
                EventBody::Stock(StockEvent::StockReleased(released)),
            ),
            (
                "o",
                60,
                EventBody::Order(OrderEvent::OrderPaymentCancelled(OrderPaymentCancelled {
                    refunded: 300,
                })),
            ),
            (
                "o",
                70,
                EventBody::Order(OrderEvent::OrderCancelled(OrderCancelled {})),
            ),
        ]);
        let summary = Summary::of(&events_of(events));
        assert_eq!(
            (summary.status.as_str(), summary.end_reason.as_str()),
            ("cancelled", "customer")
        );
        assert_eq!((summary.charged, summary.refunded), (300, 300));
        assert_eq!(
            summary.stock,
            [Stock {
                sku: "mug".into(),
                reserved: 2,
                released: 2,
                deducted: 0
            }]
        );
        let last = summary
            .steps
            .last()
            .map(|period| (period.status.as_str(), period.ms));
        assert_eq!(last, Some(("cancelling", Some(40))));
        let text = summary.to_string();
        assert!(
            text.contains("3.00 EUR charged, 3.00 EUR given back"),
            "{text}"
        );
    }
}
