//! What every part of an audit works on.

use crate::clients::Clients;
use crate::dedup_window::DedupWindow;
use crate::evidence::{Error, Evidence};
use crate::ledgers::{LedgerReconciliation, UnmatchedLedgerEntry};
use crate::messages::Messages;
use crate::read_model::ReadModel;
use crate::reference_model::{Cases, Occurrence, OrderLifecycle, Shipped};
use crate::report::{Example, Findings, Invariant};

/// What may still be on its way at the cut: a transaction's longest time, and clocks that differ.
const UNSETTLED_MS: i64 = 60_000;

/// Something that nothing in the cut accounts for. While the system goes on, what is fresh may belong to what lies
/// beyond the cut.
#[derive(Debug)]
struct UnmatchedRecord {
    time_ms: i64,
    invariant: Invariant,
    example: Example,
}

/// Findings, and what they are made with.
pub(crate) struct AuditContext {
    pub(crate) findings: Findings,
    pub(crate) cases: Cases,
    pub(crate) books: LedgerReconciliation,
    pub(crate) clients: Clients,
    pub(crate) messages: Messages,
    pub(crate) model: ReadModel,
    pub(crate) shipped: Shipped,
    /// Adjustments of stock, by product and id.
    pub(crate) adjustments: DedupWindow,
    /// Ids of events.
    pub(crate) event_ids: DedupWindow,
    /// How long a service remembers a finished aggregate.
    pub(crate) remembered_ms: i64,
    /// Deadlines must be those of the rule books.
    pub(crate) has_constant_times: bool,
    begun_ms: i64,
    loose: Vec<UnmatchedRecord>,
    pub(crate) events: u64,
    pub(crate) commands: u64,
    /// Commands that are not processed yet.
    pub(crate) waiting: u64,
    /// Events beyond the cut.
    pub(crate) beyond: u64,
}

impl AuditContext {
    pub(crate) fn open(
        evidence: &impl Evidence,
        remembered_ms: i64,
        has_constant_times: bool,
        model: ReadModel,
    ) -> Result<Self, Error> {
        Ok(Self {
            findings: Findings::new(),
            cases: Cases::default(),
            books: LedgerReconciliation::read(evidence)?,
            clients: Clients::read(evidence)?,
            messages: Messages::new(remembered_ms),
            model,
            shipped: Shipped::default(),
            adjustments: DedupWindow::new(remembered_ms.max(60 * 60_000)),
            event_ids: DedupWindow::new(remembered_ms),
            remembered_ms,
            has_constant_times,
            begun_ms: evidence.cut().begun_ms,
            loose: Vec::new(),
            events: 0,
            commands: 0,
            waiting: 0,
            beyond: 0,
        })
    }

    /// Something that nothing accounts for, of the time `time_ms`.
    pub(crate) fn loose(&mut self, time_ms: i64, invariant: Invariant, example: Example) {
        self.loose.push(UnmatchedRecord {
            time_ms,
            invariant,
            example,
        });
    }

    /// Judges an event's id: derived from its command's, and never seen before.
    pub(crate) fn event_id(&mut self, at: &Occurrence<'_>, id: &str) {
        if !self.event_ids.insert(at.time_ms, id) {
            let wrong = format!("event id {id} is that of another event");
            self.findings.violated(Invariant::I6, at.example(wrong));
        }
    }

    /// Closes lives of a partition that nothing can happen to any more; their ids.
    pub(crate) fn close(&mut self, partition: i32, time_ms: i64) -> Vec<String> {
        let until_ms = time_ms.saturating_sub(self.remembered_ms);
        let mut closed = Vec::new();
        loop {
            let is_awaited = |id: &str| self.messages.is_under_way_to(id);
            let Some((id, life)) = self.cases.close(partition, until_ms, is_awaited) else {
                return closed;
            };
            self.judge(&id, life);
            closed.push(id);
        }
    }

    /// Judges a life as a whole, as far as it has come.
    fn judge(&mut self, id: &str, life: OrderLifecycle) {
        let wrongs = self.books.judge(&mut self.findings, id, &life);
        // The orders' offsets are the oldest of the cut: their payments and parcels may have gone on already.
        let is_ahead = life.order.is_none();
        for (invariant, wrong) in wrongs {
            let example = Example::new(wrong).of(id);
            if is_ahead {
                self.loose(life.last_ms, invariant, example);
            } else {
                self.findings.violated(invariant, example);
            }
        }
        if let Some(order) = &life.order {
            self.clients.judge(&mut self.findings, id, order.version);
        }
        self.model.expect_life(life);
    }

    /// Judges what is left when everything has been read. Whether everything is at rest.
    pub(crate) fn rest(&mut self) -> bool {
        let is_over = self.cases.lives.values().all(OrderLifecycle::is_over);
        let at_rest = is_over && self.waiting == 0 && self.beyond == 0 && self.model.is_complete();
        let mut lives: Vec<_> = std::mem::take(&mut self.cases.lives).into_iter().collect();
        lives.sort_by(|(left, _), (right, _)| left.cmp(right));
        for (id, life) in lives {
            self.judge(&id, life);
        }
        self.judge_stock(at_rest);
        for stranger in self.books.strangers(&mut self.findings) {
            let UnmatchedLedgerEntry { id, wrong, time_ms } = stranger;
            self.loose(time_ms, Invariant::I3, Example::new(wrong).of(id));
        }
        for example in self.clients.unknown() {
            self.findings.violated(Invariant::I2, example);
        }
        for (time_ms, invariant, example) in self.messages.unaccounted() {
            self.loose(time_ms, invariant, example);
        }
        self.books.sums(&mut self.findings, at_rest);
        self.clients.notes(&mut self.findings);
        at_rest
    }

    fn judge_stock(&mut self, at_rest: bool) {
        let mut items: Vec<_> = std::mem::take(&mut self.cases.stock).into_iter().collect();
        items.sort_by(|(left, _), (right, _)| left.cmp(right));
        for (sku, item) in items {
            let shipped = self.shipped.of(&sku);
            if at_rest {
                self.findings.checked(Invariant::I4);
                let stranded = item.reservations.keys().min();
                if let Some(order_id) = stranded {
                    let wrong = format!(
                        "{} still reserved at rest, such as for order {order_id}",
                        item.reserved
                    );
                    self.findings
                        .violated(Invariant::I4, Example::new(wrong).of(&sku));
                } else if item.deducted != shipped {
                    let wrong = format!("{} deducted, orders shipped {shipped}", item.deducted);
                    self.findings
                        .violated(Invariant::I4, Example::new(wrong).of(&sku));
                }
            }
            if let Some(row) = item.row {
                self.model.expect(crate::rows::Row::Stock(row));
            }
        }
    }

    /// Judges the loose ends: all of them at rest, else only what had time to settle.
    pub(crate) fn tie(&mut self, at_rest: bool) {
        let settled_ms = self.begun_ms.saturating_sub(UNSETTLED_MS);
        let mut loose = std::mem::take(&mut self.loose);
        loose.sort_by_key(|end| end.time_ms);
        for end in loose {
            if at_rest || end.time_ms < settled_ms {
                self.findings.violated(end.invariant, end.example);
            }
        }
    }
}
