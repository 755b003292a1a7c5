//! The read model against the log. Rows are compared by sums over buckets, so that neither side is kept; what differs
//! is then found in a second reading that collects the rows of the buckets that differ.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher as _};

use contracts::{Service, Topic};
use engine::log::Partition;

use crate::evidence::{Cut, Error, Evidence, Items, TopicPartition};
use crate::reference_model::OrderLifecycle;
use crate::report::{Example, Findings, Invariant};
use crate::rows::{Row, RowKey};

const BUCKETS: usize = 1 << 14;
/// Buckets whose rows are collected at most, so that a read model of something else does not fill the memory.
const SUSPECTS: usize = 64;

/// Rows of one bucket, whatever their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    rows: i64,
    hashes: u128,
}

impl Sum {
    fn add(&mut self, row: &Row) {
        self.rows += 1;
        self.hashes = self.hashes.wrapping_add(digest(row));
    }
}

fn digest(row: &Row) -> u128 {
    let half = |seed: u8| {
        let mut hasher = DefaultHasher::new();
        (seed, row).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

#[allow(clippy::cast_possible_truncation)]
fn bucket(row: &Row) -> usize {
    let mut hasher = DefaultHasher::new();
    match row {
        Row::Order(row) => (0, row.order_id).hash(&mut hasher),
        Row::OrderLine(row) => (1, row.order_id, row.position).hash(&mut hasher),
        Row::OrderEvent(row) => (2, row.order_id, row.version).hash(&mut hasher),
        Row::Stock(row) => (3, &row.sku).hash(&mut hasher),
        Row::Payment(row) => (4, row.order_id).hash(&mut hasher),
        Row::Shipment(row) => (5, row.order_id).hash(&mut hasher),
    }
    hasher.finish() as usize % BUCKETS
}

/// The rows that the log leads to.
#[derive(Debug)]
pub(crate) struct ReadModel {
    positions: BTreeMap<(Service, Partition), i64>,
    /// Offset after the last committed event seen.
    ends: BTreeMap<(Service, Partition), i64>,
    is_kept: bool,
    sums: Vec<Sum>,
    expected: u64,
    /// Buckets whose rows are collected, in the second reading.
    suspects: BTreeSet<usize>,
    collected: Vec<Row>,
    /// Of aborted events of orders.
    aborted: HashSet<(Partition, i64)>,
}

impl ReadModel {
    /// Nothing is expected yet; rows of `suspects` are going to be collected.
    pub(crate) fn new(cut: &Cut, is_kept: bool, suspects: BTreeSet<usize>) -> Self {
        Self {
            positions: cut.positions.clone(),
            ends: BTreeMap::new(),
            is_kept,
            sums: vec![Sum::default(); BUCKETS],
            expected: 0,
            suspects,
            collected: Vec::new(),
            aborted: HashSet::new(),
        }
    }

    /// Whether the read model has applied the event.
    pub(crate) fn has_applied(&self, service: Service, partition: Partition, offset: i64) -> bool {
        let position = self.positions.get(&(service, partition));
        position.is_some_and(|position| offset < *position)
    }

    /// An event of the log.
    pub(crate) fn saw(&mut self, service: Service, partition: Partition, offset: i64) {
        self.ends.insert((service, partition), offset + 1);
    }

    /// An event of an aborted transaction.
    pub(crate) fn saw_aborted(&mut self, place: TopicPartition, offset: i64) {
        if (place.service, place.topic) == (Service::Orders, Topic::Events) {
            self.aborted.insert((place.partition, offset));
        }
    }

    /// Whether every event is applied.
    pub(crate) fn is_complete(&self) -> bool {
        !self.is_kept
            || self
                .ends
                .iter()
                .all(|(key, end)| self.positions.get(key).is_some_and(|at| at >= end))
    }

    /// The read model has this row.
    pub(crate) fn expect(&mut self, row: Row) {
        if !self.is_kept {
            return;
        }
        let bucket = bucket(&row);
        self.sums[bucket].add(&row);
        self.expected += 1;
        if self.suspects.contains(&bucket) {
            self.collected.push(row);
        }
    }

    /// It has the rows of this life.
    pub(crate) fn expect_life(&mut self, life: OrderLifecycle) {
        if let Some(row) = life.order.and_then(|order| order.row) {
            self.expect(Row::Order(row));
        }
        if let Some(payment) = life.payment
            && payment.row.version > 0
        {
            self.expect(Row::Payment(payment.row));
        }
        if let Some(shipment) = life.shipment
            && shipment.row.version > 0
        {
            self.expect(Row::Shipment(shipment.row));
        }
    }

    /// The rows that were collected.
    pub(crate) fn into_collected(self) -> Vec<Row> {
        self.collected
    }

    /// Holds the rows that there are against those that are expected; the buckets that differ.
    pub(crate) fn compare(
        &self,
        evidence: &impl Evidence,
        findings: &mut Findings,
    ) -> Result<BTreeSet<usize>, Error> {
        let Some(rows) = evidence.rows()? else {
            for invariant in [Invariant::I8, Invariant::I9] {
                findings.note(invariant, "not checked: no read model was given");
            }
            return Ok(BTreeSet::new());
        };
        let mut sums = vec![Sum::default(); BUCKETS];
        for row in rows {
            let row = row?;
            sums[bucket(&row)].add(&row);
            self.look(&row, findings);
        }
        findings.checked_many(Invariant::I8, self.expected);
        self.look_at_positions(evidence.cut(), findings);
        for parked in evidence.parked()? {
            let place = TopicPartition::new(parked.service, Topic::Events, parked.partition);
            let wrong = format!("set aside by the projector: {}", parked.error);
            let example = Example::new(wrong)
                .at(place, parked.first_offset)
                .of(String::from_utf8_lossy(&parked.key));
            findings.violated(Invariant::I8, example);
        }
        let differing = (0..BUCKETS).filter(|bucket| sums[*bucket] != self.sums[*bucket]);
        Ok(differing.collect())
    }

    /// What a row says of positions and aborted transactions.
    fn look(&self, row: &Row, findings: &mut Findings) {
        let Row::OrderEvent(row) = row else { return };
        findings.checked(Invariant::I9);
        findings.checked(Invariant::I10);
        let place = TopicPartition::new(Service::Orders, Topic::Events, row.partition);
        let example = |wrong: &str| {
            Example::new(wrong)
                .at(place, row.offset)
                .of(row.order_id.to_string())
        };
        if !self.has_applied(Service::Orders, row.partition, row.offset) {
            let wrong = "it is applied, and the read model's position does not cover it";
            findings.violated(Invariant::I9, example(wrong));
        }
        if self.aborted.contains(&(row.partition, row.offset)) {
            let wrong = "the read model has an event of an aborted transaction";
            findings.violated(Invariant::I10, example(wrong));
        }
    }

    fn look_at_positions(&self, cut: &Cut, findings: &mut Findings) {
        for ((service, partition), position) in &self.positions {
            let place = TopicPartition::new(*service, Topic::Events, *partition);
            findings.checked(Invariant::I9);
            let ends = cut.ends(place);
            if *position > ends.high || *position < 0 {
                let wrong = format!(
                    "the read model's position lies outside the log, which ends at {}",
                    ends.high
                );
                let example = Example::new(wrong).at(place, *position);
                findings.violated(Invariant::I9, example);
            }
        }
    }
}

/// The buckets to look into.
pub(crate) fn first(differing: &BTreeSet<usize>) -> BTreeSet<usize> {
    differing.iter().copied().take(SUSPECTS).collect()
}

/// Says what differs in the buckets that were collected.
pub(crate) fn explain(
    expected: Vec<Row>,
    rows: Items<'_, Row>,
    suspects: &BTreeSet<usize>,
    findings: &mut Findings,
) -> Result<(), Error> {
    let mut sides: BTreeMap<RowKey, (Vec<Row>, Vec<Row>)> = BTreeMap::new();
    for row in expected {
        sides.entry(row.key()).or_default().0.push(row);
    }
    for row in rows {
        let row = row?;
        if suspects.contains(&bucket(&row)) {
            sides.entry(row.key()).or_default().1.push(row);
        }
    }
    for ((table, id, _), (expected, found)) in sides {
        if expected == found {
            continue;
        }
        let wrong = match (expected.first(), found.first()) {
            (Some(expected), None) => format!("{table} lacks {expected:?}"),
            (None, Some(found)) => {
                format!("{table} has {found:?}, which nothing in the log leads to")
            }
            (Some(expected), Some(found)) if expected != found => {
                format!("{table} has {found:?}, the log leads to {expected:?}")
            }
            _ => format!("{table} has it {} times", found.len()),
        };
        let mut example = Example::new(shorten(wrong)).of(id);
        if let Some(Row::OrderEvent(row)) = found.first().or(expected.first()) {
            let place = TopicPartition::new(Service::Orders, Topic::Events, row.partition);
            example = example.at(place, row.offset);
        }
        findings.violated(Invariant::I8, example);
    }
    Ok(())
}

fn shorten(text: String) -> String {
    const LONGEST: usize = 600;
    if text.chars().count() <= LONGEST {
        return text;
    }
    let head: String = text.chars().take(LONGEST).collect();
    format!("{head}…")
}
