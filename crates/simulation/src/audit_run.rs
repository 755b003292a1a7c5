//! A run as evidence for the auditor.

use std::collections::BTreeMap;

use audit::{Cut, DeciderConfig, InMemoryEvidence, LogRecord, RuleBooks, TopicPartition};
use contracts::{Service, Topic};
use engine::log::Partition;
use shipping::ShipmentRules;

use crate::simulation::Simulation;

/// The findings of the auditor as violations.
pub fn audit_violations(simulation: &Simulation) -> Vec<String> {
    let settings = &simulation.process_context.settings;
    let evidence = evidence(simulation);
    let rule_books = RuleBooks {
        orders: DeciderConfig::new(simulation.order_rules(), settings),
        inventory: DeciderConfig::new(simulation.stock_rules(), settings),
        payments: DeciderConfig::new(simulation.payment_rules(), settings),
        shipping: DeciderConfig::new(ShipmentRules, settings),
        codec: simulation.process_context.codec.clone(),
        cluster: simulation.process_context.cluster.clone(),
        has_constant_times: true,
    };
    let report = match audit::audit(&evidence, &rule_books) {
        Ok(report) => report,
        Err(error) => return vec![format!("cannot be audited: {error}")],
    };
    let mut violations = Vec::new();
    if !report.at_rest {
        violations.push("the auditor finds the platform not at rest".to_owned());
    }
    for finding in &report.findings {
        for example in &finding.examples {
            violations.push(format!("{}: {example}", finding.id));
        }
    }
    violations
}

/// The log and the ledgers of the partners. `projectors` compares the read model with the log.
fn evidence(simulation: &Simulation) -> InMemoryEvidence {
    let mut cut = Cut {
        begun_ms: simulation.clock.unix_ms(),
        partitions: Partition::from(simulation.plan.partitions),
        ..Cut::default()
    };
    let mut records = BTreeMap::new();
    for service in Service::ALL {
        for partition in 0..cut.partitions {
            if let Some(offset) = simulation.broker.committed(service, partition) {
                cut.committed.insert((service, partition), offset);
            }
            let position = simulation.projectors.position(service, partition);
            cut.positions.insert((service, partition), position);
            for topic in Topic::ALL {
                let tp = TopicPartition::new(service, topic, partition);
                let log_partition = (service, topic, partition);
                cut.ends.insert(tp, simulation.broker.ends(log_partition));
                let inputs = simulation.broker.all(log_partition).into_iter();
                let log_records = inputs.map(|(input, committed)| LogRecord { input, committed });
                records.insert(tp, log_records.collect());
            }
        }
    }
    InMemoryEvidence {
        cut,
        records,
        rows: None,
        parked: Vec::new(),
        payments: Some(simulation.partners.sandbox.payments()),
        bookings: Some(simulation.partners.sandbox.bookings()),
        journal: None,
    }
}
