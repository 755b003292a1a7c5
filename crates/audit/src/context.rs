//! The state that all parts of an audit share.

use crate::clients::ClientJournal;
use crate::dedup_window::DedupWindow;
use crate::evidence::{Error, Evidence};
use crate::ledgers::{LedgerReconciliation, UnmatchedLedgerEntry};
use crate::messages::Messages;
use crate::read_model::ReadModel;
use crate::reference_model::{EventContext, LiveAggregates, OrderLifecycle, ShippedPieces};
use crate::report::{Example, Findings, Invariant};

/// A record younger than this may lack its counterpart: transactions last, and clocks differ.
const IN_FLIGHT_MS: i64 = 60_000;

/// A record without its counterpart in the cut. While the system runs, the counterpart of a recent record may be beyond
/// the cut.
#[derive(Debug)]
struct UnmatchedRecord {
    time_ms: i64,
    invariant: Invariant,
    example: Example,
}

/// The findings and the state that they are derived from.
pub(crate) struct AuditContext {
    pub(crate) findings: Findings,
    pub(crate) aggregates: LiveAggregates,
    pub(crate) ledgers: LedgerReconciliation,
    pub(crate) clients: ClientJournal,
    pub(crate) messages: Messages,
    pub(crate) read_model: ReadModel,
    pub(crate) shipped: ShippedPieces,
    /// Hashes of product and id of stock adjustments.
    pub(crate) adjustments: DedupWindow,
    /// Ids of events.
    pub(crate) event_ids: DedupWindow,
    /// How long a service keeps a finished aggregate, at least.
    pub(crate) remembered_ms: i64,
    /// Deadlines must match the configured waiting times.
    pub(crate) has_constant_times: bool,
    begun_ms: i64,
    unmatched: Vec<UnmatchedRecord>,
    pub(crate) event_count: u64,
    pub(crate) command_count: u64,
    /// Commands that are not yet processed.
    pub(crate) pending_commands: u64,
    /// Events whose commands are beyond the cut.
    pub(crate) events_beyond_cut: u64,
}

impl AuditContext {
    pub(crate) fn new(
        evidence: &impl Evidence,
        remembered_ms: i64,
        has_constant_times: bool,
        read_model: ReadModel,
    ) -> Result<Self, Error> {
        Ok(Self {
            findings: Findings::new(),
            aggregates: LiveAggregates::default(),
            ledgers: LedgerReconciliation::read(evidence)?,
            clients: ClientJournal::read(evidence)?,
            messages: Messages::new(remembered_ms),
            read_model,
            shipped: ShippedPieces::default(),
            adjustments: DedupWindow::new(remembered_ms.max(60 * 60_000)),
            event_ids: DedupWindow::new(remembered_ms),
            remembered_ms,
            has_constant_times,
            begun_ms: evidence.cut().begun_ms,
            unmatched: Vec::new(),
            event_count: 0,
            command_count: 0,
            pending_commands: 0,
            events_beyond_cut: 0,
        })
    }

    /// Adds a record of the time `time_ms` without a counterpart.
    pub(crate) fn add_unmatched(&mut self, time_ms: i64, invariant: Invariant, example: Example) {
        self.unmatched.push(UnmatchedRecord {
            time_ms,
            invariant,
            example,
        });
    }

    /// Checks that the id of an event is unique.
    pub(crate) fn check_event_id(&mut self, at: &EventContext<'_>, id: &str) {
        if !self.event_ids.insert(at.time_ms, id) {
            let wrong = format!("event id {id} is that of another event");
            self.findings.violated(Invariant::I6, at.example(wrong));
        }
    }

    /// Checks and evicts the finished lifecycles of a partition that cannot change any more. Returns their ids.
    pub(crate) fn evict_finished(&mut self, partition: i32, time_ms: i64) -> Vec<String> {
        let until_ms = time_ms.saturating_sub(self.remembered_ms);
        let mut evicted = Vec::new();
        loop {
            let is_awaited = |id: &str| self.messages.has_in_flight_to(id);
            let Some((id, lifecycle)) = self.aggregates.evict_next(partition, until_ms, is_awaited)
            else {
                return evicted;
            };
            self.check_lifecycle(&id, lifecycle);
            evicted.push(id);
        }
    }

