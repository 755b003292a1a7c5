//! One window: decided, written in one transaction, and only then told.

use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use contracts::{Body as _, Contract};

use super::dead_letter::dead_letter;
use super::decide::{self, Decided};
use super::ownership::outstanding;
use super::partition::PartitionState;
use super::trace::Spans;
use super::{Error, RETRY, Reject, Safeguard, Worker, WorkerContext, checkpoint};
use crate::Decider;
use crate::codec::{Poison, Undecodable};
use crate::effects::{EffectContext, EffectScheduler, Origin};
use crate::log::{Failure, Input, Log, Output, Partition, PartitionWrites};

/// A window with at least this many dead letters, and more than half of it dead, is a bad deploy and no bad record.
const POISON_LIMIT: usize = 64;
/// A call that took longer may have been interrupted by a frozen process; beyond the group's session.
const FROZEN: Duration = Duration::from_secs(15);
/// Time for some heartbeats.
const HEARTBEATS: Duration = Duration::from_secs(3);

impl<D: Decider, L: Log, A: EffectScheduler<D>> Worker<D, L, A> {
    /// Decides the window and writes it.
    pub(super) fn process(&mut self, generation: &L::Generation) -> Result<(), Error> {
        let mut shares: BTreeMap<Partition, PartitionWrites> = BTreeMap::new();
        let inputs = std::mem::take(&mut self.inputs);
        let mut dead = 0;
        let mut taken = 0;
        for input in &inputs {
            let partition = input.partition;
            let Some(running) = self.running.get_mut(&partition) else {
                continue;
            };
            let share = shares.entry(partition).or_insert_with(|| PartitionWrites {
                partition,
                offset: running.position,
                outputs: Vec::new(),
            });
            // Fetched before a seek, or waiting behind a record that cannot be decoded yet.
            if input.offset < share.offset || running.blocked_until.is_some() {
                continue;
            }
            match Self::take(
                &self.tools,
                &self.poisoned,
                running,
                input,
                &mut self.spans,
                &mut share.outputs,
            ) {
                Taken::Done => {}
                Taken::Dead => dead += 1,
                Taken::Blocked(reason) => {
                    self.status.blocked(partition, reason);
                    running.blocked_until = Some(self.log.now() + RETRY * 5);
                    continue;
                }
                Taken::GoBack(poison) => {
                    tracing::error!(
                        service = %D::Contract::SERVICE, partition, offset = input.offset,
                        class = poison.class, message = poison.message,
                        "command cannot be processed; its window goes back"
                    );
                    self.poisoned.insert((partition, input.offset));
                    self.spans.fail(poison.class);
                    self.reset_partitions();
                    return Ok(());
                }
            }
            taken += 1;
            running.time_ms = running.time_ms.max(input.time_ms);
            share.offset = input.offset + 1;
        }
        self.inputs = inputs;
        if dead >= POISON_LIMIT && dead * 2 > taken {
            return Err(Error::Poisoned {
                dead,
                inputs: taken,
            });
        }
        self.pause_blocked();
        self.advance(&mut shares);
        self.add_checkpoints(&mut shares);
        self.add_positions(&mut shares);
        shares.retain(|partition, share| {
            !share.outputs.is_empty()
                || self
                    .running
                    .get(partition)
                    .is_some_and(|running| share.offset > running.committed)
        });
        if shares.is_empty() || self.recreate_at.is_some() {
            return Ok(());
        }
        self.write(generation, shares.into_values().collect(), taken)
    }

    /// Markers and aborted records behind the window's inputs are passed together with them.
    fn advance(&mut self, shares: &mut BTreeMap<Partition, PartitionWrites>) {
        for (partition, offset) in std::mem::take(&mut self.reached) {
            let Some(running) = self.running.get_mut(&partition) else {
                continue;
            };
            if running.blocked_until.is_some() {
                continue;
            }
            match shares.get_mut(&partition) {
                Some(share) => share.offset = share.offset.max(offset),
                None => running.position = running.position.max(offset),
            }
        }
    }

