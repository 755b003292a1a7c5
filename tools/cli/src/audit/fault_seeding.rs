//! Mutation tests of the auditor. The real system writes a healthy log once, which is read into memory. Each mutation
//! adds one violation to a copy; the auditor must report it under the right invariant.

mod healthy;
mod mutations;
mod records;

use std::cell::Cell;
use std::sync::OnceLock;

use audit::rows::{ParkedKey, Row};
use audit::{
    ClientObservation, Cut, Error, Evidence, InMemoryEvidence, Invariant, Items, LogRecord,
    TopicPartition,
};
use contracts::sandbox::v1::{LedgerBooking, LedgerPayment};
use contracts::{Inventory, Service, Topic};
use registry::Resolution;

use crate::system_audit::{ServiceRuleBooks, report_text};
use healthy::record_evidence;
use mutations::mutations;
use records::MutableEvidence;

/// The evidence of a healthy platform, made once for all tests of this file.
fn healthy_platform() -> &'static (InMemoryEvidence, ServiceRuleBooks) {
    static HEALTHY: OnceLock<(InMemoryEvidence, ServiceRuleBooks)> = OnceLock::new();
    HEALTHY.get_or_init(record_evidence)
}

fn audit_report(evidence: &InMemoryEvidence) -> audit::Report {
    audit::audit(evidence, &healthy_platform().1).expect("the evidence can be read")
}

#[test]
fn a_healthy_platform_is_clean_and_every_invariant_is_checked() {
    let (healthy, rule_books) = healthy_platform();
    let mut mutated = healthy.clone();
    let mut evidence = MutableEvidence::new(&mut mutated, rule_books);
    let (order_id, _) = evidence.created_order();
    evidence.add_observation(ClientObservation::Read {
        reader: "ada".into(),
        order_id,
        version: 1,
    });
    let report = audit_report(&mutated);
    assert!(report.is_clean(), "{}", report_text(&report));
    assert!(report.at_rest, "{}", report_text(&report));
    for finding in &report.findings {
        assert!(finding.checked > 0, "{:?} was not checked", finding.id);
    }
}

#[test]
#[allow(
    clippy::print_stdout,
    reason = "the test runner shows it when the test fails"
)]
fn every_mutation_is_reported_under_its_invariant() {
    let (healthy, rule_books) = healthy_platform();
    let mut undetected = Vec::new();
    for (name, invariant, mutate) in mutations() {
        let mut mutated = healthy.clone();
        mutate(&mut MutableEvidence::new(&mut mutated, rule_books));
        let report = audit_report(&mutated);
        let finding = report.finding(*invariant);
        println!(
            "{name}: {:?} {:?}",
            report.violated(),
            finding.examples.first()
        );
        if finding.violated == 0 {
            undetected.push(format!(
                "{name}: {invariant} is not violated, but {:?}",
                report.violated()
            ));
        }
    }
    assert!(undetected.is_empty(), "{}", undetected.join("\n"));
}

#[test]
fn every_invariant_has_at_least_two_mutations() {
    for invariant in Invariant::ALL {
        let count = mutations()
            .filter(|(_, violated, _)| violated == invariant)
            .count();
        assert!(count >= 2, "{invariant}");
    }
}

#[test]
fn records_beyond_the_cut_are_no_violations() {
    let (healthy, _) = healthy_platform();
    // The cut has the offsets of the orders group first: as if it had processed some commands right after that.
    for back in [1, 5, 40, 200] {
        let mut mutated = healthy.clone();
        mutated.cut.begun_ms = first_ms(&mutated);
        for partition in 0..mutated.cut.partitions {
            let key = (Service::Orders, partition);
            if let Some(committed) = mutated.cut.committed.get_mut(&key) {
                *committed = (*committed - back).max(0);
            }
        }
        // The snapshot of the read model is older than these offsets.
        mutated.rows = None;
        let report = audit_report(&mutated);
        assert!(!report.at_rest);
        assert!(report.is_clean(), "{back}: {}", report_text(&report));
    }
}

#[test]
fn ledger_entries_after_the_cut_are_no_violations() {
    let (healthy, rule_books) = healthy_platform();
    let mut mutated = healthy.clone();
    let mut evidence = MutableEvidence::new(&mut mutated, rule_books);
    let mut charge = evidence.charge_entry();
    charge.idempotency_key = "01890000-0000-7000-8000-000000000001/charge/1".into();
    charge.time_ms = evidence.inner.cut.begun_ms + 1;
    evidence.payment_ledger().push(charge);
    let report = audit_report(&mutated);
    assert!(
        report.at_rest && report.is_clean(),
        "{}",
        report_text(&report)
    );
    assert!(report.finding(Invariant::I3).unchecked > 0);
}

