//! The partners' ledgers against the log, order by order, and the sums. Of each order in a ledger a small entry is kept
//! until its life is judged.

use std::collections::{BTreeMap, HashMap};

use contracts::payments::v1::PaymentStatus;
use contracts::sandbox::v1::{LedgerBooking, LedgerPayment};
use contracts::shipping::v1::ShipmentStatus;

use crate::evidence::{Error, Evidence};
use crate::reference_model::{OrderLifecycle, OrderModel, PaymentModel, ShipmentModel};
use crate::report::{Example, Findings, Invariant};

/// What the payment provider did for one order.
#[derive(Clone, Debug, Default)]
struct Kept {
    charges: u32,
    charged: i64,
    refunds: u32,
    refunded: i64,
    declined: u32,
    voided: u32,
    currency: String,
    entries: Entries,
}

/// What the carrier did for one order.
#[derive(Clone, Debug, Default)]
struct Parcels {
    booked: u32,
    refused: u32,
    voided: u32,
    tracking_number: String,
    entries: Entries,
}

/// What a ledger's entries of one order have in common.
#[derive(Clone, Debug, Default)]
struct Entries {
    /// Time of the first one, Unix milliseconds by the partner's clock.
    begun_ms: Option<i64>,
    /// What one of them should not say.
    odd: Option<String>,
}

impl Entries {
    fn note(&mut self, time_ms: i64) {
        self.begun_ms = Some(self.begun_ms.map_or(time_ms, |begun| begun.min(time_ms)));
    }
}

/// A ledger's entries of an order that the log does not know.
#[derive(Debug)]
pub(crate) struct UnmatchedLedgerEntry {
    pub(crate) id: String,
    pub(crate) wrong: String,
    /// When it began.
    pub(crate) time_ms: i64,
}

/// Sums of one currency, in minor units.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    charged: i128,
    refunded: i128,
    /// Totals of paid orders.
    worth: i128,
}

/// Ledgers and sums.
#[derive(Debug, Default)]
pub(crate) struct LedgerReconciliation {
    /// What a partner began later lies beyond the cut.
    begun_ms: i64,
    payments: Option<HashMap<String, Kept>>,
    bookings: Option<HashMap<String, Parcels>>,
    sums: BTreeMap<String, Sums>,
}

/// What is wrong.
type Wrongs = Vec<(Invariant, String)>;

fn order_of(key: &str) -> &str {
    key.split_once('/').map_or(key, |(order_id, _)| order_id)
}

impl LedgerReconciliation {
    pub(crate) fn read(evidence: &impl Evidence) -> Result<Self, Error> {
        let mut books = Self {
            begun_ms: evidence.cut().begun_ms,
            ..Self::default()
        };
        if let Some(entries) = evidence.payments()? {
            let mut payments = HashMap::new();
            for entry in entries {
                keep_payment(&mut payments, entry?);
            }
            books.payments = Some(payments);
        }
        if let Some(entries) = evidence.bookings()? {
            let mut bookings = HashMap::new();
            for entry in entries {
                keep_booking(&mut bookings, entry?);
            }
            books.bookings = Some(bookings);
        }
        Ok(books)
    }

    /// Judges the money and the parcel of one life; what is wrong.
    pub(crate) fn judge(
        &mut self,
        findings: &mut Findings,
        id: &str,
        life: &OrderLifecycle,
    ) -> Wrongs {
        let mut wrongs = Wrongs::new();
        let kept = self
            .payments
            .as_mut()
            .map(|payments| payments.remove(id).unwrap_or_default());
        let parcels = self
            .bookings
            .as_mut()
            .map(|bookings| bookings.remove(id).unwrap_or_default());
        findings.checked(Invariant::I3);
        let order = life.order.as_ref();
        let payment = life.payment.clone().unwrap_or_default();
        charged_once(order, &payment, &mut wrongs);
        let is_charge_awaited = !payment.is_over()
            || payment.version == 0
                && order.is_some_and(|order| order.total > 0 && !order.is_final());
        if let Some(kept) = &kept {
            as_kept(&payment, kept, is_charge_awaited, &mut wrongs);
        }
        if let Some(parcels) = &parcels {
            let shipment = life.shipment.clone().unwrap_or_default();
            let is_awaited = !shipment.is_over()
                || shipment.version == 0 && order.is_some_and(|order| !order.is_final());
            as_booked(&shipment, parcels, is_awaited, &mut wrongs);
        }
        if let Some(order) = order
            && order.is_final()
            && payment.is_over()
        {
            findings.checked(Invariant::I5);
            given_back(order, &payment, kept.as_ref(), &mut wrongs);
        }
        self.add(order, &payment, kept.as_ref());
        wrongs
    }

