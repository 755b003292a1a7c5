//! One partition of one service: each command with its results, in the order of processing.

mod dead_letters;
mod events;
mod outcomes;
mod record_checks;
mod replay_check;
mod state_topic;
mod stream;

use std::collections::HashMap;
use std::sync::Arc;

use contracts::core::v1::Metadata;
use contracts::{Contract, Service, Topic};
use engine::log::{Input, Partition};
use engine::worker::Replay;
use engine::{Cluster, Codec, Decider, State, Undecodable, headers};

use crate::context::AuditContext;
use crate::evidence::{Error, Evidence, TopicPartition};
use crate::reference_model::{ProcessedCommand, ReferenceModel};
use crate::report::Invariant;
use crate::rule_books::DeciderConfig;
use dead_letters::{DeadLetters, header_number};
use outcomes::Outcomes;
use replay_check::CommandRecords;
use state_topic::StateTopic;
use stream::Stream;

/// Error classes of dead letters whose cause is not in the record alone: a replay cannot reproduce them.
const UNREPRODUCIBLE_CLASSES: [&str; 4] =
    ["unprocessable", "panic", "unknown-schema", "foreign-schema"];

/// A [`PartitionAuditor`] of any service.
pub(crate) trait AnyPartitionAuditor {
    fn partition(&self) -> Partition;
    /// Time of the next record; `None` at the end.
    fn next_ms(&self) -> Option<i64>;
    /// Processes the next record.
    fn step(&mut self, context: &mut AuditContext) -> Result<(), Error>;
    /// Whether it holds the aggregates of the orders of this partition.
    fn holds_lifecycles_of(&self, partition: Partition) -> bool;
    /// Evicts an aggregate that cannot change any more.
    fn evict(&mut self, context: &mut AuditContext, id: &str);
    /// Checks the remaining records. Returns the number of records read.
    fn finish(&mut self, context: &mut AuditContext) -> Result<u64, Error>;
}

/// Why a record can never be decoded; an error when it cannot be decoded at present.
fn undecodable_reason(
    topic_partition: TopicPartition,
    offset: i64,
    undecodable: Undecodable,
) -> Result<String, Error> {
    match undecodable {
        Undecodable::Poison(poison) => Ok(poison.message),
        Undecodable::Newer(schema_id) => Err(Error::Newer {
            topic_partition,
            offset,
            schema_id,
        }),
        Undecodable::Pending(schema_id) => Err(Error::Registry {
            topic_partition,
            offset,
            schema_id,
        }),
    }
}

/// The fold of the events of an aggregate.
struct Fold<S> {
    state: S,
    version: u64,
    time_ms: i64,
    /// The version at the events offset of the last checkpoint.
    checkpointed_version: u64,
}

/// Audits one partition of one service.
pub(crate) struct PartitionAuditor<'e, D: Decider> {
    service: Service,
    partition: Partition,
    /// How long the service keeps a finished aggregate, at least.
    remembered_ms: i64,
    cluster: Arc<Cluster>,
    codec: Codec,
    replay: Replay<D>,
    folds: HashMap<String, Fold<State<D>>>,
    commands: Stream<'e>,
    events: Stream<'e>,
    outcomes: Outcomes<'e, D::Contract>,
    dead_letters: DeadLetters<'e>,
    states: StateTopic,
    /// The committed offset of the group: commands below are processed.
    committed: i64,
    /// Versions of the aggregates that have events beyond the cut.
    versions_beyond_cut: HashMap<String, u64>,
    /// The rules version of the last record that contains one.
    rules_version: u32,
}