    /// Checks a lifecycle as far as it has been read.
    fn check_lifecycle(&mut self, id: &str, lifecycle: OrderLifecycle) {
        let violations = self.ledgers.reconcile(&mut self.findings, id, &lifecycle);
        // The orders offsets are read first, so payments and shipments may be newer.
        let is_ahead = lifecycle.order.is_none();
        for (invariant, wrong) in violations {
            let example = Example::new(wrong).of_aggregate(id);
            if is_ahead {
                self.add_unmatched(lifecycle.last_ms, invariant, example);
            } else {
                self.findings.violated(invariant, example);
            }
        }
        if let Some(order) = &lifecycle.order {
            self.clients
                .check_version(&mut self.findings, id, order.version);
        }
        self.read_model.expect_lifecycle(lifecycle);
    }

    /// Checks the remaining aggregates after all records are read. Returns whether everything is at rest.
    pub(crate) fn finish(&mut self) -> bool {
        let are_finished = self
            .aggregates
            .lifecycles
            .values()
            .all(OrderLifecycle::is_finished);
        let at_rest = are_finished
            && self.pending_commands == 0
            && self.events_beyond_cut == 0
            && self.read_model.is_complete();
        let mut lifecycles: Vec<_> = std::mem::take(&mut self.aggregates.lifecycles)
            .into_iter()
            .collect();
        lifecycles.sort_by(|(left, _), (right, _)| left.cmp(right));
        for (id, lifecycle) in lifecycles {
            self.check_lifecycle(&id, lifecycle);
        }
        self.check_stock(at_rest);
        for entry in self.ledgers.unmatched_entries(&mut self.findings) {
            let UnmatchedLedgerEntry { id, wrong, time_ms } = entry;
            self.add_unmatched(time_ms, Invariant::I3, Example::new(wrong).of_aggregate(id));
        }
        for example in self.clients.missing_orders() {
            self.findings.violated(Invariant::I2, example);
        }
        for (time_ms, invariant, example) in self.messages.unmatched() {
            self.add_unmatched(time_ms, invariant, example);
        }
        self.ledgers.check_totals(&mut self.findings, at_rest);
        self.clients.report(&mut self.findings);
        at_rest
    }

    fn check_stock(&mut self, at_rest: bool) {
        let mut items: Vec<_> = std::mem::take(&mut self.aggregates.stock)
            .into_iter()
            .collect();
        items.sort_by(|(left, _), (right, _)| left.cmp(right));
        for (sku, item) in items {
            let shipped = self.shipped.pieces(&sku);
            if at_rest {
                self.findings.checked(Invariant::I4);
                let reserved_for = item.reservations.keys().min();
                if let Some(order_id) = reserved_for {
                    let wrong = format!(
                        "{} still reserved at rest, such as for order {order_id}",
                        item.reserved
                    );
                    self.findings
                        .violated(Invariant::I4, Example::new(wrong).of_aggregate(&sku));
                } else if item.deducted != shipped {
                    let wrong = format!("{} deducted, orders shipped {shipped}", item.deducted);
                    self.findings
                        .violated(Invariant::I4, Example::new(wrong).of_aggregate(&sku));
                }
            }
            if let Some(row) = item.row {
                self.read_model.expect(crate::rows::Row::Stock(row));
            }
        }
    }

    /// Reports the records without a counterpart: all of them at rest, otherwise those that are too old to be in
    /// flight.
    pub(crate) fn report_unmatched(&mut self, at_rest: bool) {
        let cutoff_ms = self.begun_ms.saturating_sub(IN_FLIGHT_MS);
        let mut unmatched = std::mem::take(&mut self.unmatched);
        unmatched.sort_by_key(|record| record.time_ms);
        for record in unmatched {
            if at_rest || record.time_ms < cutoff_ms {
                self.findings.violated(record.invariant, record.example);
            }
        }
    }
}
