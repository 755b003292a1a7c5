//! The result of an audit.

use std::fmt;

use serde::Serialize;

use crate::evidence::TopicPartition;

/// Limit of the examples for each invariant.
const MAX_EXAMPLES: usize = 5;

macro_rules! invariants {
    ($($(#[$doc:meta])* $variant:ident $id:literal $name:literal,)*) => {
        /// An invariant of the business.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        pub enum Invariant {
            $($(#[$doc])* #[serde(rename = $id)] $variant,)*
        }

        impl Invariant {
            /// Every invariant.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its short name, such as `I4`.
            pub const fn id(self) -> &'static str {
                match self { $(Self::$variant => $id,)* }
            }

            /// The invariant in one line.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

invariants! {
    /// Outcomes.
    I1 "I1" "a command has one final outcome at most",
    /// Acknowledgements.
    I2 "I2" "an acknowledged order exists",
    /// Charges.
    I3 "I3" "an order is charged once, and the partners' ledgers say what the log says",
    /// Stock.
    I4 "I4" "reserved and deducted never exceed received",
    /// Refunds.
    I5 "I5" "refunds are the charges of undone orders, once",
    /// Versions.
    I6 "I6" "versions are 1..n without gaps, each event id once",
    /// Readers.
    I7 "I7" "what a reader sees never goes back",
    /// Read model.
    I8 "I8" "the read model is the fold of the log",
    /// Positions.
    I9 "I9" "positions move forward and cover what is applied",
    /// Aborted transactions.
    I10 "I10" "nothing of an aborted transaction is visible",
    /// Money.
    I11 "I11" "charged less refunded is what paid orders are worth",
    /// Processing.
    I12 "I12" "every command is processed exactly once",
    /// Idempotency.
    I13 "I13" "the same id gives the same answer, with another body none",
    /// State machines.
    I14 "I14" "no transition outside the state machines",
    /// StateTopic.
    I15 "I15" "states are the fold of the events",
    /// Decoding.
    I16 "I16" "every event decodes and folds",
    /// Deciding.
    I17 "I17" "commands decided again give the same records",
}

impl fmt::Display for Invariant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.id())
    }
}

/// One violation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Example {
    /// Topic and partition of the record, when it concerns one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Offset of the record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    /// The aggregate, when it concerns one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregate_id: Option<String>,
    /// The text of the violation.
    pub wrong: String,
}

impl Example {
    /// A violation with its text.
    pub fn new(wrong: impl Into<String>) -> Self {
        Self {
            wrong: wrong.into(),
            ..Self::default()
        }
    }

    /// Sets the position of the record.
    #[must_use]
    pub fn at(mut self, topic_partition: TopicPartition, offset: i64) -> Self {
        self.place = Some(topic_partition.to_string());
        self.offset = Some(offset);
        self
    }

    /// Sets the aggregate.
    #[must_use]
    pub fn of_aggregate(mut self, aggregate_id: impl Into<String>) -> Self {
        self.aggregate_id = Some(aggregate_id.into());
        self
    }
}

impl fmt::Display for Example {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(place), Some(offset)) = (&self.place, self.offset) {
            write!(formatter, "{place}@{offset} ")?;
        }
        if let Some(id) = &self.aggregate_id {
            write!(formatter, "{id} ")?;
        }
        formatter.write_str(&self.wrong)
    }
}

/// The result for one invariant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The invariant.
    pub id: Invariant,
    /// The invariant in one line.
    pub name: &'static str,
    /// Number of checks.
    pub checked: u64,
    /// Number of violations.
    pub violated: u64,
    /// Number of checks that were not possible, such as of commands that other rules decided.
    pub unchecked: u64,
    /// Why some or all checks were not possible.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The first violations.
    pub examples: Vec<Example>,
}

impl Finding {
    fn add_violation(&mut self, example: Example) {
        self.violated += 1;
        if self.examples.len() < MAX_EXAMPLES {
            self.examples.push(example);
        }
    }
}

/// The result of an audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Everything was at rest: no command waits, no aggregate is in progress, the read model is up to date. Invariants
    /// that hold only at rest were checked too.
    pub at_rest: bool,
    /// Records read.
    pub records: u64,
    /// Events among them, within the cut.
    pub events: u64,
    /// Commands among them, within the cut.
    pub commands: u64,
    /// Number of aggregates.
    pub aggregates: u64,
    /// Maximum number of aggregates in memory at the same time.
    pub most_live: u64,
    /// One for each invariant, in their order.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether no invariant is violated.
    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(|finding| finding.violated == 0)
    }

    /// The violated invariants.
    pub fn violated(&self) -> Vec<Invariant> {
        let violated = self.findings.iter().filter(|finding| finding.violated > 0);
        violated.map(|finding| finding.id).collect()
    }

    /// Adds a violation that was found by comparing this audit with another one.
    pub fn add_violation(&mut self, id: Invariant, example: Example) {
        for finding in self.findings.iter_mut().filter(|finding| finding.id == id) {
            finding.add_violation(example.clone());
        }
    }

    /// The result for one invariant.
    ///
    /// # Panics
    ///
    /// Never: there is one finding for each invariant.
    pub fn finding(&self, id: Invariant) -> &Finding {
        let mut findings = self.findings.iter();
        findings
            .find(|finding| finding.id == id)
            .expect("there is a finding for each invariant")
    }
}

/// The findings during an audit.
#[derive(Debug)]
pub(crate) struct Findings(Vec<Finding>);

impl Findings {
    pub(crate) fn new() -> Self {
        let finding = |id: &Invariant| Finding {
            id: *id,
            name: id.name(),
            checked: 0,
            violated: 0,
            unchecked: 0,
            note: None,
            examples: Vec::new(),
        };
        Self(Invariant::ALL.iter().map(finding).collect())
    }

    fn finding_mut(&mut self, id: Invariant) -> &mut Finding {
        &mut self.0[id as usize]
    }

    /// Counts a check.
    pub(crate) fn checked(&mut self, id: Invariant) {
        self.finding_mut(id).checked += 1;
    }

    /// Counts several checks.
    pub(crate) fn add_checked(&mut self, id: Invariant, count: u64) {
        self.finding_mut(id).checked += count;
    }

    /// Counts a check that is not possible.
    pub(crate) fn unchecked(&mut self, id: Invariant) {
        self.finding_mut(id).unchecked += 1;
    }

    /// Sets the reason why something is not checked.
    pub(crate) fn note(&mut self, id: Invariant, note: impl Into<String>) {
        self.finding_mut(id).note = Some(note.into());
    }

    /// Adds a violation.
    pub(crate) fn violated(&mut self, id: Invariant, example: Example) {
        self.finding_mut(id).add_violation(example);
    }

    pub(crate) fn has_violations(&self) -> bool {
        self.0.iter().any(|finding| finding.violated > 0)
    }

    pub(crate) fn into_inner(self) -> Vec<Finding> {
        self.0
    }
}