#[test]
fn deleted_dead_letters_are_not_reported_as_missing() {
    let (healthy, rule_books) = healthy_platform();
    let mut mutated = healthy.clone();
    let mut evidence = MutableEvidence::new(&mut mutated, rule_books);
    // A command without events, so that nothing else is missing.
    let command = evidence.command::<Inventory>(|metadata, _| metadata.causation_id.is_empty());
    let event = evidence.event::<Inventory>(|_, _| true);
    evidence.remove(event);
    evidence.corrupt(command);
    let dead_letters = TopicPartition {
        topic: Topic::Dlq,
        ..command.topic_partition
    };
    let is_reported = |evidence: &InMemoryEvidence| {
        let report = audit_report(evidence);
        let mut examples = report.finding(Invariant::I12).examples.iter();
        examples.any(|example| example.wrong.contains("is no dead letter"))
    };
    assert!(is_reported(&mutated), "no dead letter was deleted");
    let ends = mutated
        .cut
        .ends
        .get_mut(&dead_letters)
        .expect("the topic is there");
    (ends.low, ends.high) = (1, 1);
    assert!(!is_reported(&mutated));
}

#[test]
fn a_pending_command_of_a_newer_contract_fails_the_audit() {
    const NEWER: u32 = 4_711;
    let (healthy, rule_books) = healthy_platform();
    let mut mutated = healthy.clone();
    let mut evidence = MutableEvidence::new(&mut mutated, rule_books);
    let command = evidence.command::<Inventory>(|metadata, _| !metadata.causation_id.is_empty());
    let (service, topic) = (
        command.topic_partition.service,
        command.topic_partition.topic,
    );
    let schemas = rule_books.codec.schemas();
    schemas.learn(service, topic, NEWER, Resolution::Newer);
    let offset = evidence.set_schema_id(command, NEWER);
    let key = (service, command.topic_partition.partition);
    mutated.cut.committed.insert(key, offset);
    let error = audit::audit(&mutated, rule_books).expect_err("the contract is unknown");
    assert!(
        matches!(
            error,
            Error::Newer {
                schema_id: NEWER,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn violations_are_reported_although_the_second_pass_fails() {
    let (healthy, rule_books) = healthy_platform();
    let mut mutated = healthy.clone();
    let mut evidence = MutableEvidence::new(&mut mutated, rule_books);
    evidence.rewrite_row(|row| match row {
        Row::Payment(row) => {
            row.amount += 1;
            true
        }
        _ => false,
    });
    let failing = FailingRows {
        evidence: mutated,
        row_calls: Cell::new(0),
    };
    let report = audit::audit(&failing, rule_books).expect("the first pass has violations");
    assert_eq!(
        report.violated(),
        [Invariant::I8],
        "{}",
        report_text(&report)
    );
}

/// Evidence whose rows cannot be read in the second pass.
struct FailingRows {
    evidence: InMemoryEvidence,
    row_calls: Cell<u32>,
}

impl Evidence for FailingRows {
    fn cut(&self) -> &Cut {
        self.evidence.cut()
    }

    fn records(&self, topic_partition: TopicPartition) -> Result<Items<'_, LogRecord>, Error> {
        self.evidence.records(topic_partition)
    }

    fn rows(&self) -> Result<Option<Items<'_, Row>>, Error> {
        self.row_calls.set(self.row_calls.get() + 1);
        // Two calls in the first pass, one at the start of the second pass.
        if self.row_calls.get() > 3 {
            return Err(Error::Source("the database is gone".into()));
        }
        self.evidence.rows()
    }

    fn parked(&self) -> Result<Vec<ParkedKey>, Error> {
        self.evidence.parked()
    }

    fn payments(&self) -> Result<Option<Items<'_, LedgerPayment>>, Error> {
        self.evidence.payments()
    }

    fn bookings(&self) -> Result<Option<Items<'_, LedgerBooking>>, Error> {
        self.evidence.bookings()
    }

    fn journal(&self) -> Result<Option<Items<'_, ClientObservation>>, Error> {
        self.evidence.journal()
    }
}

/// Time of the first record: every record is recent then.
fn first_ms(evidence: &InMemoryEvidence) -> i64 {
    let records = evidence.records.values().flatten();
    records
        .map(|record| record.input.time_ms)
        .min()
        .unwrap_or_default()
}