    fn add(&mut self, order: Option<&OrderModel>, payment: &PaymentModel, kept: Option<&Kept>) {
        let amount = i128::from(payment.amount.minor_units);
        let (charged, refunded, currency) = match kept {
            Some(kept) => (kept.charged.into(), kept.refunded.into(), &kept.currency),
            None => (
                amount * i128::from(payment.captures),
                amount * i128::from(payment.refunds),
                &payment.amount.currency,
            ),
        };
        if charged != 0 || refunded != 0 {
            let sums = self.sums.entry(currency.clone()).or_default();
            sums.charged += charged;
            sums.refunded += refunded;
        }
        if let Some(order) = order
            && order.is_paid()
            && order.total != 0
        {
            let sums = self.sums.entry(order.currency.clone()).or_default();
            sums.worth += i128::from(order.total);
        }
    }

    /// What the ledgers have of orders that the log does not know.
    pub(crate) fn strangers(&mut self, findings: &mut Findings) -> Vec<UnmatchedLedgerEntry> {
        let payments = self.payments.take().unwrap_or_default();
        let bookings = self.bookings.take().unwrap_or_default();
        let cut_ms = self.begun_ms;
        // Of an order that was placed after the cut nothing can be said.
        let mut within_cut = |entries: &Entries| {
            let time_ms = entries.begun_ms.filter(|begun_ms| *begun_ms <= cut_ms);
            if time_ms.is_none() {
                findings.unchecked(Invariant::I3);
            }
            time_ms
        };
        let mut strangers = Vec::new();
        for (id, kept) in payments {
            let Some(time_ms) = within_cut(&kept.entries) else {
                continue;
            };
            let wrong = format!(
                "the provider's ledger has {} charges and {} refunds of it, the log knows no such order",
                kept.charges, kept.refunds
            );
            let sums = self.sums.entry(kept.currency).or_default();
            sums.charged += i128::from(kept.charged);
            sums.refunded += i128::from(kept.refunded);
            strangers.push(UnmatchedLedgerEntry { id, wrong, time_ms });
        }
        for (id, parcels) in bookings {
            let Some(time_ms) = within_cut(&parcels.entries) else {
                continue;
            };
            let wrong = "the carrier's ledger has a booking of it, the log knows no such order";
            strangers.push(UnmatchedLedgerEntry {
                id,
                wrong: wrong.to_owned(),
                time_ms,
            });
        }
        strangers.sort_by(|left, right| (&left.id, &left.wrong).cmp(&(&right.id, &right.wrong)));
        strangers
    }

    /// The sums, currency by currency. They balance at rest only.
    pub(crate) fn sums(&self, findings: &mut Findings, at_rest: bool) {
        if !at_rest {
            findings.note(
                Invariant::I11,
                "order by order only: the sums balance at rest, and orders are under way",
            );
            return;
        }
        for (currency, sums) in &self.sums {
            findings.checked(Invariant::I11);
            if sums.charged - sums.refunded != sums.worth {
                let wrong = format!(
                    "{currency}: {} charged less {} refunded is not the {} that paid orders are worth",
                    sums.charged, sums.refunded, sums.worth
                );
                findings.violated(Invariant::I11, Example::new(wrong));
            }
        }
    }
}

fn keep_payment(payments: &mut HashMap<String, Kept>, entry: LedgerPayment) {
    let kept = payments
        .entry(order_of(&entry.idempotency_key).to_owned())
        .or_default();
    let amount = entry.amount.unwrap_or_default();
    kept.entries.note(entry.time_ms);
    match entry.kind.as_str() {
        "charged" => {
            kept.charges += 1;
            kept.charged = kept.charged.saturating_add(amount.minor_units);
            kept.currency = amount.currency;
        }
        "refunded" => {
            kept.refunds += 1;
            kept.refunded = kept.refunded.saturating_add(amount.minor_units);
            // Its charge stands before it.
            if amount.currency != kept.currency {
                let odd = format!(
                    "gave back {}, and had charged {}",
                    amount.currency, kept.currency
                );
                kept.entries.odd = Some(odd);
            }
        }
        "declined" => kept.declined += 1,
        "voided" => kept.voided += 1,
        "refund_refused" => {}
        kind => kept.entries.odd = Some(format!("has an entry of a kind {kind:?}")),
    }
}

fn keep_booking(bookings: &mut HashMap<String, Parcels>, entry: LedgerBooking) {
    let parcels = bookings
        .entry(order_of(&entry.idempotency_key).to_owned())
        .or_default();
    parcels.entries.note(entry.time_ms);
    match entry.kind.as_str() {
        "booked" => {
            parcels.booked += 1;
            parcels.tracking_number = entry.tracking_number;
        }
        "refused" => parcels.refused += 1,
        "voided" => parcels.voided += 1,
        kind => parcels.entries.odd = Some(format!("has an entry of a kind {kind:?}")),
    }
}

