//! Compares the ledger of the payment provider with the payments of the log.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use contracts::core::v1::Money;
use contracts::payments::v1::PaymentEvent;
use contracts::payments::v1::payment_event::Event;
use contracts::sandbox::v1::{LedgerPayment, ListPaymentsRequest};
use contracts::{Service, Topic};
use engine::{Cluster, Codec};
use platform_client::{retry, topic_reader};
use registry::Schemas;
use terminal::{amount, count};
use tonic::Request;

use super::{Check, Sources};
use crate::baskets::CURRENCY;

const LEDGER_TIMEOUT: Duration = Duration::from_secs(60);

/// Charges and refunds by order id.
pub type Payments = HashMap<String, Payment>;

/// Charges and refunds of one order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Payment {
    amount: Option<Money>,
    charges: u32,
    refunds: u32,
    declined: u32,
    /// Minor units charged.
    pub charged: i64,
    /// Minor units refunded.
    pub refunded: i64,
}

impl Payment {
    fn requested_units(&self) -> i64 {
        self.amount.as_ref().map_or(0, |money| money.minor_units)
    }

    const fn charge(&mut self, minor_units: i64) {
        self.charges += 1;
        self.charged += minor_units;
    }

    const fn refund(&mut self, minor_units: i64) {
        self.refunds += 1;
        self.refunded += minor_units;
    }

    const fn moved_money(&self) -> bool {
        self.charges + self.refunds > 0
    }
}

/// The provider's ledger holds exactly the charges and refunds of the log.
///
/// # Errors
///
/// The log cannot be read.
pub async fn matches_log(sources: &Sources, ledger: &Payments) -> anyhow::Result<Check> {
    let (cluster, schemas) = (Arc::clone(&sources.cluster), sources.schemas.clone());
    // The Kafka clients block.
    let logged = tokio::task::spawn_blocking(move || logged_payments(&cluster, schemas)).await??;
    Ok(compare(&logged, ledger))
}

fn compare(logged: &Payments, ledger: &Payments) -> Check {
    // A payment without a result is only in the log.
    let is_different = |(order_id, payment): &(&String, &Payment)| {
        let other = ledger.get(*order_id).cloned().unwrap_or_default();
        let counted = |payment: &Payment| (payment.charges, payment.refunds, payment.declined);
        let sums = |payment: &Payment| (payment.charged, payment.refunded);
        let currency =
            |payment: &Payment| payment.amount.as_ref().map(|money| money.currency.clone());
        counted(payment) != counted(&other)
            || sums(payment) != sums(&other)
            || payment.moved_money() && currency(payment) != currency(&other)
    };
    let only_in_ledger = ledger
        .keys()
        .filter(|order_id| !logged.contains_key(*order_id))
        .count();
    let different = logged.iter().filter(is_different).count() + only_in_ledger;
    let charged_twice = ledger
        .values()
        .filter(|payment| payment.charges > 1)
        .count();
    let sum =
        |payments: &Payments, of: fn(&Payment) -> i64| -> i64 { payments.values().map(of).sum() };
    let number = |payments: &Payments, times: fn(&Payment) -> u32| -> u32 {
        payments.values().map(times).sum()
    };
    let mut detail = format!(
        "{} charges, {}; {} refunds, {}; {} declined",
        count(number(ledger, |payment| payment.charges)),
        amount(sum(ledger, |payment| payment.charged), CURRENCY),
        count(number(ledger, |payment| payment.refunds)),
        amount(sum(ledger, |payment| payment.refunded), CURRENCY),
        count(number(ledger, |payment| payment.declined)),
    );
    if different > 0 {
        detail.push_str(&format!(
            "; {} payments differ, {} of them only in the ledger",
            count(different),
            count(only_in_ledger)
        ));
    }
    if charged_twice > 0 {
        detail.push_str(&format!(
            "; {} orders were charged twice",
            count(charged_twice)
        ));
    }
    Check {
        name: "provider's ledger is that of the log",
        passed: different == 0 && charged_twice == 0,
        detail,
    }
}

fn logged_payments(cluster: &Cluster, schemas: Schemas) -> anyhow::Result<Payments> {
    let codec = Codec::new(schemas);
    let mut payments = Payments::new();
    let ends = topic_reader::ends(cluster, Service::Payments, Topic::Events)?;
    topic_reader::read(cluster, Service::Payments, Topic::Events, &ends, |input| {
        let decoded = codec.decode::<PaymentEvent>(Service::Payments, Topic::Events, &input);
        let Ok((metadata, event)) = decoded else {
            bail!(
                "payments.events/{}@{}: {decoded:?}",
                input.partition,
                input.offset
            );
        };
        add_event(payments.entry(metadata.aggregate_id).or_default(), event);
        Ok(())
    })?;
    Ok(payments)
}

