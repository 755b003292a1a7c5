//! Checks refunds: a cancelled or rejected order gets back exactly what it was charged, a delivered one nothing.

use terminal::{amount, count};
use uuid::Uuid;

use super::Check;
use super::ledger::{Payment, Payments};
use super::orders_log::{End, LoggedOrder, OrdersLog};
use crate::baskets::CURRENCY;

/// Compares the ledger of the payment provider with the end of each order. Orders that are not final are skipped;
/// another check reports them.
pub fn refunds_match(log: &OrdersLog, ledger: &Payments) -> Check {
    let (mut undone, mut refunded_units) = (0_usize, 0);
    let mut wrong: Vec<(Uuid, &str)> = Vec::new();
    for (order_id, order) in &log.orders {
        let payment = ledger
            .get(&order_id.to_string())
            .cloned()
            .unwrap_or_default();
        if order.end == Some(End::Undone) {
            undone += 1;
            refunded_units += payment.refunded;
        }
        wrong.extend(violation(order, &payment).map(|violation| (*order_id, violation)));
    }
    wrong.sort_unstable();
    let mut detail = format!(
        "{} given back to {} cancelled and rejected orders",
        amount(refunded_units, CURRENCY),
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

fn violation(order: &LoggedOrder, payment: &Payment) -> Option<&'static str> {
    let Payment {
        charged, refunded, ..
    } = *payment;
    match order.end? {
        End::Delivered if refunded != 0 => Some("delivered, and money was given back"),
        End::Delivered if charged != order.total => Some("delivered, and not charged its total"),
        End::Undone if refunded < charged => Some("undone, and not all of its money came back"),
        End::Undone if refunded > charged => Some("undone, and more came back than was charged"),
        End::Undone if refunded != order.refunded => {
            Some("undone, and the order recorded another refund")
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

    /// Checks one order against its ledger entries.
    fn checked(order: LoggedOrder, entries: &[(&str, i64)]) -> Check {
        let id = Uuid::now_v7();
        let mut log = OrdersLog::default();
        log.orders.insert(id, order);
        let mut ledger = Payments::new();
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
            add_entry(&mut ledger, entry);
        }
        refunds_match(&log, &ledger)
    }

    #[test]
    fn exact_refunds_pass() {
        for (order, entries) in [
            (order(End::Delivered, 0), &[("charged", 5)][..]),
            (order(End::Undone, 5), &[("charged", 5), ("refunded", 5)]),
            (order(End::Undone, 0), &[]),
            (order(End::Undone, 0), &[("declined", 5)]),
            // Not final: skipped.
            (LoggedOrder::default(), &[("charged", 5)]),
        ] {
            let check = checked(order, entries);
            assert!(check.passed, "{check:?}");
        }
    }

    #[test]
    fn every_violation_is_found_and_named() {
        for (order, entries, expected) in [
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
                "recorded another refund",
            ),
        ] {
            let check = checked(order, entries);
            assert!(
                !check.passed && check.detail.contains(expected),
                "{expected}: {check:?}"
            );
        }
    }
}