/// By the log alone.
fn charged_once(order: Option<&OrderModel>, payment: &PaymentModel, wrongs: &mut Wrongs) {
    if payment.captures > 1 {
        wrongs.push((Invariant::I3, format!("charged {} times", payment.captures)));
    }
    let asked = &payment.amount;
    match order {
        None if payment.captures > 0 => {
            wrongs.push((Invariant::I3, "charged, and there is no such order".into()));
        }
        Some(order)
            if payment.version > 0
                && !asked.currency.is_empty()
                && (asked.minor_units, &asked.currency) != (order.total, &order.currency) =>
        {
            let wrong = format!(
                "{} {} asked for an order of {} {}",
                asked.minor_units, asked.currency, order.total, order.currency
            );
            wrongs.push((Invariant::I3, wrong));
        }
        _ => {}
    }
    if let Some(order) = order
        && order.is_paid()
        && order.total > 0
        && payment.captures == 0
    {
        wrongs.push((Invariant::I11, "shipped, and never charged".into()));
    }
}

/// The provider's ledger is read after the log: what the log knows, it has; what it has, the log knows or waits for.
fn as_kept(payment: &PaymentModel, kept: &Kept, is_awaited: bool, wrongs: &mut Wrongs) {
    let mut wrong = |wrong: String| wrongs.push((Invariant::I3, wrong));
    let amount = &payment.amount;
    if let Some(odd) = &kept.entries.odd {
        wrong(format!("the provider's ledger {odd}"));
    }
    if kept.charges > 1 {
        wrong(format!(
            "the provider's ledger has {} charges",
            kept.charges
        ));
    }
    if payment.captures > kept.charges {
        wrong("the log has a charge that the provider's ledger lacks".into());
    }
    if kept.charges > payment.captures && !is_awaited {
        wrong("the provider's ledger has a charge that the log lacks".into());
    }
    let charged = i64::from(kept.charges).saturating_mul(amount.minor_units);
    if kept.charges > 0
        && payment.version > 0
        && (kept.charged != charged || kept.currency != amount.currency)
    {
        wrong(format!(
            "the provider's ledger charged {} {}, the log asked for {} {}",
            kept.charged, kept.currency, amount.minor_units, amount.currency
        ));
    }
    if payment.refunds > kept.refunds {
        wrong("the log has a refund that the provider's ledger lacks".into());
    }
    if kept.refunds > payment.refunds && !is_awaited {
        wrong("the provider's ledger has a refund that the log lacks".into());
    }
    if payment.status == PaymentStatus::Declined && kept.declined == 0 {
        wrong("the log has a refusal that the provider's ledger lacks".into());
    }
    if payment.status == PaymentStatus::Voided && kept.voided == 0 {
        wrong("the log has a void that the provider's ledger lacks".into());
    }
}

fn as_booked(shipment: &ShipmentModel, parcels: &Parcels, is_awaited: bool, wrongs: &mut Wrongs) {
    let mut wrong = |wrong: &str| wrongs.push((Invariant::I3, wrong.to_owned()));
    let is_sent = matches!(
        shipment.status,
        ShipmentStatus::Dispatched | ShipmentStatus::Delivered
    );
    if let Some(odd) = &parcels.entries.odd {
        wrong(&format!("the carrier's ledger {odd}"));
    }
    if is_sent && (parcels.booked == 0 || parcels.tracking_number != shipment.tracking_number) {
        wrong("the log has a parcel that the carrier's ledger lacks");
    }
    if parcels.booked > 0 && !is_sent && !is_awaited {
        wrong("the carrier's ledger has a parcel that the log lacks");
    }
    if parcels.booked > 1 {
        wrong("the carrier's ledger has two parcels");
    }
    if shipment.status == ShipmentStatus::Refused && parcels.refused == 0 {
        wrong("the log has a refusal that the carrier's ledger lacks");
    }
    if shipment.status == ShipmentStatus::Cancelled && parcels.voided == 0 {
        wrong("the log has a void that the carrier's ledger lacks");
    }
}

/// Of an order that is over.
fn given_back(
    order: &OrderModel,
    payment: &PaymentModel,
    kept: Option<&Kept>,
    wrongs: &mut Wrongs,
) {
    let mut wrong = |wrong: String| wrongs.push((Invariant::I5, wrong));
    if order.is_undone() {
        if payment.refunds != payment.captures {
            wrong(format!(
                "undone, charged {} times and refunded {} times",
                payment.captures, payment.refunds
            ));
        }
        let back = payment
            .amount
            .minor_units
            .saturating_mul(payment.refunds.into());
        if order.refunded != back {
            wrong(format!(
                "undone, was told of {} given back, and {back} was",
                order.refunded
            ));
        }
        if let Some(kept) = kept
            && (kept.refunded != kept.charged || kept.refunds > 1)
        {
            wrong(format!(
                "undone, the provider charged {} and gave back {} in {} refunds",
                kept.charged, kept.refunded, kept.refunds
            ));
        }
    } else {
        if payment.refunds > 0 || order.refunded != 0 {
            wrong("delivered, and given money back".into());
        }
        if let Some(kept) = kept
            && kept.refunds > 0
        {
            wrong("delivered, and the provider gave money back".into());
        }
    }
}