    fn take(
        tools: &WorkerContext<D>,
        poisoned: &HashSet<(Partition, i64)>,
        running: &mut PartitionState<D>,
        input: &Input,
        spans: &mut Spans,
        outputs: &mut Vec<Output>,
    ) -> Taken {
        let service = D::Contract::SERVICE.name();
        let mut trace = None;
        let poison = if poisoned.contains(&(input.partition, input.offset)) {
            Poison {
                class: "unprocessable",
                message: "deciding it failed; see the service's log".into(),
                schema_id: None,
            }
        } else {
            match decide::open(tools, input) {
                Ok((metadata, command)) => {
                    running.hear(&metadata);
                    let before = outputs.len();
                    trace = spans.process::<D>(input, command.kind());
                    // What is left of the rule book's panics, in its answers and its look at the end.
                    let decided = catch_unwind(AssertUnwindSafe(|| {
                        decide::decide(tools, running, input, &metadata, &command, trace, outputs)
                    }));
                    match decided.unwrap_or_else(|_| Err(Reject::GoBack(decide::panicked()))) {
                        Ok(decided) => {
                            let outcome = match decided {
                                Decided::Events(0) => "no_change",
                                Decided::Events(_) => "accepted",
                                Decided::Rejected => "rejected",
                            };
                            spans.decided(trace, outcome);
                            tools
                                .metrics
                                .commands
                                .with_label_values(&[service, command.kind(), outcome])
                                .inc();
                            return Taken::Done;
                        }
                        Err(Reject::GoBack(poison)) => return Taken::GoBack(poison),
                        Err(Reject::Poison(poison)) => {
                            outputs.truncate(before);
                            poison
                        }
                    }
                }
                Err(Undecodable::Poison(poison)) => poison,
                Err(Undecodable::Newer(id)) => {
                    return Taken::Blocked(format!(
                        "schema {id} is newer than this version: it must be upgraded"
                    ));
                }
                Err(Undecodable::Pending(id)) => {
                    return Taken::Blocked(format!(
                        "waiting for the registry to resolve schema {id}"
                    ));
                }
            }
        };
        tracing::warn!(
            service,
            partition = input.partition,
            offset = input.offset,
            class = poison.class,
            message = poison.message,
            "dead letter"
        );
        tools
            .metrics
            .dead_letters
            .with_label_values(&[service, poison.class])
            .inc();
        spans.dead::<D>(trace, input, poison.class);
        outputs.push(dead_letter(tools, input, &poison));
        Taken::Dead
    }

    fn pause_blocked(&mut self) {
        for (partition, running) in &self.running {
            if running.blocked_until.is_some()
                && let Err(error) = self.log.pause(*partition)
            {
                tracing::debug!(%error, partition, "partition could not be paused; the next poll says why");
            }
        }
    }

    fn add_checkpoints(&mut self, shares: &mut BTreeMap<Partition, PartitionWrites>) {
        let now = self.log.now();
        for (partition, running) in &mut self.running {
            let due = running.round.is_none() && running.checkpoint_at <= now;
            if due {
                running.checkpoint_at = now + self.tools.settings.checkpoint_every;
                let until_ms = running.leave_until_ms(&self.tools.settings);
                let evictable = running
                    .finished
                    .front()
                    .is_some_and(|finished| finished.since_ms <= until_ms);
                if !running.dirty.is_empty() || evictable {
                    checkpoint::begin(running);
                }
            }
            if running.round.is_some() {
                let share = shares.entry(*partition).or_insert_with(|| PartitionWrites {
                    partition: *partition,
                    offset: running.position,
                    outputs: Vec::new(),
                });
                checkpoint::write_piece(&self.tools, *partition, running, &mut share.outputs);
            }
        }
    }

    /// A position that has passed the committed offset without input (markers, aborted records) is committed too.
    fn add_positions(&mut self, shares: &mut BTreeMap<Partition, PartitionWrites>) {
        for (partition, running) in &self.running {
            if running.position > running.committed {
                let share = shares.entry(*partition).or_insert_with(|| PartitionWrites {
                    partition: *partition,
                    offset: running.position,
                    outputs: Vec::new(),
                });
                share.offset = share.offset.max(running.position);
            }
        }
    }

