//! The auditor, tested by planting: a healthy log is made once by the real system and read into memory; then one
//! violation after the other is planted into a copy, and must be found and named.

mod healthy;
mod mutations;
mod records;

use std::cell::Cell;
use std::sync::OnceLock;

use audit::rows::{Parked, Row};
use audit::{
    ClientObservation, Cut, Error, Evidence, Invariant, Items, Memory, Seen, TopicPartition,
};
use contracts::sandbox::v1::{LedgerBooking, LedgerPayment};
use contracts::{Inventory, Service, Topic};
use registry::Resolution;

use super::Books;
use healthy::healthy;
use mutations::MUTATIONS;
use records::MutatedLog;

/// Made once for all tests of this file.
fn world() -> &'static (Memory, Books) {
    static WORLD: OnceLock<(Memory, Books)> = OnceLock::new();
    WORLD.get_or_init(healthy)
}

fn audited(memory: &Memory) -> audit::Report {
    audit::audit(memory, &world().1).expect("the evidence can be read")
}

#[test]
fn a_healthy_world_is_clean_and_every_invariant_looks_at_something() {
    let (memory, books) = world();
    let mut memory = memory.clone();
    let mut copy = MutatedLog::new(&mut memory, books);
    let (order_id, _) = copy.created();
    copy.note(ClientObservation::Read {
        reader: "ada".into(),
        order_id,
        version: 1,
    });
    let report = audited(&memory);
    assert!(report.is_clean(), "{}", super::text(&report));
    assert!(report.at_rest, "{}", super::text(&report));
    for finding in &report.findings {
        assert!(finding.checked > 0, "{:?} looked at nothing", finding.id);
    }
}

