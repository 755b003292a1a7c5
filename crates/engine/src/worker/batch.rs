//! One window: decided, written in one transaction, and only then published to effects.

use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use contracts::{Body as _, Contract};

use super::dead_letter::dead_letter;
use super::decide::{self, Decided};
use super::ownership::outstanding;
use super::partition::PartitionState;
use super::partitions::Block;
use super::trace::WindowSpans;
use super::{
    BLOCK_RETRY_INTERVAL, Error, Reject, Worker, WorkerContext, WorkerPhase, WorkerSafeguard,
    checkpoint,
};
use crate::Decider;
use crate::codec::{Poison, Undecodable};
use crate::effects::{EffectContext, EffectScheduler, Origin};
use crate::log::{Failure, Input, Log, Output, Partition, PartitionWrites};

/// At least this many dead letters, and more than half of the window: the program is probably at fault, not the
/// records.
const POISON_LIMIT: usize = 64;
/// After a longer call the process may have been frozen beyond the group's session.
const FREEZE_SUSPECTED_AFTER: Duration = Duration::from_secs(15);
/// Time in which the group reports a replacement.
const REPLACEMENT_CHECK_DELAY: Duration = Duration::from_secs(3);

impl<D: Decider, L: Log, S: EffectScheduler<D>> Worker<D, L, S> {
    /// Decides the window and writes the results.
    pub(super) fn process_window(&mut self, generation: &L::Generation) -> Result<(), Error> {
        let mut writes: BTreeMap<Partition, PartitionWrites> = BTreeMap::new();
        let inputs = std::mem::take(&mut self.inputs);
        let mut dead_letters = 0;
        let mut processed_inputs = 0;
        for input in &inputs {
            let partition = input.partition;
            let is_paused = self.partitions.is_paused(partition);
            let Some(partition_state) = self.partitions.get_mut(partition) else {
                continue;
            };
            let partition_writes = writes.entry(partition).or_insert_with(|| PartitionWrites {
                partition,
                offset: partition_state.position,
                outputs: Vec::new(),
            });
            // Fetched before a seek, or behind a record that cannot be decoded yet.
            if input.offset < partition_writes.offset || is_paused {
                continue;
            }
            match Self::process_input(
                &self.context,
                &self.poisoned,
                partition_state,
                input,
                &mut self.spans,
                &mut partition_writes.outputs,
            ) {
                Processed::Done => {}
                Processed::DeadLetter => dead_letters += 1,
                Processed::PartitionBlocked(reason) => {
                    let is_known = self.partitions.blocked_at(partition) == Some(input.offset);
                    if !is_known {
                        tracing::warn!(
                            partition,
                            offset = input.offset,
                            reason,
                            "partition paused"
                        );
                    }
                    let block = Block {
                        offset: input.offset,
                        reason,
                        retry_at: Some(self.log.now() + BLOCK_RETRY_INTERVAL),
                    };
                    self.partitions.block(partition, block);
                    self.report_partitions();
                    continue;
                }
                Processed::ResetPartitions(poison) => {
                    tracing::error!(
                        service = %D::Contract::SERVICE, partition, offset = input.offset,
                        class = poison.class, message = poison.message,
                        "command cannot be processed; resetting partitions"
                    );
                    self.poisoned.insert((partition, input.offset));
                    self.spans.fail(poison.class);
                    self.reset_partitions();
                    return Ok(());
                }
            }
            processed_inputs += 1;
            partition_state.time_ms = partition_state.time_ms.max(input.time_ms);
            partition_writes.offset = input.offset + 1;
        }
        self.inputs = inputs;
        if dead_letters >= POISON_LIMIT && dead_letters * 2 > processed_inputs {
            return Err(Error::Poisoned {
                dead: dead_letters,
                inputs: processed_inputs,
            });
        }
        self.pause_blocked();
        self.pass_markers(&mut writes);
        self.add_checkpoints(&mut writes);
        self.commit_idle_positions(&mut writes);
        self.check_invariants(&mut writes)?;
        writes.retain(|partition, partition_writes| {
            !partition_writes.outputs.is_empty()
                || self
                    .partitions
                    .get(*partition)
                    .is_some_and(|partition_state| {
                        partition_writes.offset > partition_state.committed
                    })
        });
        if writes.is_empty() || self.phase != WorkerPhase::Running {
            return Ok(());
        }
        self.commit_writes(generation, writes.into_values().collect(), processed_inputs)
    }

