//! Compares the read model with the log. Rows are compared by sums over buckets, so that neither side is kept in
//! memory. A second pass collects the rows of the buckets that differ.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher as _};

use contracts::{Service, Topic};
use engine::log::Partition;

use crate::evidence::{Cut, Error, Evidence, Items, TopicPartition};
use crate::reference_model::OrderLifecycle;
use crate::report::{Example, Findings, Invariant};
use crate::rows::{Row, RowKey};

const BUCKETS: usize = 1 << 14;
/// Limit of the buckets whose rows are collected. It bounds the memory when the whole read model differs.
const MAX_SUSPECTS: usize = 64;

/// Number and hash of the rows of one bucket, independent of their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct BucketSum {
    rows: i64,
    hashes: u128,
}

impl BucketSum {
    fn add(&mut self, row: &Row) {
        self.rows += 1;
        self.hashes = self.hashes.wrapping_add(digest(row));
    }
}

fn digest(row: &Row) -> u128 {
    let seeded = |seed: u8| {
        let mut hasher = DefaultHasher::new();
        (seed, row).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    seeded(0) << 64 | seeded(1)
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

/// The rows that follow from the log.
#[derive(Debug)]
pub(crate) struct ReadModel {
    positions: BTreeMap<(Service, Partition), i64>,
    /// Offset after the last committed event that was read.
    ends: BTreeMap<(Service, Partition), i64>,
    is_given: bool,
    sums: Vec<BucketSum>,
    expected: u64,
    /// Buckets whose rows are collected in the second pass.
    suspects: BTreeSet<usize>,
    collected: Vec<Row>,
    /// Offsets of aborted order events.
    aborted: HashSet<(Partition, i64)>,
}

impl ReadModel {
    /// A read model without expected rows. The rows of `suspects` are going to be collected.
    pub(crate) fn new(cut: &Cut, is_given: bool, suspects: BTreeSet<usize>) -> Self {
        Self {
            positions: cut.positions.clone(),
            ends: BTreeMap::new(),
            is_given,
            sums: vec![BucketSum::default(); BUCKETS],
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

    /// Records a committed event.
    pub(crate) fn record_event(&mut self, service: Service, partition: Partition, offset: i64) {
        self.ends.insert((service, partition), offset + 1);
    }

    /// Records an event of an aborted transaction.
    pub(crate) fn record_aborted(&mut self, topic_partition: TopicPartition, offset: i64) {
        if (topic_partition.service, topic_partition.topic) == (Service::Orders, Topic::Events) {
            self.aborted.insert((topic_partition.partition, offset));
        }
    }

    /// Whether every event is applied.
    pub(crate) fn is_complete(&self) -> bool {
        !self.is_given
            || self
                .ends
                .iter()
                .all(|(key, end)| self.positions.get(key).is_some_and(|at| at >= end))
    }

    /// Expects a row in the read model.
    pub(crate) fn expect(&mut self, row: Row) {
        if !self.is_given {
            return;
        }
        let bucket = bucket(&row);
        self.sums[bucket].add(&row);
        self.expected += 1;
        if self.suspects.contains(&bucket) {
            self.collected.push(row);
        }
    }

    /// Expects the rows of a lifecycle.
    pub(crate) fn expect_lifecycle(&mut self, lifecycle: OrderLifecycle) {
        if let Some(row) = lifecycle.order.and_then(|order| order.row) {
            self.expect(Row::Order(row));
        }
        if let Some(payment) = lifecycle.payment
            && payment.row.version > 0
        {
            self.expect(Row::Payment(payment.row));
        }
        if let Some(shipment) = lifecycle.shipment
            && shipment.row.version > 0
        {
            self.expect(Row::Shipment(shipment.row));
        }
    }

    /// The collected rows.
    pub(crate) fn into_collected(self) -> Vec<Row> {
        self.collected
    }

    /// Compares the existing rows with the expected ones. Returns the buckets that differ.
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
        let mut sums = vec![BucketSum::default(); BUCKETS];
        for row in rows {
            let row = row?;
            sums[bucket(&row)].add(&row);
            self.check_row(&row, findings);
        }
        findings.add_checked(Invariant::I8, self.expected);
        self.check_positions(evidence.cut(), findings);
        for parked in evidence.parked()? {
            let topic_partition =
                TopicPartition::new(parked.service, Topic::Events, parked.partition);
            let wrong = format!("parked by the projector: {}", parked.error);
            let example = Example::new(wrong)
                .at(topic_partition, parked.first_offset)
                .of_aggregate(String::from_utf8_lossy(&parked.key));
            findings.violated(Invariant::I8, example);
        }
        let differing = (0..BUCKETS).filter(|bucket| sums[*bucket] != self.sums[*bucket]);
        Ok(differing.collect())
    }

    /// Checks an event row against positions and aborted transactions.
    fn check_row(&self, row: &Row, findings: &mut Findings) {
        let Row::OrderEvent(row) = row else { return };
        findings.checked(Invariant::I9);
        findings.checked(Invariant::I10);
        let topic_partition = TopicPartition::new(Service::Orders, Topic::Events, row.partition);
        let example = |wrong: &str| {
            Example::new(wrong)
                .at(topic_partition, row.offset)
                .of_aggregate(row.order_id.to_string())
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

    fn check_positions(&self, cut: &Cut, findings: &mut Findings) {
        for ((service, partition), position) in &self.positions {
            let topic_partition = TopicPartition::new(*service, Topic::Events, *partition);
            findings.checked(Invariant::I9);
            let ends = cut.ends(topic_partition);
            if *position > ends.high || *position < 0 {
                let wrong = format!(
                    "the read model's position lies outside the log, which ends at {}",
                    ends.high
                );
                let example = Example::new(wrong).at(topic_partition, *position);
                findings.violated(Invariant::I9, example);
            }
        }
    }
}

/// The buckets whose rows the second pass collects.
pub(crate) fn first_suspects(differing: &BTreeSet<usize>) -> BTreeSet<usize> {
    differing.iter().copied().take(MAX_SUSPECTS).collect()
}

/// Reports the differences in the collected buckets.
pub(crate) fn report_differences(
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
                format!("{table} has {found:?}, which does not follow from the log")
            }
            (Some(expected), Some(found)) if expected != found => {
                format!("{table} has {found:?}, the log gives {expected:?}")
            }
            _ => format!("{table} has it {} times", found.len()),
        };
        let mut example = Example::new(shorten(wrong)).of_aggregate(id);
        if let Some(Row::OrderEvent(row)) = found.first().or(expected.first()) {
            let topic_partition =
                TopicPartition::new(Service::Orders, Topic::Events, row.partition);
            example = example.at(topic_partition, row.offset);
        }
        findings.violated(Invariant::I8, example);
    }
    Ok(())
}

fn shorten(text: String) -> String {
    const MAX_CHARS: usize = 600;
    if text.chars().count() <= MAX_CHARS {
        return text;
    }
    let head: String = text.chars().take(MAX_CHARS).collect();
    format!("{head}…")
}