#[test]
#[allow(
    clippy::print_stdout,
    reason = "the test runner shows it when the test fails"
)]
fn what_is_planted_is_found_and_named() {
    let (memory, books) = world();
    let mut missed = Vec::new();
    for (name, invariant, plant) in MUTATIONS {
        let mut spoiled = memory.clone();
        plant(&mut MutatedLog::new(&mut spoiled, books));
        let report = audited(&spoiled);
        let finding = report.finding(*invariant);
        println!(
            "{name}: {:?} {:?}",
            report.violated(),
            finding.examples.first()
        );
        if finding.violated == 0 {
            missed.push(format!(
                "{name}: {invariant} is not named, but {:?}",
                report.violated()
            ));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn every_invariant_is_planted_at_least_twice() {
    for invariant in Invariant::ALL {
        let mutations = MUTATIONS
            .iter()
            .filter(|(_, planted, _)| planted == invariant);
        assert!(mutations.count() >= 2, "{invariant}");
    }
}

#[test]
fn what_lies_beyond_the_cut_is_no_violation() {
    let (memory, _) = world();
    // The orders' offsets are taken first: as if some of their commands had been processed right after that.
    for back in [1, 5, 40, 200] {
        let mut earlier = memory.clone();
        earlier.cut.begun_ms = first_ms(&earlier);
        for partition in 0..earlier.cut.partitions {
            let key = (Service::Orders, partition);
            if let Some(committed) = earlier.cut.committed.get_mut(&key) {
                *committed = (*committed - back).max(0);
            }
        }
        // The read model's snapshot is older still.
        earlier.rows = None;
        let report = audited(&earlier);
        assert!(!report.at_rest);
        assert!(report.is_clean(), "{back}: {}", super::text(&report));
    }
}

#[test]
fn what_a_partner_did_after_the_cut_is_no_violation() {
    let (memory, books) = world();
    let mut later = memory.clone();
    let mut copy = MutatedLog::new(&mut later, books);
    let mut charge = copy.charge();
    charge.idempotency_key = "01890000-0000-7000-8000-000000000001/charge/1".into();
    charge.time_ms = copy.memory.cut.begun_ms + 1;
    copy.ledger().push(charge);
    let report = audited(&later);
    assert!(
        report.at_rest && report.is_clean(),
        "{}",
        super::text(&report)
    );
    assert!(report.finding(Invariant::I3).unchecked > 0);
}

#[test]
fn dead_letters_that_were_deleted_are_not_missed() {
    let (memory, books) = world();
    let mut spoiled = memory.clone();
    let mut copy = MutatedLog::new(&mut spoiled, books);
    // A command that leads to nothing, so that nothing else is missed.
    let spot = copy.command::<Inventory>(|metadata, _| metadata.causation_id.is_empty());
    let event = copy.event::<Inventory>(|_, _| true);
    copy.remove(event);
    copy.garble(spot);
    let dead = TopicPartition {
        topic: Topic::Dlq,
        ..spot.place
    };
    let names = |memory: &Memory| {
        let report = audited(memory);
        let mut examples = report.finding(Invariant::I12).examples.iter();
        examples.any(|example| example.wrong.contains("is no dead letter"))
    };
    assert!(names(&spoiled), "nothing was deleted");
    let ends = spoiled.cut.ends.get_mut(&dead).expect("the topic is there");
    (ends.low, ends.high) = (1, 1);
    assert!(!names(&spoiled));
}

#[test]
fn a_command_of_a_newer_contract_cannot_be_checked_even_while_it_waits() {
    const NEWER: u32 = 4_711;
    let (memory, books) = world();
    let mut spoiled = memory.clone();
    let mut copy = MutatedLog::new(&mut spoiled, books);
    let spot = copy.command::<Inventory>(|metadata, _| !metadata.causation_id.is_empty());
    let (service, topic) = (spot.place.service, spot.place.topic);
    let schemas = books.codec.schemas();
    schemas.learn(service, topic, NEWER, Resolution::Newer);
    let offset = copy.reframe(spot, NEWER);
    let key = (service, spot.place.partition);
    spoiled.cut.committed.insert(key, offset);
    let trouble = audit::audit(&spoiled, books).expect_err("nobody can read it");
    assert!(
        matches!(
            trouble,
            Error::Newer {
                schema_id: NEWER,
                ..
            }
        ),
        "{trouble}"
    );
}

#[test]
fn what_was_found_is_told_although_the_second_reading_fails() {
    let mut memory = world().0.clone();
    let mut copy = MutatedLog::new(&mut memory, &world().1);
    copy.row(|row| match row {
        Row::Payment(row) => {
            row.amount += 1;
            true
        }
        _ => false,
    });
    let once = Once {
        memory,
        readings: Cell::new(0),
    };
    let report = audit::audit(&once, &world().1).expect("it was read once");
    assert_eq!(
        report.violated(),
        [Invariant::I8],
        "{}",
        super::text(&report)
    );
}

/// Rows that can be read once.
struct Once {
    memory: Memory,
    readings: Cell<u32>,
}

impl Evidence for Once {
    fn cut(&self) -> &Cut {
        self.memory.cut()
    }

    fn records(&self, place: TopicPartition) -> Result<Items<'_, Seen>, Error> {
        self.memory.records(place)
    }

    fn rows(&self) -> Result<Option<Items<'_, Row>>, Error> {
        self.readings.set(self.readings.get() + 1);
        // Whether there are any is asked before they are read.
        if self.readings.get() > 3 {
            return Err(Error::Source("the database is gone".into()));
        }
        self.memory.rows()
    }

    fn parked(&self) -> Result<Vec<Parked>, Error> {
        self.memory.parked()
    }

    fn payments(&self) -> Result<Option<Items<'_, LedgerPayment>>, Error> {
        self.memory.payments()
    }

    fn bookings(&self) -> Result<Option<Items<'_, LedgerBooking>>, Error> {
        self.memory.bookings()
    }

    fn journal(&self) -> Result<Option<Items<'_, ClientObservation>>, Error> {
        self.memory.journal()
    }
}

/// Time of the first record: everything is fresh then.
fn first_ms(memory: &Memory) -> i64 {
    let records = memory.records.values().flatten();
    records
        .map(|seen| seen.input.time_ms)
        .min()
        .unwrap_or_default()
}
