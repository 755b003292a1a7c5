//! A run as evidence for the auditor.

use std::collections::BTreeMap;

use audit::{Cut, DeciderConfig, Memory, RuleBooks, Seen, TopicPartition};
use contracts::{Service, Topic};
use engine::log::Partition;
use shipping::ShipmentRules;

use crate::world::World;

/// What the auditor finds wrong with everything that has come to rest.
pub fn audited(world: &World) -> Vec<String> {
    let settings = &world.parts.settings;
    let evidence = evidence(world);
    let books = RuleBooks {
        orders: DeciderConfig::new(world.order_rules(), settings),
        inventory: DeciderConfig::new(world.stock_rules(), settings),
        payments: DeciderConfig::new(world.payment_rules(), settings),
        shipping: DeciderConfig::new(ShipmentRules, settings),
        codec: world.parts.codec.clone(),
        cluster: world.parts.cluster.clone(),
        has_constant_times: true,
    };
    let report = match audit::audit(&evidence, &books) {
        Ok(report) => report,
        Err(trouble) => return vec![format!("cannot be audited: {trouble}")],
    };
    let mut violations = Vec::new();
    if !report.at_rest {
        violations.push("the auditor does not find it at rest".to_owned());
    }
    for finding in &report.findings {
        for example in &finding.examples {
            violations.push(format!("{}: {example}", finding.id));
        }
    }
    violations
}

/// The log, and what the partners have decided. The read model is held against the log by its own code.
fn evidence(world: &World) -> Memory {
    let mut cut = Cut {
        begun_ms: world.clock.unix_ms(),
        partitions: Partition::from(world.plan.partitions),
        ..Cut::default()
    };
    let mut records = BTreeMap::new();
    for service in Service::ALL {
        for partition in 0..cut.partitions {
            if let Some(offset) = world.broker.committed(service, partition) {
                cut.committed.insert((service, partition), offset);
            }
            let position = world.projectors.position(service, partition);
            cut.positions.insert((service, partition), position);
            for topic in Topic::ALL {
                let place = TopicPartition::new(service, topic, partition);
                let there = (service, topic, partition);
                cut.ends.insert(place, world.broker.ends(there));
                let seen = world.broker.all(there).into_iter();
                let seen = seen.map(|(input, committed)| Seen { input, committed });
                records.insert(place, seen.collect());
            }
        }
    }
    Memory {
        cut,
        records,
        rows: None,
        parked: Vec::new(),
        payments: Some(world.partners.sandbox.payments()),
        bookings: Some(world.partners.sandbox.bookings()),
        journal: None,
    }
}