    /// Advances positions past markers and aborted records after the window's inputs.
    fn pass_markers(&mut self, writes: &mut BTreeMap<Partition, PartitionWrites>) {
        for (partition, offset) in std::mem::take(&mut self.reached) {
            if self.partitions.is_paused(partition) {
                continue;
            }
            let Some(partition_state) = self.partitions.get_mut(partition) else {
                continue;
            };
            match writes.get_mut(&partition) {
                Some(partition_writes) => {
                    partition_writes.offset = partition_writes.offset.max(offset)
                }
                None => partition_state.position = partition_state.position.max(offset),
            }
        }
    }

    fn process_input(
        context: &WorkerContext<D>,
        poisoned: &HashSet<(Partition, i64)>,
        partition_state: &mut PartitionState<D>,
        input: &Input,
        spans: &mut WindowSpans,
        outputs: &mut Vec<Output>,
    ) -> Processed {
        let service = D::Contract::SERVICE.name();
        let mut trace = None;
        let poison = if poisoned.contains(&(input.partition, input.offset)) {
            Poison {
                class: "unprocessable",
                message: "deciding it failed; see the service's log".into(),
                schema_id: None,
            }
        } else {
            match decide::decode_command(context, input) {
                Ok((metadata, command)) => {
                    partition_state.observe_asker(&metadata);
                    let before = outputs.len();
                    trace = spans.begin::<D>(input, command.kind());
                    // Catches the panics that `decide` does not catch itself, for example while building the outcome.
                    let decided = catch_unwind(AssertUnwindSafe(|| {
                        decide::decide(
                            context,
                            partition_state,
                            input,
                            &metadata,
                            &command,
                            trace,
                            outputs,
                        )
                    }));
                    match decided.unwrap_or_else(|_| Err(Reject::Reset(decide::panicked()))) {
                        Ok(decided) => {
                            let outcome = match decided {
                                Decided::Events(0) => "no_change",
                                Decided::Events(_) => "accepted",
                                Decided::Rejected => "rejected",
                            };
                            spans.decided(trace, outcome);
                            context
                                .metrics
                                .commands
                                .with_label_values(&[service, command.kind(), outcome])
                                .inc();
                            return Processed::Done;
                        }
                        Err(Reject::Reset(poison)) => return Processed::ResetPartitions(poison),
                        Err(Reject::Poison(poison)) => {
                            outputs.truncate(before);
                            poison
                        }
                    }
                }
                Err(Undecodable::Poison(poison)) => poison,
                Err(Undecodable::Newer(id)) => {
                    return Processed::PartitionBlocked(format!(
                        "schema {id} is newer than this version: it must be upgraded"
                    ));
                }
                Err(Undecodable::Pending(id)) => {
                    return Processed::PartitionBlocked(format!(
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
        context
            .metrics
            .dead_letters
            .with_label_values(&[service, poison.class])
            .inc();
        spans.dead_letter::<D>(trace, input, poison.class);
        outputs.push(dead_letter(context, input, &poison));
        Processed::DeadLetter
    }

    fn pause_blocked(&mut self) {
        for (partition, phase) in self.partitions.phases() {
            if phase.is_paused()
                && let Err(error) = self.log.pause(partition)
            {
                tracing::debug!(%error, partition, "partition could not be paused; the next poll reports the reason");
            }
        }
    }

    fn add_checkpoints(&mut self, writes: &mut BTreeMap<Partition, PartitionWrites>) {
        let now = self.log.now();
        for (partition, partition_state) in self.partitions.restored_mut() {
            let due = partition_state.checkpoint.is_none() && partition_state.checkpoint_at <= now;
            if due {
                partition_state.checkpoint_at = now + self.context.settings.checkpoint_every;
                let until_ms = partition_state.eviction_limit_ms(&self.context.settings);
                let evictable = partition_state
                    .finished
                    .front()
                    .is_some_and(|finished| finished.since_ms <= until_ms);
                if !partition_state.dirty.is_empty() || evictable {
                    checkpoint::begin(partition_state);
                }
            }
            if partition_state.checkpoint.is_some() {
                let partition_writes = writes.entry(partition).or_insert_with(|| PartitionWrites {
                    partition,
                    offset: partition_state.position,
                    outputs: Vec::new(),
                });
                checkpoint::write_piece(
                    &self.context,
                    partition,
                    partition_state,
                    &mut partition_writes.outputs,
                );
            }
        }
    }

    /// Commits positions that advanced without input (markers, aborted records).
    fn commit_idle_positions(&mut self, writes: &mut BTreeMap<Partition, PartitionWrites>) {
        for (partition, partition_state) in self.partitions.restored() {
            if partition_state.position > partition_state.committed {
                let partition_writes = writes.entry(partition).or_insert_with(|| PartitionWrites {
                    partition,
                    offset: partition_state.position,
                    outputs: Vec::new(),
                });
                partition_writes.offset = partition_writes.offset.max(partition_state.position);
            }
        }
    }

    fn commit_writes(
        &mut self,
        generation: &L::Generation,
        writes: Vec<PartitionWrites>,
        inputs: usize,
    ) -> Result<(), Error> {
        let service = D::Contract::SERVICE.name();
        let offsets: Vec<_> = writes
            .iter()
            .map(|partition_writes| (partition_writes.partition, partition_writes.offset))
            .collect();
        let started_at = self.log.now();
        let batch = self.spans.batch::<D>(inputs);
        let written = self.log.commit(generation, writes);
        let ended = self.log.now();
        let took = ended.saturating_sub(started_at);
        self.window
            .adapt(took, ended.saturating_sub(self.transaction_ended));
        self.transaction_ended = ended;
        let metrics = &self.context.metrics;
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
                    if let Some(partition_state) = self.partitions.get_mut(end.partition) {
                        partition_state.events_end = partition_state.events_end.max(end.events_end);
                    }
                }
                for (partition, offset) in offsets {
                    self.poisoned
                        .retain(|(p, o)| *p != partition || *o >= offset);
                    self.on_committed(partition, offset);
                    if self.partitions.unblock_passed(partition) {
                        self.report_partitions();
                    }
                }
                self.observe_command_waits(service);
                self.spans.end();
                drop(batch);
                self.status.log_available();
                Ok(())
            }
            Err(failure) => {
                let result = result_of(&failure);
                self.spans.fail(result);
                if let Some(batch) = &batch {
                    observability::mark_failed(batch, result);
                }
                self.on_failed(failure, took)
            }
        }
    }

    /// Updates the partition after a commit, and only now passes effects and timers on.
    fn on_committed(&mut self, partition: Partition, offset: i64) {
        let Some(partition_state) = self.partitions.get_mut(partition) else {
            return;
        };
        partition_state.position = partition_state.position.max(offset);
        partition_state.committed = offset;
        let started = partition_state.effects_started;
        let now_ms = self.log.unix_ms();
        for id in std::mem::take(&mut partition_state.changed) {
            partition_state.enqueue_finished(&id, now_ms, &self.context.settings);
            if !started {
                continue;
            }
            if let Some(aggregate) = partition_state.aggregates.get(&id) {
                let outstanding = outstanding::<D>(&aggregate.state, &id);
                let effect_context = EffectContext {
                    origin: Origin::Decided,
                    since_ms: aggregate.time_ms,
                    trace: aggregate.trace,
                };
                self.scheduler
                    .replace(partition, id, outstanding, effect_context);
            }
        }
    }

    fn on_failed(&mut self, failure: Failure, took: Duration) -> Result<(), Error> {
        let service = D::Contract::SERVICE.name();
        tracing::warn!(service, error = %failure, "transaction failed, taking the partitions over again");
        self.context
            .metrics
            .failed_transactions
            .with_label_values(&[service, result_of(&failure)])
            .inc();
        match failure {
            Failure::Aborted(_)
                if !self.context.settings.has(WorkerSafeguard::ForgettingStates) =>
            {
                return self
                    .drop_window()
                    .or_else(|error| self.handle_log_error(error));
            }
            Failure::Aborted(_) => {}
            Failure::Unclear(_) if took < FREEZE_SUSPECTED_AFTER => {
                self.recreate_producer_at(self.log.now());
            }
            // A replacement may exist. After some heartbeats the consumer reports it.
            Failure::Unclear(_) | Failure::Fenced(_) => {
                self.recreate_producer_at(self.log.now() + REPLACEMENT_CHECK_DELAY);
            }
        }
        self.reset_partitions();
        Ok(())
    }

    fn recreate_producer_at(&mut self, at: Duration) {
        let since_ms = match self.phase {
            WorkerPhase::RecreatingProducer { since_ms, .. } => since_ms,
            WorkerPhase::Running => self.log.unix_ms(),
        };
        self.phase = WorkerPhase::RecreatingProducer { since_ms, at };
    }
}

fn result_of(failure: &Failure) -> &'static str {
    match failure {
        Failure::Aborted(_) => "aborted",
        Failure::Unclear(_) => "unclear",
        Failure::Fenced(_) => "fenced",
    }
}

enum Processed {
    Done,
    DeadLetter,
    PartitionBlocked(String),
    ResetPartitions(Poison),
}
