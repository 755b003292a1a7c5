//! Compares the partners' ledgers with the log, for each order and in total. For each order in a ledger a small entry
//! is kept until its lifecycle is checked.

use std::collections::{BTreeMap, HashMap};

use contracts::payments::v1::PaymentStatus;
use contracts::sandbox::v1::{LedgerBooking, LedgerPayment};
use contracts::shipping::v1::ShipmentStatus;

use crate::evidence::{Error, Evidence};
use crate::reference_model::{OrderLifecycle, OrderModel, PaymentModel, ShipmentModel};
use crate::report::{Example, Findings, Invariant};

/// Entries of the payment provider for one order.
#[derive(Clone, Debug, Default)]
struct ProviderTotals {
    charges: u32,
    charged: i64,
    refunds: u32,
    refunded: i64,
    declined: u32,
    voided: u32,
    currency: String,
    summary: EntrySummary,
}

/// Entries of the carrier for one order.
#[derive(Clone, Debug, Default)]
struct CarrierTotals {
    booked: u32,
    refused: u32,
    voided: u32,
    tracking_number: String,
    summary: EntrySummary,
}

/// What the entries of both ledgers have in common, for one order.
#[derive(Clone, Debug, Default)]
struct EntrySummary {
    /// Time of the first entry, in Unix milliseconds of the partner's clock.
    first_ms: Option<i64>,
    /// The invalid content of an entry.
    anomaly: Option<String>,
}

impl EntrySummary {
    fn add_time(&mut self, time_ms: i64) {
        self.first_ms = Some(
            self.first_ms
                .map_or(time_ms, |first_ms| first_ms.min(time_ms)),
        );
    }
}

/// Ledger entries of an order that is not in the log.
#[derive(Debug)]
pub(crate) struct UnmatchedLedgerEntry {
    pub(crate) id: String,
    pub(crate) wrong: String,
    /// Time of the first entry, in Unix milliseconds.
    pub(crate) time_ms: i64,
}

/// Totals of one currency, in minor units.
#[derive(Clone, Copy, Debug, Default)]
struct CurrencyTotals {
    charged: i128,
    refunded: i128,
    /// Sum of the totals of paid orders.
    paid_orders: i128,
}

/// The ledgers and the totals by currency.
#[derive(Debug, Default)]
pub(crate) struct LedgerReconciliation {
    /// When the cut was begun, in Unix milliseconds. Later entries are beyond the cut.
    cut_ms: i64,
    payments: Option<HashMap<String, ProviderTotals>>,
    bookings: Option<HashMap<String, CarrierTotals>>,
    totals: BTreeMap<String, CurrencyTotals>,
}

type Violations = Vec<(Invariant, String)>;

fn order_of(key: &str) -> &str {
    key.split_once('/').map_or(key, |(order_id, _)| order_id)
}

impl LedgerReconciliation {
    pub(crate) fn read(evidence: &impl Evidence) -> Result<Self, Error> {
        let mut ledgers = Self {
            cut_ms: evidence.cut().begun_ms,
            ..Self::default()
        };
        if let Some(entries) = evidence.payments()? {
            let mut payments = HashMap::new();
            for entry in entries {
                add_payment(&mut payments, entry?);
            }
            ledgers.payments = Some(payments);
        }
        if let Some(entries) = evidence.bookings()? {
            let mut bookings = HashMap::new();
            for entry in entries {
                add_booking(&mut bookings, entry?);
            }
            ledgers.bookings = Some(bookings);
        }
        Ok(ledgers)
    }

