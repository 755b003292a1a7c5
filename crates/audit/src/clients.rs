//! What clients were told and saw, against the log. The notes are kept in memory.

use std::collections::HashMap;

use contracts::orders::v1::OrderCreated;

use crate::evidence::{Error, Evidence};
use crate::journal::ClientObservation;
use crate::reference_model::Occurrence;
use crate::report::{Example, Findings, Invariant};

/// What clients know of an order.
#[derive(Debug, Default)]
struct Told {
    /// Its total in the answer to PlaceOrder.
    minor_units: Option<i64>,
    /// The highest version that anybody saw.
    version: u64,
    is_found: bool,
    is_waiting: bool,
}

/// The notes of all clients, by order.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    is_kept: bool,
    orders: HashMap<String, Told>,
    /// Of the notes alone.
    wrongs: Vec<(Invariant, Example)>,
    acknowledged: u64,
    reads: u64,
}

impl Clients {
    pub(crate) fn read(evidence: &impl Evidence) -> Result<Self, Error> {
        let mut clients = Self::default();
        let mut last_seen: HashMap<(String, String), u64> = HashMap::new();
        let Some(notes) = evidence.journal()? else {
            return Ok(clients);
        };
        clients.is_kept = true;
        for note in notes {
            match note? {
                ClientObservation::Acknowledged {
                    order_id,
                    minor_units,
                    version,
                } => {
                    clients.acknowledged += 1;
                    let told = clients.orders.entry(order_id.clone()).or_default();
                    told.version = told.version.max(version);
                    match told.minor_units.replace(minor_units) {
                        Some(before) if before != minor_units => {
                            let wrong =
                                format!("acknowledged with {before} and with {minor_units}");
                            let example = Example::new(wrong).of(order_id);
                            clients.wrongs.push((Invariant::I13, example));
                        }
                        _ => {}
                    }
                }
                ClientObservation::Refused { order_id } => {
                    let told = clients.orders.get(&order_id);
                    if told.is_some_and(|told| told.minor_units.is_some()) {
                        let wrong = "acknowledged, and then refused for good";
                        let example = Example::new(wrong).of(order_id);
                        clients.wrongs.push((Invariant::I1, example));
                    }
                }
                ClientObservation::Read {
                    reader,
                    order_id,
                    version,
                } => {
                    clients.reads += 1;
                    let told = clients.orders.entry(order_id.clone()).or_default();
                    told.version = told.version.max(version);
                    let last = last_seen
                        .entry((reader.clone(), order_id.clone()))
                        .or_default();
                    if version < *last {
                        let wrong = format!("{reader} saw version {version} after version {last}");
                        let example = Example::new(wrong).of(order_id);
                        clients.wrongs.push((Invariant::I7, example));
                    }
                    *last = (*last).max(version);
                }
            }
        }
        Ok(clients)
    }

    /// An order exists.
    pub(crate) fn created(
        &mut self,
        findings: &mut Findings,
        at: &Occurrence<'_>,
        created: &OrderCreated,
    ) {
        let Some(told) = self.orders.get_mut(at.id) else {
            return;
        };
        told.is_found = true;
        if let Some(minor_units) = told.minor_units
            && minor_units != created.total
        {
            let wrong = format!(
                "acknowledged with {minor_units}, created with {}",
                created.total
            );
            findings.violated(Invariant::I2, at.example(wrong));
        }
    }

    /// A command of an order is not processed yet.
    pub(crate) fn waits(&mut self, id: &str) {
        if let Some(told) = self.orders.get_mut(id) {
            told.is_waiting = true;
        }
    }

    /// Holds what readers saw of an order against the version that it has come to.
    pub(crate) fn judge(&self, findings: &mut Findings, id: &str, version: u64) {
        let Some(told) = self.orders.get(id) else {
            return;
        };
        findings.checked(Invariant::I7);
        if told.version > version {
            let wrong = format!(
                "a reader saw version {}, the log has {version}",
                told.version
            );
            findings.violated(Invariant::I7, Example::new(wrong).of(id));
        }
    }

    /// Acknowledged orders that the log does not have.
    pub(crate) fn unknown(&self) -> Vec<Example> {
        let unknown = self
            .orders
            .iter()
            .filter(|(_, told)| told.minor_units.is_some() && !told.is_found && !told.is_waiting);
        let mut unknown: Vec<_> = unknown.map(|(id, _)| id).collect();
        unknown.sort();
        let example = |id: &String| Example::new("acknowledged, and not in the log").of(id);
        unknown.into_iter().map(example).collect()
    }

    /// What the notes say by themselves.
    pub(crate) fn notes(&mut self, findings: &mut Findings) {
        for (invariant, example) in std::mem::take(&mut self.wrongs) {
            findings.violated(invariant, example);
        }
        if self.is_kept {
            findings.checked_many(Invariant::I2, self.acknowledged);
            findings.checked_many(Invariant::I7, self.reads);
        } else {
            findings.note(Invariant::I7, "not checked: no client's journal was given");
            findings.note(
                Invariant::I2,
                "by commands and outcomes only: no client's journal was given",
            );
        }
    }
}