    fn write(
        &mut self,
        generation: &L::Generation,
        shares: Vec<PartitionWrites>,
        inputs: usize,
    ) -> Result<(), Error> {
        let service = D::Contract::SERVICE.name();
        let offsets: Vec<_> = shares
            .iter()
            .map(|share| (share.partition, share.offset))
            .collect();
        let begun = self.log.now();
        let batch = self.spans.batch::<D>(inputs);
        let written = self.log.commit(generation, shares);
        let ended = self.log.now();
        let took = ended.saturating_sub(begun);
        self.window
            .learn(took, ended.saturating_sub(self.round_ended));
        self.round_ended = ended;
        let metrics = &self.tools.metrics;
        metrics
            .transaction_seconds
            .with_label_values(&[service])
            .observe(took.as_secs_f64());
        match written {
            Ok(appended) => {
                #[allow(clippy::cast_precision_loss)]
                metrics
                    .batch_inputs
                    .with_label_values(&[service])
                    .observe(inputs as f64);
                for end in appended {
                    if let Some(running) = self.running.get_mut(&end.partition) {
                        running.events_end = running.events_end.max(end.events_end);
                    }
                }
                for (partition, offset) in offsets {
                    self.poisoned
                        .retain(|(p, o)| *p != partition || *o >= offset);
                    self.committed(partition, offset);
                }
                self.show_waits(service);
                self.spans.end();
                drop(batch);
                self.status.log_available();
                Ok(())
            }
            Err(failure) => {
                let result = result_of(&failure);
                self.spans.fail(result);
                if let Some(batch) = &batch {
                    observability::fail(batch, result);
                }
                self.failed(failure, took)
            }
        }
    }

    /// Only now is anybody told.
    fn committed(&mut self, partition: Partition, offset: i64) {
        let Some(running) = self.running.get_mut(&partition) else {
            return;
        };
        running.position = running.position.max(offset);
        running.committed = offset;
        self.status.unblocked(partition);
        let started = running.agenda_started;
        let now_ms = self.log.unix_ms();
        for id in std::mem::take(&mut running.changed) {
            running.note_finished(&id, now_ms, &self.tools.settings);
            if !started {
                continue;
            }
            if let Some(aggregate) = running.aggregates.get(&id) {
                let outstanding = outstanding::<D>(&aggregate.state, &id);
                let occasion = EffectContext {
                    origin: Origin::Decided,
                    since_ms: aggregate.time_ms,
                    trace: aggregate.trace,
                };
                self.agenda.replace(partition, id, outstanding, occasion);
            }
        }
    }

    fn failed(&mut self, failure: Failure, took: Duration) -> Result<(), Error> {
        let service = D::Contract::SERVICE.name();
        tracing::warn!(service, error = %failure, "transaction failed, taking the partitions over again");
        self.tools
            .metrics
            .failed_transactions
            .with_label_values(&[service, result_of(&failure)])
            .inc();
        match failure {
            Failure::Aborted(_)
                if self.tools.settings.without == Some(Safeguard::ForgettingStates) =>
            {
                return self.drop_window().or_else(|error| self.trouble(error));
            }
            Failure::Aborted(_) => {}
            // A replacement may have taken over: some heartbeats tell.
            Failure::Unclear(_) if took < FROZEN => self.recreate_at = Some(self.log.now()),
            Failure::Unclear(_) | Failure::Fenced(_) => {
                self.recreate_at = Some(self.log.now() + HEARTBEATS);
            }
        }
        self.reset_partitions();
        Ok(())
    }
}

fn result_of(failure: &Failure) -> &'static str {
    match failure {
        Failure::Aborted(_) => "aborted",
        Failure::Unclear(_) => "unclear",
        Failure::Fenced(_) => "fenced",
    }
}

enum Taken {
    Done,
    Dead,
    Blocked(String),
    GoBack(Poison),
}