    /// Compares the payment and the shipment of one lifecycle with the ledgers.
    pub(crate) fn reconcile(
        &mut self,
        findings: &mut Findings,
        id: &str,
        lifecycle: &OrderLifecycle,
    ) -> Violations {
        let mut violations = Violations::new();
        let provider = self
            .payments
            .as_mut()
            .map(|payments| payments.remove(id).unwrap_or_default());
        let carrier = self
            .bookings
            .as_mut()
            .map(|bookings| bookings.remove(id).unwrap_or_default());
        findings.checked(Invariant::I3);
        let order = lifecycle.order.as_ref();
        let payment = lifecycle.payment.clone().unwrap_or_default();
        check_charged_once(order, &payment, &mut violations);
        let is_charge_awaited = !payment.is_finished()
            || payment.version == 0
                && order.is_some_and(|order| order.total > 0 && !order.is_final());
        if let Some(provider) = &provider {
            check_provider_ledger(&payment, provider, is_charge_awaited, &mut violations);
        }
        if let Some(carrier) = &carrier {
            let shipment = lifecycle.shipment.clone().unwrap_or_default();
            let is_awaited = !shipment.is_finished()
                || shipment.version == 0 && order.is_some_and(|order| !order.is_final());
            check_carrier_ledger(&shipment, carrier, is_awaited, &mut violations);
        }
        if let Some(order) = order
            && order.is_final()
            && payment.is_finished()
        {
            findings.checked(Invariant::I5);
            check_refunds(order, &payment, provider.as_ref(), &mut violations);
        }
        self.add_totals(order, &payment, provider.as_ref());
        violations
    }

    fn add_totals(
        &mut self,
        order: Option<&OrderModel>,
        payment: &PaymentModel,
        provider: Option<&ProviderTotals>,
    ) {
        let amount = i128::from(payment.amount.minor_units);
        let (charged, refunded, currency) = match provider {
            Some(provider) => (
                provider.charged.into(),
                provider.refunded.into(),
                &provider.currency,
            ),
            None => (
                amount * i128::from(payment.captures),
                amount * i128::from(payment.refunds),
                &payment.amount.currency,
            ),
        };
        if charged != 0 || refunded != 0 {
            let totals = self.totals.entry(currency.clone()).or_default();
            totals.charged += charged;
            totals.refunded += refunded;
        }
        if let Some(order) = order
            && order.is_paid()
            && order.total != 0
        {
            let totals = self.totals.entry(order.currency.clone()).or_default();
            totals.paid_orders += i128::from(order.total);
        }
    }

    /// Ledger entries of orders that are not in the log.
    pub(crate) fn unmatched_entries(
        &mut self,
        findings: &mut Findings,
    ) -> Vec<UnmatchedLedgerEntry> {
        let payments = self.payments.take().unwrap_or_default();
        let bookings = self.bookings.take().unwrap_or_default();
        let cut_ms = self.cut_ms;
        // An order that was placed after the cut cannot be checked.
        let mut within_cut = |summary: &EntrySummary| {
            let time_ms = summary.first_ms.filter(|first_ms| *first_ms <= cut_ms);
            if time_ms.is_none() {
                findings.unchecked(Invariant::I3);
            }
            time_ms
        };
        let mut unmatched = Vec::new();
        for (id, provider) in payments {
            let Some(time_ms) = within_cut(&provider.summary) else {
                continue;
            };
            let wrong = format!(
                "the provider's ledger has {} charges and {} refunds of it, the log has no such order",
                provider.charges, provider.refunds
            );
            let totals = self.totals.entry(provider.currency).or_default();
            totals.charged += i128::from(provider.charged);
            totals.refunded += i128::from(provider.refunded);
            unmatched.push(UnmatchedLedgerEntry { id, wrong, time_ms });
        }
        for (id, carrier) in bookings {
            let Some(time_ms) = within_cut(&carrier.summary) else {
                continue;
            };
            let wrong = "the carrier's ledger has a booking of it, the log has no such order";
            unmatched.push(UnmatchedLedgerEntry {
                id,
                wrong: wrong.to_owned(),
                time_ms,
            });
        }
        unmatched.sort_by(|left, right| (&left.id, &left.wrong).cmp(&(&right.id, &right.wrong)));
        unmatched
    }

