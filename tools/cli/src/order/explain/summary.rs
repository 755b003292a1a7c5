//! What has become of an order, from its events. Pure.

use std::collections::BTreeMap;

use contracts::inventory::v1::stock_event::Event as StockEvent;
use contracts::orders::v1::order_event::Event as OrderEvent;
use contracts::orders::v1::{EndReason, OrderStatus};
use contracts::payments::v1::payment_event::Event as PaymentEvent;
use engine::{Decider as _, State};
use orders::OrderRules;
use serde::Serialize;

use super::timeline::{Event, Happened};
use terminal::{Align, Table, count, duration_ms, end_reason, money, plain};

/// What has become of an order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Such as `awaiting payment`.
    pub status: String,
    /// Why it is cancelled or rejected; empty when it is not.
    pub end_reason: String,
    /// The order's version.
    pub version: u64,
    /// Not delivered by its deadline.
    pub late: bool,
    /// Of all amounts.
    pub currency: String,
    /// Minor units that the order costs.
    pub total: i64,
    /// Minor units that were taken.
    pub charged: i64,
    /// Minor units that were given back.
    pub refunded: i64,
    /// What each of its products was asked for.
    pub stock: Vec<Stock>,
    /// How long the order stood in each status, in their order.
    pub steps: Vec<Stay>,
}

/// What became of a product's pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stock {
    /// The product.
    pub sku: String,
    /// Pieces that were set aside.
    pub reserved: u64,
    /// Pieces that were given back.
    pub released: u64,
    /// Pieces that left.
    pub deducted: u64,
}

/// A status that the order stood in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stay {
    /// Which status.
    pub status: String,
    /// How long, milliseconds; `None` when it still stands in it.
    pub ms: Option<i64>,
}

impl Summary {
    /// Of the order's own events in the order of their versions, and its neighbours' in any.
    pub fn of(events: &[Event]) -> Self {
        let mut summary = Self::default();
        let mut order = State::<OrderRules>::default();
        let mut entered: Vec<(OrderStatus, i64)> = Vec::new();
        let mut stock: BTreeMap<&str, Stock> = BTreeMap::new();
        let mut amount = 0;
        for event in events {
            match &event.happened {
                Happened::Order(happened) => {
                    OrderRules::evolve(&mut order, happened);
                    summary.version = event.version;
                    if let OrderEvent::OrderCancelling(cancelling) = happened {
                        summary.end_reason = end_reason(cancelling.goal());
                    }
                    if entered.last().map(|(status, _)| *status) != Some(order.status()) {
                        entered.push((order.status(), event.time_ms));
                    }
                }
                Happened::Stock(happened) => {
                    let stock = stock.entry(&event.aggregate_id).or_default();
                    match happened {
                        StockEvent::StockReserved(taken) => {
                            stock.reserved += u64::from(taken.quantity);
                        }
                        StockEvent::StockReleased(back) => {
                            stock.released += u64::from(back.quantity);
                        }
                        StockEvent::StockDeducted(gone) => {
                            stock.deducted += u64::from(gone.quantity);
                        }
                        StockEvent::StockRefused(_) | StockEvent::StockAdjusted(_) => {}
                    }
                }
                Happened::Payment(happened) => match happened {
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
                Happened::Shipment(_) | Happened::Newer(_) => {}
            }
        }
        // A cancellation that came too late is forgotten.
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
        summary.steps = stays(&entered);
        summary
    }
}

/// From entering one status to entering the next; a final status is none to stand in.
fn stays(entered: &[(OrderStatus, i64)]) -> Vec<Stay> {
    let mut stays: Vec<_> = entered
        .windows(2)
        .map(|pair| Stay {
            status: status(pair[0].0),
            ms: Some(pair[1].1 - pair[0].1),
        })
        .collect();
    let open = entered.last().filter(|(status, _)| {
        !matches!(
            status,
            OrderStatus::Delivered | OrderStatus::Cancelled | OrderStatus::Rejected
        )
    });
    stays.extend(open.map(|(last, _)| Stay {
        status: status(*last),
        ms: None,
    }));
    stays
}

impl Stay {
    fn text(&self) -> String {
        let took = self.ms.map_or("until now".to_owned(), duration_ms);
        format!("{} {took}", self.status)
    }
}

fn status(status: OrderStatus) -> String {
    plain(status.as_str_name(), "ORDER_STATUS_")
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
        let steps: Vec<_> = self.steps.iter().map(Stay::text).collect();
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

    fn told(events: impl IntoIterator<Item = (&'static str, i64, Happened)>) -> Vec<Event> {
        events
            .into_iter()
            .zip(1..)
            .map(|((aggregate_id, time_ms, happened), version)| Event {
                id: version.to_string(),
                aggregate_id: aggregate_id.into(),
                version,
                time_ms,
                command_id: String::new(),
                actor: String::new(),
                happened,
            })
            .collect()
    }

    fn placed_and_reserved() -> Vec<(&'static str, i64, Happened)> {
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
            ("o", 0, Happened::Order(OrderEvent::OrderCreated(created))),
            (
                "mug",
                5,
                Happened::Stock(StockEvent::StockReserved(reserved)),
            ),
            ("o", 9, Happened::Order(OrderEvent::OrderLineReserved(line))),
            (
                "o",
                9,
                Happened::Order(OrderEvent::OrderStockReserved(OrderStockReserved {
                    deadline_ms: 2,
                })),
            ),
        ]
    }

    #[test]
    fn an_open_order_stands_in_its_last_status() {
        let summary = Summary::of(&told(placed_and_reserved()));
        assert_eq!(
            (summary.status.as_str(), summary.total),
            ("awaiting payment", 300)
        );
        assert_eq!(
            summary.steps,
            [
                Stay {
                    status: "pending".into(),
                    ms: Some(9)
                },
                Stay {
                    status: "awaiting payment".into(),
                    ms: None
                },
            ]
        );
    }

    #[test]
    fn money_and_stock_of_a_cancelled_order_have_come_back() {
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
                Happened::Payment(PaymentEvent::PaymentRequested(requested)),
            ),
            (
                "o",
                30,
                Happened::Order(OrderEvent::OrderCancelling(cancelling)),
            ),
            (
                "o",
                40,
                Happened::Payment(PaymentEvent::PaymentRefundRequested(refund)),
            ),
            (
                "o",
                50,
                Happened::Payment(PaymentEvent::PaymentRefunded(PaymentRefunded::default())),
            ),
            (
                "mug",
                50,
                Happened::Stock(StockEvent::StockReleased(released)),
            ),
            (
                "o",
                60,
                Happened::Order(OrderEvent::OrderPaymentCancelled(OrderPaymentCancelled {
                    refunded: 300,
                })),
            ),
            (
                "o",
                70,
                Happened::Order(OrderEvent::OrderCancelled(OrderCancelled {})),
            ),
        ]);
        let summary = Summary::of(&told(events));
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
            .map(|stay| (stay.status.as_str(), stay.ms));
        assert_eq!(last, Some(("cancelling", Some(40))));
        let text = summary.to_string();
        assert!(
            text.contains("3.00 EUR charged, 3.00 EUR given back"),
            "{text}"
        );
    }
}
