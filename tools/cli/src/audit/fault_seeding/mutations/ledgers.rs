//! Mutations of the partners' ledgers.

use audit::Invariant;

use super::Mutation;

pub const LEDGERS: &[Mutation] = &[
    ("a second charge in the ledger", Invariant::I3, |evidence| {
        let mut entry = evidence.charge_entry();
        entry.idempotency_key = entry.idempotency_key.replace("/1", "/2");
        evidence.payment_ledger().push(entry);
    }),
    (
        "a refusal in the ledger that the log lacks",
        Invariant::I3,
        |evidence| {
            let mut entry = evidence.charge_entry();
            entry.idempotency_key = entry.idempotency_key.replace("/1", "/2");
            entry.kind = "declined".into();
            evidence.payment_ledger().push(entry);
        },
    ),
    (
        "a charge of an unknown order in the ledger",
        Invariant::I3,
        |evidence| {
            let mut entry = evidence.charge_entry();
            entry.idempotency_key = "01890000-0000-7000-8000-000000000001/charge/1".into();
            evidence.payment_ledger().push(entry);
        },
    ),
    (
        "a charge that the ledger lacks",
        Invariant::I3,
        |evidence| {
            let entry = evidence.charge_entry();
            evidence.payment_ledger().retain(|other| *other != entry);
        },
    ),
    (
        "a parcel that the carrier lacks",
        Invariant::I3,
        |evidence| {
            let bookings = evidence.inner.bookings.as_mut().unwrap();
            let booked = bookings.iter().position(|entry| entry.kind == "booked");
            bookings.remove(booked.unwrap());
        },
    ),
    (
        "a refund that the ledger lacks",
        Invariant::I5,
        |evidence| {
            let entry = evidence.refund_entry();
            evidence.payment_ledger().retain(|other| *other != entry);
        },
    ),
    ("a refund of a delivered order", Invariant::I5, |evidence| {
        let delivered = evidence.delivered_order();
        let mut entry = evidence.refund_entry();
        entry.idempotency_key = format!("{delivered}/refund/1");
        evidence.payment_ledger().push(entry);
    }),
    ("another amount in the ledger", Invariant::I11, |evidence| {
        let delivered = evidence.delivered_order();
        let entry = evidence
            .payment_ledger()
            .iter_mut()
            .find(|entry| entry.kind == "charged" && entry.idempotency_key.starts_with(&delivered));
        entry.unwrap().amount.as_mut().unwrap().minor_units += 1;
    }),
    (
        "a ledger entry of an unknown kind",
        Invariant::I3,
        |evidence| {
            let mut entry = evidence.charge_entry();
            entry.kind = "chargeback".into();
            evidence.payment_ledger().push(entry);
        },
    ),
    ("a refund in another currency", Invariant::I3, |evidence| {
        let refund = evidence.refund_entry();
        let mut entries = evidence.payment_ledger().iter_mut();
        let entry = entries.find(|entry| **entry == refund).unwrap();
        entry.amount.as_mut().unwrap().currency = "XTS".into();
    }),
    (
        "a charge of the highest amount",
        Invariant::I3,
        |evidence| {
            let mut entry = evidence.charge_entry();
            entry.amount.as_mut().unwrap().minor_units = i64::MAX;
            evidence.payment_ledger().extend([entry.clone(), entry]);
        },
    ),
];