    /// Checks the totals of each currency. They balance only at rest.
    pub(crate) fn check_totals(&self, findings: &mut Findings, at_rest: bool) {
        if !at_rest {
            findings.note(
                Invariant::I11,
                "order by order only: the sums balance at rest, and orders are under way",
            );
            return;
        }
        for (currency, totals) in &self.totals {
            findings.checked(Invariant::I11);
            if totals.charged - totals.refunded != totals.paid_orders {
                let wrong = format!(
                    "{currency}: {} charged less {} refunded is not the {} that paid orders are worth",
                    totals.charged, totals.refunded, totals.paid_orders
                );
                findings.violated(Invariant::I11, Example::new(wrong));
            }
        }
    }
}

fn add_payment(payments: &mut HashMap<String, ProviderTotals>, entry: LedgerPayment) {
    let provider = payments
        .entry(order_of(&entry.idempotency_key).to_owned())
        .or_default();
    let amount = entry.amount.unwrap_or_default();
    provider.summary.add_time(entry.time_ms);
    match entry.kind.as_str() {
        "charged" => {
            provider.charges += 1;
            provider.charged = provider.charged.saturating_add(amount.minor_units);
            provider.currency = amount.currency;
        }
        "refunded" => {
            provider.refunds += 1;
            provider.refunded = provider.refunded.saturating_add(amount.minor_units);
            // The ledger has the charge before its refund.
            if amount.currency != provider.currency {
                let anomaly = format!(
                    "refunded {}, and had charged {}",
                    amount.currency, provider.currency
                );
                provider.summary.anomaly = Some(anomaly);
            }
        }
        "declined" => provider.declined += 1,
        "voided" => provider.voided += 1,
        "refund_refused" => {}
        kind => provider.summary.anomaly = Some(format!("has an entry of a kind {kind:?}")),
    }
}

fn add_booking(bookings: &mut HashMap<String, CarrierTotals>, entry: LedgerBooking) {
    let carrier = bookings
        .entry(order_of(&entry.idempotency_key).to_owned())
        .or_default();
    carrier.summary.add_time(entry.time_ms);
    match entry.kind.as_str() {
        "booked" => {
            carrier.booked += 1;
            carrier.tracking_number = entry.tracking_number;
        }
        "refused" => carrier.refused += 1,
        "voided" => carrier.voided += 1,
        kind => carrier.summary.anomaly = Some(format!("has an entry of a kind {kind:?}")),
    }
}

/// Checks the charge by the log alone.
fn check_charged_once(
    order: Option<&OrderModel>,
    payment: &PaymentModel,
    violations: &mut Violations,
) {
    if payment.captures > 1 {
        violations.push((Invariant::I3, format!("charged {} times", payment.captures)));
    }
    let amount = &payment.amount;
    match order {
        None if payment.captures > 0 => {
            violations.push((Invariant::I3, "charged, and there is no such order".into()));
        }
        Some(order)
            if payment.version > 0
                && !amount.currency.is_empty()
                && (amount.minor_units, &amount.currency) != (order.total, &order.currency) =>
        {
            let wrong = format!(
                "{} {} asked for an order of {} {}",
                amount.minor_units, amount.currency, order.total, order.currency
            );
            violations.push((Invariant::I3, wrong));
        }
        _ => {}
    }
    if let Some(order) = order
        && order.is_paid()
        && order.total > 0
        && payment.captures == 0
    {
        violations.push((Invariant::I11, "shipped, and never charged".into()));
    }
}