impl<'e, D> PartitionAuditor<'e, D>
where
    D: Decider,
    D::Contract: ReferenceModel,
{
    pub(crate) fn open(
        evidence: &'e impl Evidence,
        partition: Partition,
        config: DeciderConfig<D>,
        codec: &Codec,
        cluster: &Arc<Cluster>,
        context: &mut AuditContext,
    ) -> Result<Self, Error> {
        let service = D::Contract::SERVICE;
        let topic_partition = |topic| TopicPartition::new(service, topic, partition);
        let stream = |topic| Stream::open(evidence, topic_partition(topic));
        let cut = evidence.cut();
        let commands = stream(Topic::Commands)?;
        if let Some(first_ms) = commands.first_retained_ms {
            context
                .messages
                .set_first_command(service, partition, first_ms);
        }
        let log_start = cut.ends(topic_partition(Topic::Commands)).low;
        let committed = cut.committed.get(&(service, partition));
        let outcomes = stream(Topic::Outcomes)?;
        let commands_topic = cluster.topic(service, Topic::Commands);
        Ok(Self {
            service,
            partition,
            remembered_ms: config.remembered_ms,
            cluster: Arc::clone(cluster),
            codec: codec.clone(),
            replay: Replay::new(config.rules, Arc::clone(cluster), codec.clone()),
            folds: HashMap::new(),
            events: stream(Topic::Events)?,
            outcomes: Outcomes::new(
                outcomes,
                codec.clone(),
                context.remembered_ms,
                commands.first_retained_ms,
            ),
            dead_letters: DeadLetters::new(stream(Topic::Dlq)?, commands_topic, log_start),
            commands,
            states: StateTopic::read::<D>(evidence, topic_partition(Topic::State), codec, context)?,
            committed: committed.copied().unwrap_or(log_start),
            versions_beyond_cut: HashMap::new(),
            rules_version: D::RULES_VERSION,
        })
    }

    fn topic_partition(&self, topic: Topic) -> TopicPartition {
        TopicPartition::new(self.service, topic, self.partition)
    }

    fn check_coverage(&self, context: &mut AuditContext, id: &str, fold: &Fold<State<D>>) {
        let is_finished = D::finished(&fold.state);
        let may_be_evicted = is_finished
            && self.states.checkpoint.as_ref().is_some_and(|last| {
                let until_ms = last
                    .content
                    .partition_time_ms
                    .saturating_sub(self.remembered_ms);
                fold.time_ms <= until_ms
            });
        self.states
            .check_coverage::<D>(context, id, fold.checkpointed_version, may_be_evicted);
    }

    /// Processes a command below the cut, with all its results.
    fn process_command(&mut self, context: &mut AuditContext, input: &Input) -> Result<(), Error> {
        context.command_count += 1;
        context.findings.checked(Invariant::I12);
        let dead_letters = self.dead_letters.take_for(context, input.offset)?;
        let decoded = self.replay.open(input).ok();
        let mut events = Vec::new();
        while self
            .events
            .peek()
            .is_some_and(|head| header_number(head, headers::SOURCE_OFFSET) == Some(input.offset))
        {
            events.extend(self.next_event(context)?);
        }
        let outcome = match &decoded {
            Some((metadata, _)) => {
                let is_requested = !metadata.reply_to.is_empty();
                self.outcomes
                    .take_for(context, &metadata.id, is_requested)?
            }
            None => None,
        };
        if let Some((metadata, _)) = &decoded {
            self.record_arrival(context, input, metadata);
        }
        let records = CommandRecords {
            input,
            decoded: decoded.as_ref(),
            events: &events,
            dead_letters: &dead_letters,
            outcome: outcome.as_ref(),
        };
        let replay_result = self.replay_command(context, &records)?;
        self.check_processed_once(
            context,
            input,
            decoded.as_ref(),
            &events,
            &dead_letters,
            &replay_result,
        );

        let count = events.len();
        for (index, event) in events.into_iter().enumerate() {
            self.apply_event(context, event, Some(index));
        }
        if let Some((metadata, command)) = &decoded {
            if !replay_result.is_same {
                self.restore_replay(&metadata.aggregate_id);
            }
            self.check_outcome(
                context,
                input,
                metadata,
                outcome.as_ref(),
                dead_letters.len(),
            );
            let processed = ProcessedCommand {
                topic_partition: self.topic_partition(Topic::Commands),
                offset: input.offset,
                metadata,
                command,
                events: count,
                outcome: outcome.as_ref().map(|outcome| &outcome.body),
            };
            <D::Contract as ReferenceModel>::check_business_outcome(context, &processed);
        }
        Ok(())
    }

    /// Records the arrival of a command from another service.
    fn record_arrival(&self, context: &mut AuditContext, input: &Input, metadata: &Metadata) {
        if metadata.causation_id.is_empty() {
            return;
        }
        let AuditContext {
            messages, findings, ..
        } = context;
        messages.arrived(
            findings,
            metadata.id.clone(),
            &metadata.causation_id,
            (
                self.topic_partition(Topic::Commands),
                input.offset,
                input.time_ms,
            ),
            content(input.payload.as_deref()),
        );
    }
}

