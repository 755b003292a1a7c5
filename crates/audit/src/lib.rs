//! The auditor: holds the log, and everything that is derived from it, against the invariants of the business.
//!
//! It is pure: what it reads comes in as [`Evidence`], the rule books as [`RuleBooks`], and what it finds goes out as a
//! [`Report`]. Three ways of looking meet here:
//!
//! - `auditor`: one partition of one service, command by command with all that each led to: processed once, answered
//!   once, versions, states, and deciding again by the rule books.
//! - `cases`: what the business says of the events, written without the rule books and without the projector: state
//!   machines, money, stock, and the rows of the read model.
//! - `context`: what all of them share; `money`, `messages`, `clients` and `read_model` hold it against ledgers,
//!   neighbours, journals and the database.
//!
//! All partitions are read side by side in the order of their times, so that memory follows what is under way: an order
//! with its payment and shipment is judged and dropped once it is over and its services may have forgotten it. Kept
//! beyond that: the stock items; a hash of every state in the state topics, which are compacted; a small entry for each
//! order in a partner's ledger until the order is judged; a client's journal; pieces shipped by product; the offsets of
//! aborted order events; and 16,384 sums that stand for all rows.

mod clients;
mod context;
mod dedup_window;
mod evidence;
mod journal;
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

pub use evidence::{Cut, Error, Evidence, Items, Seen, TopicPartition};
pub use journal::ClientObservation;
pub use memory::Memory;
pub use report::{Example, Finding, Invariant, Report};
pub use rule_books::{DeciderConfig, RuleBooks};

use context::AuditContext;
use partition::{PartitionAuditor, Work};
use read_model::ReadModel;
use report::Findings;

/// Steps between two words about the progress.
const TELL_EVERY: u64 = 5_000;

/// Audits everything once.
///
/// # Errors
///
/// The evidence cannot be read; nothing is known then.
pub fn audit<E, O, I, P, S>(evidence: &E, books: &RuleBooks<O, I, P, S>) -> Result<Report, Error>
where
    E: Evidence,
    O: Decider<Contract = Orders> + Clone,
    I: Decider<Contract = Inventory> + Clone,
    P: Decider<Contract = Payments> + Clone,
    S: Decider<Contract = Shipping> + Clone,
{
    whole(evidence.cut())?;
    let mut walked = walk(evidence, books, BTreeSet::new())?;
    let findings = &mut walked.context.findings;
    let differing = match walked.context.model.compare(evidence, findings) {
        Ok(differing) => differing,
        // What is known to be wrong is told all the same.
        Err(trouble) if findings.has_violations() => {
            findings.note(Invariant::I8, format!("not checked to the end: {trouble}"));
            return Ok(walked.report());
        }
        Err(trouble) => return Err(trouble),
    };
    if !differing.is_empty()
        && let Err(trouble) = explain(evidence, &differing, findings, |suspects| {
            walk(evidence, books, suspects)
        })
    {
        let buckets = differing.len();
        let wrong =
            format!("rows differ, in {buckets} buckets; which ones is not known: {trouble}");
        findings.violated(Invariant::I8, Example::new(wrong));
    }
    Ok(walked.report())
}

/// Reads everything `again`, and says which rows differ.
fn explain(
    evidence: &impl Evidence,
    differing: &BTreeSet<usize>,
    findings: &mut Findings,
    again: impl FnOnce(BTreeSet<usize>) -> Result<Walked, Error>,
) -> Result<(), Error> {
    let suspects = read_model::first(differing);
    let expected = again(suspects.clone())?.context.model.into_collected();
    match evidence.rows()? {
        Some(rows) => read_model::explain(expected, rows, &suspects, findings),
        None => Ok(()),
    }
}

/// Events are kept for ever: without the first of them nothing can be said.
fn whole(cut: &Cut) -> Result<(), Error> {
    for (place, ends) in &cut.ends {
        if place.topic == Topic::Events && ends.low > 0 {
            return Err(Error::Truncated {
                place: *place,
                low: ends.low,
            });
        }
    }
    Ok(())
}

/// Everything read once.
struct Walked {
    context: AuditContext,
    at_rest: bool,
    records: u64,
}

impl Walked {
    fn report(self) -> Report {
        let Self {
            context,
            at_rest,
            records,
        } = self;
        Report {
            at_rest,
            records,
            events: context.events,
            commands: context.commands,
            aggregates: context.cases.seen,
            most_live: context.cases.most as u64,
            findings: Findings::into_inner(context.findings),
        }
    }
}

fn walk<E, O, I, P, S>(
    evidence: &E,
    books: &RuleBooks<O, I, P, S>,
    suspects: BTreeSet<usize>,
) -> Result<Walked, Error>
where
    E: Evidence,
    O: Decider<Contract = Orders> + Clone,
    I: Decider<Contract = Inventory> + Clone,
    P: Decider<Contract = Payments> + Clone,
    S: Decider<Contract = Shipping> + Clone,
{
    let cut = evidence.cut();
    let model = ReadModel::new(cut, evidence.rows()?.is_some(), suspects);
    let mut context = AuditContext::open(
        evidence,
        books.remembered_ms(),
        books.has_constant_times,
        model,
    )?;
    let mut auditors: Vec<Box<dyn Work + '_>> = Vec::new();
    for partition in 0..cut.partitions {
        macro_rules! auditor {
            ($book:expr) => {
                auditors.push(Box::new(PartitionAuditor::open(
                    evidence,
                    partition,
                    $book.clone(),
                    &books.codec,
                    &books.cluster,
                    &mut context,
                )?))
            };
        }
        auditor!(books.orders);
        auditor!(books.inventory);
        auditor!(books.payments);
        auditor!(books.shipping);
    }
    let mut steps = 0;
    // The desk whose next step is the earliest.
    while let Some((time_ms, index)) = (0..auditors.len())
        .filter_map(|index| Some((auditors[index].next_ms()?, index)))
        .min()
    {
        auditors[index].step(&mut context)?;
        let partition = auditors[index].partition();
        for id in context.close(partition, time_ms) {
            for auditor in auditors
                .iter_mut()
                .filter(|auditor| auditor.holds(partition))
            {
                auditor.close(&mut context, &id);
            }
        }
        steps += 1;
        if steps % TELL_EVERY == 0 {
            evidence.progress(steps);
        }
    }
    let mut records = 0;
    for auditor in &mut auditors {
        records += auditor.finish(&mut context)?;
    }
    let at_rest = context.rest();
    context.tie(at_rest);
    Ok(Walked {
        context,
        at_rest,
        records,
    })
}