/// The ledger is read after the log: it has every call that the log records. The log records every entry, or waits for
/// its answer.
fn check_provider_ledger(
    payment: &PaymentModel,
    provider: &ProviderTotals,
    is_awaited: bool,
    violations: &mut Violations,
) {
    let mut wrong = |wrong: String| violations.push((Invariant::I3, wrong));
    let amount = &payment.amount;
    if let Some(anomaly) = &provider.summary.anomaly {
        wrong(format!("the provider's ledger {anomaly}"));
    }
    if provider.charges > 1 {
        wrong(format!(
            "the provider's ledger has {} charges",
            provider.charges
        ));
    }
    if payment.captures > provider.charges {
        wrong("the log has a charge that the provider's ledger lacks".into());
    }
    if provider.charges > payment.captures && !is_awaited {
        wrong("the provider's ledger has a charge that the log lacks".into());
    }
    let charged = i64::from(provider.charges).saturating_mul(amount.minor_units);
    if provider.charges > 0
        && payment.version > 0
        && (provider.charged != charged || provider.currency != amount.currency)
    {
        wrong(format!(
            "the provider's ledger charged {} {}, the log asked for {} {}",
            provider.charged, provider.currency, amount.minor_units, amount.currency
        ));
    }
    if payment.refunds > provider.refunds {
        wrong("the log has a refund that the provider's ledger lacks".into());
    }
    if provider.refunds > payment.refunds && !is_awaited {
        wrong("the provider's ledger has a refund that the log lacks".into());
    }
    if payment.status == PaymentStatus::Declined && provider.declined == 0 {
        wrong("the log has a refusal that the provider's ledger lacks".into());
    }
    let refusals = u32::from(payment.status == PaymentStatus::Declined);
    if provider.declined > refusals && !is_awaited {
        wrong("the provider's ledger has a refusal that the log lacks".into());
    }
    if payment.status == PaymentStatus::Voided && provider.voided == 0 {
        wrong("the log has a void that the provider's ledger lacks".into());
    }
}

fn check_carrier_ledger(
    shipment: &ShipmentModel,
    carrier: &CarrierTotals,
    is_awaited: bool,
    violations: &mut Violations,
) {
    let mut wrong = |wrong: &str| violations.push((Invariant::I3, wrong.to_owned()));
    let is_dispatched = matches!(
        shipment.status,
        ShipmentStatus::Dispatched | ShipmentStatus::Delivered
    );
    if let Some(anomaly) = &carrier.summary.anomaly {
        wrong(&format!("the carrier's ledger {anomaly}"));
    }
    if is_dispatched && (carrier.booked == 0 || carrier.tracking_number != shipment.tracking_number)
    {
        wrong("the log has a parcel that the carrier's ledger lacks");
    }
    if carrier.booked > 0 && !is_dispatched && !is_awaited {
        wrong("the carrier's ledger has a parcel that the log lacks");
    }
    if carrier.booked > 1 {
        wrong("the carrier's ledger has two parcels");
    }
    if shipment.status == ShipmentStatus::Refused && carrier.refused == 0 {
        wrong("the log has a refusal that the carrier's ledger lacks");
    }
    if shipment.status == ShipmentStatus::Cancelled && carrier.voided == 0 {
        wrong("the log has a void that the carrier's ledger lacks");
    }
}

/// Checks the refunds of a finished order.
fn check_refunds(
    order: &OrderModel,
    payment: &PaymentModel,
    provider: Option<&ProviderTotals>,
    violations: &mut Violations,
) {
    let mut wrong = |wrong: String| violations.push((Invariant::I5, wrong));
    if order.is_undone() {
        if payment.refunds != payment.captures {
            wrong(format!(
                "undone, charged {} times and refunded {} times",
                payment.captures, payment.refunds
            ));
        }
        let refunded = payment
            .amount
            .minor_units
            .saturating_mul(payment.refunds.into());
        if order.refunded != refunded {
            wrong(format!(
                "undone, its events say {} refunded, the payment says {refunded}",
                order.refunded
            ));
        }
        if let Some(provider) = provider
            && (provider.refunded != provider.charged || provider.refunds > 1)
        {
            wrong(format!(
                "undone, the provider charged {} and refunded {} in {} refunds",
                provider.charged, provider.refunded, provider.refunds
            ));
        }
    } else {
        if payment.refunds > 0 || order.refunded != 0 {
            wrong("delivered, and refunded".into());
        }
        if let Some(provider) = provider
            && provider.refunds > 0
        {
            wrong("delivered, and refunded by the provider".into());
        }
    }
}
