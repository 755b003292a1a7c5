//! Mutations of rows and positions of the read model.

use audit::Invariant;
use audit::rows::Row;
use contracts::{Orders, Service};

use super::Mutation;

pub const READ_MODEL: &[Mutation] = &[
    ("a row with another total", Invariant::I8, |evidence| {
        evidence.rewrite_row(|row| match row {
            Row::Order(row) => {
                row.total += 1;
                true
            }
            _ => false,
        });
    }),
    ("a row that is missing", Invariant::I8, |evidence| {
        let rows = evidence.inner.rows.as_mut().unwrap();
        let payment = rows.iter().position(|row| matches!(row, Row::Payment(_)));
        rows.remove(payment.unwrap());
    }),
    ("an additional row", Invariant::I8, |evidence| {
        let rows = evidence.inner.rows.as_mut().unwrap();
        let stock = rows.iter().find_map(|row| match row {
            Row::Stock(row) => Some(row.clone()),
            _ => None,
        });
        let mut stock = stock.unwrap();
        stock.sku = "unknown".into();
        rows.push(Row::Stock(stock));
    }),
    ("a line with another price", Invariant::I8, |evidence| {
        evidence.rewrite_row(|row| match row {
            Row::OrderLine(row) => {
                row.unit_price -= 1;
                true
            }
            _ => false,
        });
    }),
    ("a history with other bytes", Invariant::I8, |evidence| {
        evidence.rewrite_row(|row| match row {
            Row::OrderEvent(row) => {
                row.record.push(0);
                true
            }
            _ => false,
        });
    }),
    ("a shipment of another version", Invariant::I8, |evidence| {
        evidence.rewrite_row(|row| match row {
            Row::Shipment(row) => {
                row.version += 1;
                true
            }
            _ => false,
        });
    }),
    (
        "a position behind what is applied",
        Invariant::I9,
        |evidence| {
            let record_ref = evidence.event::<Orders>(|_, _| true);
            let key = (Service::Orders, record_ref.topic_partition.partition);
            evidence.inner.cut.positions.insert(key, 0);
        },
    ),
    ("a position beyond the log", Invariant::I9, |evidence| {
        for position in evidence.inner.cut.positions.values_mut() {
            *position += 1_000_000;
        }
    }),
    (
        "an aborted event in the history",
        Invariant::I10,
        |evidence| {
            let (partition, offset) = evidence.aborted_event();
            evidence.rewrite_row(|row| match row {
                Row::OrderEvent(row) if row.partition == partition => {
                    row.offset = offset;
                    true
                }
                _ => false,
            });
        },
    ),
];
