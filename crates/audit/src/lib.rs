//! The auditor: compares the log, and everything that is derived from it, with the business invariants.
//!
//! It is pure: it reads [`Evidence`], decides commands again with [`RuleBooks`], and returns a [`Report`]. It has these
//! parts:
//!
//! - `partition`: one partition of one service, command by command with the results of each: processed once, one
//!   outcome, versions, states, and the same records when the rule books decide again.
//! - `reference_model`: the business rules for events, written without the rule books and without the projector: state
//!   machines, money, stock, and the rows of the read model.
//! - `context`: the state that all parts share. `ledgers`, `messages`, `clients` and `read_model` compare it with the
//!   partners' ledgers, the commands between services, the journal of a client and the database.
//!
//! All partitions are read together in the order of their record times, so that memory is proportional to the live
//! aggregates: an order with its payment and shipment is checked and evicted when it is finished and its services may
//! have evicted it. The audit keeps for longer: the stock items; a hash of every state in the state topics, which are
//! compacted; a small entry for each order in a partner's ledger until the order is checked; the journal of a client;
//! shipped pieces by product; the offsets of aborted order events; and 16,384 sums over all rows.

mod client_observation;
mod clients;
mod context;
mod dedup_window;
mod evidence;
mod ledgers;
mod memory;
mod messages;
mod partition;
mod read_model;
mod reference_model;
mod report;
pub mod rows;
mod rule_books;

use std::collections::BTreeSet;

use contracts::{Inventory, Orders, Payments, Shipping, Topic};
use engine::Decider;

pub use client_observation::ClientObservation;
pub use evidence::{Cut, Error, Evidence, Items, LogRecord, TopicPartition};
pub use memory::InMemoryEvidence;
pub use report::{Example, Finding, Invariant, Report};
pub use rule_books::{DeciderConfig, RuleBooks};

use context::AuditContext;
use partition::{AnyPartitionAuditor, PartitionAuditor};
use read_model::ReadModel;
use report::Findings;

/// Steps between two calls of [`Evidence::progress`].
const PROGRESS_INTERVAL: u64 = 5_000;

/// Audits the evidence once.
///
/// # Errors
///
/// The evidence cannot be read. Nothing is known then.
pub fn audit<E, O, I, P, S>(
    evidence: &E,
    rule_books: &RuleBooks<O, I, P, S>,
) -> Result<Report, Error>
where
    E: Evidence,
    O: Decider<Contract = Orders> + Clone,
    I: Decider<Contract = Inventory> + Clone,
    P: Decider<Contract = Payments> + Clone,
    S: Decider<Contract = Shipping> + Clone,
{
    check_not_truncated(evidence.cut())?;
    let mut pass = read_all(evidence, rule_books, BTreeSet::new())?;
    let findings = &mut pass.context.findings;
    let differing = match pass.context.read_model.compare(evidence, findings) {
        Ok(differing) => differing,
        // Known violations are reported although the audit is incomplete.
        Err(error) if findings.has_violations() => {
            findings.note(Invariant::I8, format!("not checked completely: {error}"));
            return Ok(pass.report());
        }
        Err(error) => return Err(error),
    };
    if !differing.is_empty()
        && let Err(error) = report_differing_rows(evidence, &differing, findings, |suspects| {
            read_all(evidence, rule_books, suspects)
        })
    {
        let buckets = differing.len();
        let wrong =
            format!("rows differ in {buckets} buckets, they could not be read again: {error}");
        findings.violated(Invariant::I8, Example::new(wrong));
    }
    Ok(pass.report())
}

/// Calls `read_again` to collect the rows of the differing buckets, and reports the rows that differ.
fn report_differing_rows(
    evidence: &impl Evidence,
    differing: &BTreeSet<usize>,
    findings: &mut Findings,
    read_again: impl FnOnce(BTreeSet<usize>) -> Result<AuditPass, Error>,
) -> Result<(), Error> {
    let suspects = read_model::first_suspects(differing);
    let expected = read_again(suspects.clone())?
        .context
        .read_model
        .into_collected();
    match evidence.rows()? {
        Some(rows) => read_model::report_differences(expected, rows, &suspects, findings),
        None => Ok(()),
    }
}

/// Events are kept for ever. When the first ones are missing, the audit has no basis.
fn check_not_truncated(cut: &Cut) -> Result<(), Error> {
    for (topic_partition, ends) in &cut.ends {
        if topic_partition.topic == Topic::Events && ends.low > 0 {
            return Err(Error::Truncated {
                topic_partition: *topic_partition,
                low: ends.low,
            });
        }
    }
    Ok(())
}

/// The result of reading all evidence once.
struct AuditPass {
    context: AuditContext,
    at_rest: bool,
    records: u64,
}

impl AuditPass {
    fn report(self) -> Report {
        let Self {
            context,
            at_rest,
            records,
        } = self;
        Report {
            at_rest,
            records,
            events: context.event_count,
            commands: context.command_count,
            aggregates: context.aggregates.total,
            most_live: context.aggregates.peak as u64,
            findings: Findings::into_inner(context.findings),
        }
    }
}

fn read_all<E, O, I, P, S>(
    evidence: &E,
    rule_books: &RuleBooks<O, I, P, S>,
    suspects: BTreeSet<usize>,
) -> Result<AuditPass, Error>
where
    E: Evidence,
    O: Decider<Contract = Orders> + Clone,
    I: Decider<Contract = Inventory> + Clone,
    P: Decider<Contract = Payments> + Clone,
    S: Decider<Contract = Shipping> + Clone,
{
    let cut = evidence.cut();
    let model = ReadModel::new(cut, evidence.rows()?.is_some(), suspects);
    let mut context = AuditContext::new(
        evidence,
        rule_books.remembered_ms(),
        rule_books.has_constant_times,
        model,
    )?;
    let mut auditors: Vec<Box<dyn AnyPartitionAuditor + '_>> = Vec::new();
    for partition in 0..cut.partitions {
        macro_rules! auditor {
            ($config:expr) => {
                auditors.push(Box::new(PartitionAuditor::open(
                    evidence,
                    partition,
                    $config.clone(),
                    &rule_books.codec,
                    &rule_books.cluster,
                    &mut context,
                )?))
            };
        }
        auditor!(rule_books.orders);
        auditor!(rule_books.inventory);
        auditor!(rule_books.payments);
        auditor!(rule_books.shipping);
    }
    let mut steps = 0;
    // The partition with the earliest next record.
    while let Some((time_ms, index)) = (0..auditors.len())
        .filter_map(|index| Some((auditors[index].next_ms()?, index)))
        .min()
    {
        auditors[index].step(&mut context)?;
        let partition = auditors[index].partition();
        for id in context.evict_finished(partition, time_ms) {
            for auditor in auditors
                .iter_mut()
                .filter(|auditor| auditor.holds_lifecycles_of(partition))
            {
                auditor.evict(&mut context, &id);
            }
        }
        steps += 1;
        if steps % PROGRESS_INTERVAL == 0 {
            evidence.progress(steps);
        }
    }
    let mut records = 0;
    for auditor in &mut auditors {
        records += auditor.finish(&mut context)?;
    }
    let at_rest = context.finish();
    context.report_unmatched(at_rest);
    Ok(AuditPass {
        context,
        at_rest,
        records,
    })
}
