//! Compares the journal of a client with the log. The journal is kept in memory.

use std::collections::HashMap;

use contracts::orders::v1::OrderCreated;

use crate::client_observation::ClientObservation;
use crate::evidence::{Error, Evidence};
use crate::reference_model::EventContext;
use crate::report::{Example, Findings, Invariant};

/// What clients observed of an order.
#[derive(Debug, Default)]
struct ClientView {
    /// Its total, in minor units, in the acknowledgement.
    acknowledged_total: Option<i64>,
    /// The highest version that a client observed.
    version: u64,
    is_created: bool,
    has_pending_command: bool,
}

/// The journal of all clients, by order.
#[derive(Debug, Default)]
pub(crate) struct ClientJournal {
    is_given: bool,
    orders: HashMap<String, ClientView>,
    /// Violations that the journal shows by itself.
    violations: Vec<(Invariant, Example)>,
    acknowledged: u64,
    reads: u64,
}

impl ClientJournal {
    pub(crate) fn read(evidence: &impl Evidence) -> Result<Self, Error> {
        let mut journal = Self::default();
        let mut last_read: HashMap<(String, String), u64> = HashMap::new();
        let Some(observations) = evidence.journal()? else {
            return Ok(journal);
        };
        journal.is_given = true;
        for observation in observations {
            match observation? {
                ClientObservation::Acknowledged {
                    order_id,
                    minor_units,
                    version,
                } => {
                    journal.acknowledged += 1;
                    let view = journal.orders.entry(order_id.clone()).or_default();
                    view.version = view.version.max(version);
                    match view.acknowledged_total.replace(minor_units) {
                        Some(before) if before != minor_units => {
                            let wrong =
                                format!("acknowledged with {before} and with {minor_units}");
                            let example = Example::new(wrong).of_aggregate(order_id);
                            journal.violations.push((Invariant::I13, example));
                        }
                        _ => {}
                    }
                }
                ClientObservation::Refused { order_id } => {
                    let view = journal.orders.get(&order_id);
                    if view.is_some_and(|view| view.acknowledged_total.is_some()) {
                        let wrong = "acknowledged, and then refused for good";
                        let example = Example::new(wrong).of_aggregate(order_id);
                        journal.violations.push((Invariant::I1, example));
                    }
                }
                ClientObservation::Read {
                    reader,
                    order_id,
                    version,
                } => {
                    journal.reads += 1;
                    let view = journal.orders.entry(order_id.clone()).or_default();
                    view.version = view.version.max(version);
                    let last = last_read
                        .entry((reader.clone(), order_id.clone()))
                        .or_default();
                    if version < *last {
                        let wrong = format!("{reader} saw version {version} after version {last}");
                        let example = Example::new(wrong).of_aggregate(order_id);
                        journal.violations.push((Invariant::I7, example));
                    }
                    *last = (*last).max(version);
                }
            }
        }
        Ok(journal)
    }

    /// Compares the acknowledgement of an order with its creation.
    pub(crate) fn check_created(
        &mut self,
        findings: &mut Findings,
        at: &EventContext<'_>,
        created: &OrderCreated,
    ) {
        let Some(view) = self.orders.get_mut(at.id) else {
            return;
        };
        view.is_created = true;
        if let Some(minor_units) = view.acknowledged_total
            && minor_units != created.total
        {
            let wrong = format!(
                "acknowledged with {minor_units}, created with {}",
                created.total
            );
            findings.violated(Invariant::I2, at.example(wrong));
        }
    }

    /// Marks an order that has an unprocessed command.
    pub(crate) fn mark_pending(&mut self, id: &str) {
        if let Some(view) = self.orders.get_mut(id) {
            view.has_pending_command = true;
        }
    }

    /// Compares the versions that readers observed with the version in the log.
    pub(crate) fn check_version(&self, findings: &mut Findings, id: &str, version: u64) {
        let Some(view) = self.orders.get(id) else {
            return;
        };
        findings.checked(Invariant::I7);
        if view.version > version {
            let wrong = format!(
                "a reader saw version {}, the log has {version}",
                view.version
            );
            findings.violated(Invariant::I7, Example::new(wrong).of_aggregate(id));
        }
    }

    /// Acknowledged orders that are missing in the log.
    pub(crate) fn missing_orders(&self) -> Vec<Example> {
        let missing = self.orders.iter().filter(|(_, view)| {
            view.acknowledged_total.is_some() && !view.is_created && !view.has_pending_command
        });
        let mut missing: Vec<_> = missing.map(|(id, _)| id).collect();
        missing.sort();
        let example =
            |id: &String| Example::new("acknowledged, and not in the log").of_aggregate(id);
        missing.into_iter().map(example).collect()
    }

    /// Reports the violations that the journal shows by itself, and the counts.
    pub(crate) fn report(&mut self, findings: &mut Findings) {
        for (invariant, example) in std::mem::take(&mut self.violations) {
            findings.violated(invariant, example);
        }
        if self.is_given {
            findings.add_checked(Invariant::I2, self.acknowledged);
            findings.add_checked(Invariant::I7, self.reads);
        } else {
            findings.note(Invariant::I7, "not checked: no client's journal was given");
            findings.note(
                Invariant::I2,
                "by commands and outcomes only: no client's journal was given",
            );
        }
    }
}
