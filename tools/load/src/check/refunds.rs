//! What came back: of every cancelled or rejected order all that was charged, of every delivered one nothing.

use uuid::Uuid;

use super::Check;
use super::ledger::{Payment, Payments};
use super::orders_log::{End, LoggedOrder, OrdersLog};
use crate::baskets::CURRENCY;
use terminal::{amount, count};

/// The provider's ledger against how each order ended. Orders that have not ended are for another check.
pub fn exact(log: &OrdersLog, kept: &Payments) -> Check {
    let (mut undone, mut back) = (0_usize, 0);
    let mut wrong: Vec<(Uuid, &str)> = Vec::new();
    for (order_id, order) in &log.orders {
        let paid = kept.get(&order_id.to_string()).cloned().unwrap_or_default();
        if order.end == Some(End::Undone) {
            undone += 1;
            back += paid.refunded;
        }
        wrong.extend(violation(order, &paid).map(|violation| (*order_id, violation)));
    }
    wrong.sort_unstable();
    let mut detail = format!(
        "{} given back to {} cancelled and rejected orders",
        amount(back, CURRENCY),
        count(undone)
    );
    if let Some((order_id, violation)) = wrong.first() {
        detail.push_str(&format!(
            "; {} orders are off, such as {order_id}: {violation}",
            count(wrong.len())
        ));
    }
    Check {
        name: "refunds are the charges of undone orders",
        passed: wrong.is_empty(),
        detail,
    }
}

fn violation(order: &LoggedOrder, paid: &Payment) -> Option<&'static str> {
    let Payment {
        charged, refunded, ..
    } = *paid;
    match order.end? {
        End::Delivered if refunded != 0 => Some("delivered, and money was given back"),
        End::Delivered if charged != order.total => Some("delivered, and not charged its total"),
        End::Undone if refunded < charged => Some("undone, and not all of its money came back"),
        End::Undone if refunded > charged => Some("undone, and more came back than was charged"),
        End::Undone if refunded != order.refunded => {
            Some("undone, and the order was told another refund")
        }
        End::Delivered | End::Undone => None,
    }
}

#[cfg(test)]
mod tests {
    use contracts::core::v1::Money;
    use contracts::sandbox::v1::LedgerPayment;

    use super::*;
    use crate::check::ledger::add_entry;

    fn order(end: End, refunded: i64) -> LoggedOrder {
        LoggedOrder {
            total: 5,
            end: Some(end),
            refunded,
            ..Default::default()
        }
    }

    /// One order, and what the ledger holds of it.
    fn checked(order: LoggedOrder, entries: &[(&str, i64)]) -> Check {
        let id = Uuid::now_v7();
        let mut log = OrdersLog::default();
        log.orders.insert(id, order);
        let mut kept = Payments::new();
        for (kind, minor_units) in entries {
            let entry = LedgerPayment {
                idempotency_key: format!("{id}/{kind}/1"),
                kind: (*kind).into(),
                amount: Some(Money {
                    minor_units: *minor_units,
                    currency: CURRENCY.into(),
                }),
                ..Default::default()
            };
            add_entry(&mut kept, entry);
        }
        exact(&log, &kept)
    }

    #[test]
    fn exact_books_pass() {
        for (order, entries) in [
            (order(End::Delivered, 0), &[("charged", 5)][..]),
            (order(End::Undone, 5), &[("charged", 5), ("refunded", 5)]),
            (order(End::Undone, 0), &[]),
            (order(End::Undone, 0), &[("declined", 5)]),
            // Not at rest: nothing can be said yet.
            (LoggedOrder::default(), &[("charged", 5)]),
        ] {
            let check = checked(order, entries);
            assert!(check.passed, "{check:?}");
        }
    }

    #[test]
    fn every_violation_is_found_and_named() {
        for (order, entries, named) in [
            (
                order(End::Delivered, 0),
                &[("charged", 5), ("refunded", 5)][..],
                "delivered, and money was given back",
            ),
            (
                order(End::Delivered, 0),
                &[],
                "delivered, and not charged its total",
            ),
            (
                order(End::Delivered, 0),
                &[("charged", 4)],
                "delivered, and not charged its total",
            ),
            (
                order(End::Undone, 0),
                &[("charged", 5)],
                "not all of its money came back",
            ),
            (
                order(End::Undone, 4),
                &[("charged", 5), ("refunded", 4)],
                "not all of its money came back",
            ),
            (
                order(End::Undone, 5),
                &[("charged", 5), ("refunded", 5), ("refunded", 5)],
                "more came back than was charged",
            ),
            (
                order(End::Undone, 5),
                &[("refunded", 5)],
                "more came back than was charged",
            ),
            (
                order(End::Undone, 0),
                &[("charged", 5), ("refunded", 5)],
                "told another refund",
            ),
        ] {
            let check = checked(order, entries);
            assert!(
                !check.passed && check.detail.contains(named),
                "{named}: {check:?}"
            );
        }
    }
}