fn add_event(payment: &mut Payment, event: Event) {
    match event {
        Event::PaymentRequested(requested) => payment.amount = requested.amount,
        Event::PaymentProcessed(_) => payment.charge(payment.requested_units()),
        // The charge is reported only with the request to refund it.
        Event::PaymentRefundRequested(refund) if refund.captured => {
            payment.charge(payment.requested_units())
        }
        Event::PaymentRefunded(_) => payment.refund(payment.requested_units()),
        Event::PaymentDeclined(_) => payment.declined += 1,
        _ => {}
    }
}

/// Reads the ledger of the payment provider.
///
/// # Errors
///
/// The sandbox does not answer.
pub async fn ledger_payments(sources: &Sources) -> anyhow::Result<Payments> {
    let mut request = Request::new(ListPaymentsRequest {});
    request.set_timeout(LEDGER_TIMEOUT);
    let listing = sources.sandbox.clone().list_payments(request).await;
    let mut entries = listing
        .map_err(|status| anyhow::anyhow!(retry::describe(&status)))
        .context("the payment provider's ledger")?
        .into_inner();
    let mut payments = Payments::new();
    while let Some(entry) = entries
        .message()
        .await
        .context("the payment provider's ledger")?
    {
        add_entry(&mut payments, entry);
    }
    Ok(payments)
}

/// Adds a ledger entry. Idempotency keys begin with the order id.
pub fn add_entry(payments: &mut Payments, entry: LedgerPayment) {
    let (order_id, _) = entry
        .idempotency_key
        .split_once('/')
        .unwrap_or((&entry.idempotency_key, ""));
    let payment = payments.entry(order_id.to_owned()).or_default();
    let minor_units = entry.amount.as_ref().map_or(0, |money| money.minor_units);
    match entry.kind.as_str() {
        "charged" => {
            payment.charge(minor_units);
            payment.amount = entry.amount;
        }
        "refunded" => payment.refund(minor_units),
        "declined" => payment.declined += 1,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use contracts::payments::v1::{
        PaymentProcessed, PaymentRefundRequested, PaymentRefunded, PaymentRequested,
    };

    use super::*;

    fn money(minor_units: i64) -> Option<Money> {
        Some(Money {
            minor_units,
            currency: "USD".into(),
        })
    }

    fn entry(key: &str, kind: &str, minor_units: i64) -> LedgerPayment {
        LedgerPayment {
            idempotency_key: key.into(),
            kind: kind.into(),
            amount: money(minor_units),
            ..Default::default()
        }
    }

    fn ledger_of(entries: &[LedgerPayment]) -> Payments {
        let mut payments = Payments::new();
        entries
            .iter()
            .cloned()
            .for_each(|entry| add_entry(&mut payments, entry));
        payments
    }

    fn logged(events: &[(&str, Event)]) -> Payments {
        let mut payments = Payments::new();
        for (id, event) in events {
            add_event(payments.entry((*id).to_owned()).or_default(), event.clone());
        }
        payments
    }

    fn requested(minor_units: i64) -> Event {
        Event::PaymentRequested(PaymentRequested {
            amount: money(minor_units),
            ..Default::default()
        })
    }

    #[test]
    fn equal_ledgers_pass() {
        let log = logged(&[
            ("a", requested(5)),
            ("a", Event::PaymentProcessed(PaymentProcessed::default())),
            ("b", requested(7)),
            (
                "b",
                Event::PaymentRefundRequested(PaymentRefundRequested {
                    captured: true,
                    ..Default::default()
                }),
            ),
            ("b", Event::PaymentRefunded(PaymentRefunded::default())),
        ]);
        let ledger = [
            entry("a/charge/1", "charged", 5),
            entry("b/charge/1", "charged", 7),
            entry("b/refund/1", "refunded", 7),
        ];
        let check = compare(&log, &ledger_of(&ledger));
        assert!(check.passed, "{check:?}");
        assert!(
            check.detail.starts_with("2 charges, 0.12; 1 refunds, 0.07"),
            "{check:?}"
        );
    }

    #[test]
    fn every_difference_fails() {
        let log = logged(&[
            ("a", requested(5)),
            ("a", Event::PaymentProcessed(PaymentProcessed::default())),
        ]);
        let right = entry("a/charge/1", "charged", 5);
        for wrong in [
            vec![],
            vec![entry("a/charge/1", "charged", 6)],
            vec![entry("a/charge/1", "declined", 5)],
            vec![right.clone(), entry("a/charge/2", "charged", 5)],
            vec![right.clone(), entry("a/refund/1", "refunded", 5)],
            vec![LedgerPayment {
                amount: Some(Money {
                    minor_units: 5,
                    currency: "EUR".into(),
                }),
                ..right.clone()
            }],
            vec![right, entry("z/charge/1", "charged", 1)],
        ] {
            assert!(!compare(&log, &ledger_of(&wrong)).passed, "{wrong:?}");
        }
    }
}