impl<D> AnyPartitionAuditor for PartitionAuditor<'_, D>
where
    D: Decider,
    D::Contract: ReferenceModel,
{
    fn partition(&self) -> Partition {
        self.partition
    }

    fn holds_lifecycles_of(&self, partition: Partition) -> bool {
        self.partition == partition && self.service != Service::Inventory
    }

    fn next_ms(&self) -> Option<i64> {
        let command = self.commands.peek();
        if self.is_event_due(command.map_or(i64::MAX, |command| command.offset)) {
            return self.events.peek().map(|event| event.time_ms);
        }
        command.map(|command| command.time_ms)
    }

    fn step(&mut self, context: &mut AuditContext) -> Result<(), Error> {
        let next = self.commands.peek().map_or(i64::MAX, |head| head.offset);
        if self.is_event_due(next) {
            return self.process_orphan_event(context);
        }
        let Some(input) = self.commands.next()? else {
            return Ok(());
        };
        if input.offset < self.committed {
            return self.process_command(context, &input);
        }
        context.pending_commands += 1;
        match self.replay.open(&input) {
            Ok((metadata, _)) => {
                self.record_arrival(context, &input, &metadata);
                context.clients.mark_pending(&metadata.aggregate_id);
            }
            // A sent message that cannot be decoded never arrives here: its sender's check reports it as missing.
            Err(undecodable) => drop(undecodable_reason(
                self.topic_partition(Topic::Commands),
                input.offset,
                undecodable,
            )?),
        }
        Ok(())
    }

    fn evict(&mut self, context: &mut AuditContext, id: &str) {
        self.replay.forget(id);
        if let Some(fold) = self.folds.remove(id) {
            self.check_coverage(context, id, &fold);
        }
    }

    fn finish(&mut self, context: &mut AuditContext) -> Result<u64, Error> {
        let mut folds: Vec<_> = std::mem::take(&mut self.folds).into_iter().collect();
        folds.sort_by(|(left, _), (right, _)| left.cmp(right));
        for (id, fold) in &folds {
            self.check_coverage(context, id, fold);
        }
        let versions: HashMap<&str, u64> = folds
            .iter()
            .map(|(id, fold)| (id.as_str(), fold.version))
            .collect();
        let beyond_cut = &self.versions_beyond_cut;
        let version_of = |id: &str| {
            let known = versions.get(id).copied().unwrap_or(0);
            known.max(beyond_cut.get(id).copied().unwrap_or(0))
        };
        for offset in self.events.take_aborted() {
            context
                .read_model
                .record_aborted(self.events.topic_partition, offset);
        }
        self.outcomes.finish(context, version_of)?;
        self.states.report_unmatched(context, version_of);
        self.dead_letters.finish(context, self.committed)?;
        Ok(self.commands.read
            + self.events.read
            + self.outcomes.stream.read
            + self.dead_letters.stream.read
            + self.states.read)
    }
}

/// The result of deciding a command again.
#[derive(Clone, Copy, Debug, Default)]
struct ReplayResult {
    /// Number of events that the rules give.
    events: usize,
    /// The command was decided under the current rules version, so its records are compared.
    is_checked: bool,
    /// The records equal those of the log, and so does the replayed state.
    is_same: bool,
}

/// The message without its frame. The frame differs when the same contract is registered again.
fn content(payload: Option<&[u8]>) -> &[u8] {
    let payload = payload.unwrap_or_default();
    registry::unframe(payload).map_or(payload, |framed| framed.payload)
}
