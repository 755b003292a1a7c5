//! Mutations of the journal of a client.

use audit::{ClientObservation, Invariant};

use super::Mutation;

pub const CLIENTS: &[Mutation] = &[
    (
        "an acknowledged order that is not there",
        Invariant::I2,
        |evidence| {
            evidence.add_observation(ClientObservation::Acknowledged {
                order_id: "01890000-0000-7000-8000-000000000001".into(),
                minor_units: 1,
                version: 1,
            });
        },
    ),
    (
        "an order of another total than acknowledged",
        Invariant::I2,
        |evidence| {
            let (order_id, minor_units) = evidence.created_order();
            evidence.add_observation(ClientObservation::Acknowledged {
                order_id,
                minor_units: minor_units + 1,
                version: 1,
            });
        },
    ),
    (
        "a reader that receives an older version",
        Invariant::I7,
        |evidence| {
            let (order_id, _) = evidence.created_order();
            for version in [3, 2] {
                evidence.add_observation(ClientObservation::Read {
                    reader: "ada".into(),
                    order_id: order_id.clone(),
                    version,
                });
            }
        },
    ),
    (
        "a reader that receives a version beyond the log",
        Invariant::I7,
        |evidence| {
            let (order_id, _) = evidence.created_order();
            evidence.add_observation(ClientObservation::Read {
                reader: "ada".into(),
                order_id,
                version: 10_000,
            });
        },
    ),
    ("two answers to one id", Invariant::I13, |evidence| {
        let (order_id, minor_units) = evidence.created_order();
        for more in [0, 1] {
            evidence.add_observation(ClientObservation::Acknowledged {
                order_id: order_id.clone(),
                minor_units: minor_units + more,
                version: 1,
            });
        }
    }),
];
