//! One partition of one service, in the order in which its commands were processed: each command with all that it led
//! to.

mod dead_letters;
mod outcomes;
mod record_checks;
mod redecide;
mod snapshots;
mod stream;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use contracts::core::v1::Metadata;
use contracts::{Body as _, Contract, Service, Topic};
use engine::log::{Input, Partition};
use engine::worker::Replay;
use engine::{Cluster, Codec, Decider, Event, State, Undecodable, describe, headers};

use crate::context::AuditContext;
use crate::evidence::{Error, Evidence, TopicPartition};
use crate::reference_model::{Answered, Occurrence, ReferenceModel};
use crate::report::{Example, Invariant};
use crate::rule_books::DeciderConfig;
use dead_letters::{Letters, number};
use outcomes::Outcomes;
use redecide::Found;
use snapshots::States;
use stream::Stream;

/// Classes of dead letters that a second look cannot tell: they were given up for reasons outside the record.
const UNREPEATABLE: [&str; 4] = ["unprocessable", "panic", "unknown-schema", "foreign-schema"];

/// A desk, whatever its service.
pub(crate) trait Work {
    /// Which partition.
    fn partition(&self) -> Partition;
    /// Time of what comes next; `None` at the end.
    fn next_ms(&self) -> Option<i64>;
    /// Takes it.
    fn step(&mut self, context: &mut AuditContext) -> Result<(), Error>;
    /// Whether it holds aggregates that are named by orders of this partition.
    fn holds(&self, partition: Partition) -> bool;
    /// Nothing can happen to this aggregate any more.
    fn close(&mut self, context: &mut AuditContext, id: &str);
    /// Judges what is left. The records read.
    fn finish(&mut self, context: &mut AuditContext) -> Result<u64, Error>;
}

/// Why a record cannot be read; trouble when only now and here.
fn troubled(place: TopicPartition, offset: i64, undecodable: Undecodable) -> Result<String, Error> {
    match undecodable {
        Undecodable::Poison(poison) => Ok(poison.message),
        Undecodable::Newer(schema_id) => Err(Error::Newer {
            place,
            offset,
            schema_id,
        }),
        Undecodable::Pending(schema_id) => Err(Error::Registry {
            place,
            offset,
            schema_id,
        }),
    }
}

/// The fold of an aggregate's events.
struct Fold<S> {
    state: S,
    version: u64,
    time_ms: i64,
    /// Version before the events offset of the last checkpoint.
    covered: u64,
}

/// An event of the log; its content, or why there is none.
struct Happened<D: Decider> {
    input: Input,
    opened: Result<(Metadata, Event<D>), String>,
}

/// One partition of one service.
pub(crate) struct PartitionAuditor<'e, D: Decider> {
    service: Service,
    partition: Partition,
    /// How long the service remembers what is finished, at least.
    remembered_ms: i64,
    cluster: Arc<Cluster>,
    codec: Codec,
    replay: Replay<D>,
    folds: HashMap<String, Fold<State<D>>>,
    commands: Stream<'e>,
    events: Stream<'e>,
    outcomes: Outcomes<'e, D::Contract>,
    letters: Letters<'e>,
    states: States,
    /// What the group has committed: commands below are processed.
    committed: i64,
    /// Versions of aggregates that have events beyond the cut.
    beyond: HashMap<String, u64>,
    /// Rules of the last record that said so.
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
        book: DeciderConfig<D>,
        codec: &Codec,
        cluster: &Arc<Cluster>,
        context: &mut AuditContext,
    ) -> Result<Self, Error> {
        let service = D::Contract::SERVICE;
        let place = |topic| TopicPartition::new(service, topic, partition);
        let stream = |topic| Stream::open(evidence, place(topic));
        let cut = evidence.cut();
        let commands = stream(Topic::Commands)?;
        if let Some(begins_ms) = commands.begins_ms {
            context.messages.begins(service, partition, begins_ms);
        }
        let low = cut.ends(place(Topic::Commands)).low;
        let committed = cut.committed.get(&(service, partition));
        let outcomes = stream(Topic::Outcomes)?;
        let commands_topic = cluster.topic(service, Topic::Commands);
        Ok(Self {
            service,
            partition,
            remembered_ms: book.remembered_ms,
            cluster: Arc::clone(cluster),
            codec: codec.clone(),
            replay: Replay::new(book.rules, Arc::clone(cluster), codec.clone()),
            folds: HashMap::new(),
            events: stream(Topic::Events)?,
            outcomes: Outcomes::new(
                outcomes,
                codec.clone(),
                context.remembered_ms,
                commands.begins_ms,
            ),
            letters: Letters::new(stream(Topic::Dlq)?, commands_topic, low),
            commands,
            states: States::read::<D>(evidence, place(Topic::State), codec, context)?,
            committed: committed.copied().unwrap_or(low),
            beyond: HashMap::new(),
            rules_version: D::RULES_VERSION,
        })
    }

    fn place(&self, topic: Topic) -> TopicPartition {
        TopicPartition::new(self.service, topic, self.partition)
    }

    fn cover(&self, context: &mut AuditContext, id: &str, fold: &Fold<State<D>>) {
        let is_finished = D::finished(&fold.state);
        let may_have_left = is_finished
            && self.states.checkpoint.as_ref().is_some_and(|last| {
                let until_ms = last
                    .content
                    .partition_time_ms
                    .saturating_sub(self.remembered_ms);
                fold.time_ms <= until_ms
            });
        self.states
            .cover::<D>(context, id, fold.covered, may_have_left);
    }

    /// The next event comes from a command before `offset`: its command is gone, or was never there.
    fn is_event_due(&self, offset: i64) -> bool {
        let head = self.events.peek();
        head.is_some_and(|head| {
            number(head, headers::SOURCE_OFFSET).is_none_or(|source| source < offset)
        })
    }

    fn next_event(&mut self, context: &mut AuditContext) -> Result<Option<Happened<D>>, Error> {
        let place = self.events.place;
        let Some(input) = self.events.next()? else {
            return Ok(None);
        };
        for offset in self.events.take_aborted() {
            context.model.saw_aborted(place, offset);
        }
        context
            .model
            .saw(self.service, self.partition, input.offset);
        let opened = self.codec.own::<<D::Contract as Contract>::EventRecord>(
            self.service,
            Topic::Events,
            &input,
        );
        let opened = match opened {
            Ok(opened) => Ok(opened),
            Err(undecodable) => Err(troubled(place, input.offset, undecodable)?),
        };
        Ok(Some(Happened { input, opened }))
    }

    /// An event whose command is not there.
    fn stray(&mut self, context: &mut AuditContext) -> Result<(), Error> {
        let place = self.place(Topic::Events);
        let Some(event) = self.next_event(context)? else {
            return Ok(());
        };
        let source = number(&event.input, headers::SOURCE_OFFSET);
        if let (Ok((metadata, _)), Some(source)) = (&event.opened, source)
            && source >= self.committed
        {
            // Decided after the cut.
            context.beyond += 1;
            let version = self
                .beyond
                .entry(metadata.aggregate_id.clone())
                .or_default();
            *version = (*version).max(metadata.aggregate_version);
            context.messages.excuse(&metadata.id, event.input.time_ms);
            let wrong = format!(
                "an event of command {source}, which is not processed: its group was set back"
            );
            let example = Example::new(wrong).at(place, event.input.offset);
            context.loose(
                event.input.time_ms,
                Invariant::I12,
                example.of(&metadata.aggregate_id),
            );
            return Ok(());
        }
        if source.is_none_or(|source| source >= self.letters.low()) {
            let wrong = match source {
                Some(source) => format!(
                    "an event of command {source}, which is not there or was passed already"
                ),
                None => "an event that does not say which command led to it".to_owned(),
            };
            let example = Example::new(wrong).at(place, event.input.offset);
            context.findings.violated(Invariant::I12, example);
        }
        let Ok((metadata, _)) = &event.opened else {
            self.happened(context, event, None);
            return Ok(());
        };
        context.messages.excuse(&metadata.id, event.input.time_ms);
        context.findings.unchecked(Invariant::I17);
        let id = metadata.aggregate_id.clone();
        self.happened(context, event, None);
        self.resume(&id);
        Ok(())
    }

    /// Decides from what the log says, whatever deciding again has made of it.
    fn resume(&mut self, id: &str) {
        match self.folds.get(id) {
            Some(fold) => self
                .replay
                .set(id, fold.state.clone(), fold.version, fold.time_ms),
            None => self.replay.forget(id),
        }
    }

    /// Takes an event into everything that is folded from events. `index` is its place among those of its command.
    fn happened(&mut self, context: &mut AuditContext, event: Happened<D>, index: Option<usize>) {
        let place = self.place(Topic::Events);
        context.events += 1;
        context.findings.checked(Invariant::I16);
        let Happened { input, opened } = event;
        let at = |wrong: String| Example::new(wrong).at(place, input.offset);
        let (metadata, event) = match opened {
            Ok(opened) => opened,
            Err(wrong) => {
                let example = at(format!("it cannot be decoded: {wrong}"));
                context.findings.violated(Invariant::I16, example);
                return;
            }
        };
        let id = metadata.aggregate_id.as_str();
        let mut violations = contracts::rules::field_violations(&metadata);
        violations.extend(event.violations());
        if !violations.is_empty() {
            let wrong = format!("it breaks its field rules: {}", describe(&violations));
            context.findings.violated(Invariant::I16, at(wrong).of(id));
        }
        if !self.judge_version(context, &input, &metadata, index) {
            return;
        }
        let fold = self.folds.entry(id.to_owned()).or_insert_with(|| Fold {
            state: State::<D>::default(),
            version: 0,
            time_ms: 0,
            covered: 0,
        });
        let folded = catch_unwind(AssertUnwindSafe(|| D::evolve(&mut fold.state, &event)));
        if folded.is_err() {
            let example = at("the fold panics".to_owned()).of(id);
            context.findings.violated(Invariant::I16, example);
        }
        fold.version = metadata.aggregate_version;
        fold.time_ms = metadata.time_ms;
        let last = self.states.checkpoint.as_ref();
        if last.is_some_and(|last| input.offset < last.content.events_offset) {
            fold.covered = fold.version;
        }
        self.states
            .compare::<D>(context, id, fold.version, fold.time_ms, &fold.state);
        let occurrence = Occurrence {
            place,
            offset: input.offset,
            id,
            version: metadata.aggregate_version,
            time_ms: metadata.time_ms,
            record: content(input.payload.as_deref()),
            is_applied: context
                .model
                .has_applied(self.service, self.partition, input.offset),
        };
        context.event_id(&occurrence, &metadata.id);
        <D::Contract as ReferenceModel>::happened(context, &occurrence, &event);
    }

    /// A command below the cut, and all that it led to.
    fn command(&mut self, context: &mut AuditContext, input: &Input) -> Result<(), Error> {
        context.commands += 1;
        context.findings.checked(Invariant::I12);
        let letters = self.letters.of(context, input.offset)?;
        let opened = self.replay.open(input).ok();
        let mut events = Vec::new();
        while self
            .events
            .peek()
            .is_some_and(|head| number(head, headers::SOURCE_OFFSET) == Some(input.offset))
        {
            events.extend(self.next_event(context)?);
        }
        let answer = match &opened {
            Some((metadata, _)) => {
                let is_asked = !metadata.reply_to.is_empty();
                self.outcomes.find(context, &metadata.id, is_asked)?
            }
            None => None,
        };
        if let Some((metadata, _)) = &opened {
            self.arrived(context, input, metadata);
        }
        let found = Found {
            input,
            opened: opened.as_ref(),
            events: &events,
            letters: &letters,
            answer: answer.as_ref(),
        };
        let decided = self.decide_again(context, &found)?;
        self.judge_processing(context, input, opened.as_ref(), &events, &letters, &decided);

        let count = events.len();
        for (index, event) in events.into_iter().enumerate() {
            self.happened(context, event, Some(index));
        }
        if let Some((metadata, command)) = &opened {
            if !decided.is_same {
                self.resume(&metadata.aggregate_id);
            }
            self.judge_answer(context, input, metadata, answer.as_ref(), letters.len());
            let answered = Answered {
                place: self.place(Topic::Commands),
                offset: input.offset,
                metadata,
                command,
                events: count,
                outcome: answer.as_ref().map(|answer| &answer.outcome),
            };
            <D::Contract as ReferenceModel>::answered(context, &answered);
        }
        Ok(())
    }

    /// A command that another service has sent.
    fn arrived(&self, context: &mut AuditContext, input: &Input, metadata: &Metadata) {
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
            (self.place(Topic::Commands), input.offset, input.time_ms),
            content(input.payload.as_deref()),
        );
    }
}

impl<D> Work for PartitionAuditor<'_, D>
where
    D: Decider,
    D::Contract: ReferenceModel,
{
    fn partition(&self) -> Partition {
        self.partition
    }

    fn holds(&self, partition: Partition) -> bool {
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
            return self.stray(context);
        }
        let Some(input) = self.commands.next()? else {
            return Ok(());
        };
        if input.offset < self.committed {
            return self.command(context, &input);
        }
        context.waiting += 1;
        match self.replay.open(&input) {
            Ok((metadata, _)) => {
                self.arrived(context, &input, &metadata);
                context.clients.waits(&metadata.aggregate_id);
            }
            // It is going to be a dead letter; if not, its sender is told to be without its message.
            Err(undecodable) => drop(troubled(
                self.place(Topic::Commands),
                input.offset,
                undecodable,
            )?),
        }
        Ok(())
    }

    fn close(&mut self, context: &mut AuditContext, id: &str) {
        self.replay.forget(id);
        if let Some(fold) = self.folds.remove(id) {
            self.cover(context, id, &fold);
        }
    }

    fn finish(&mut self, context: &mut AuditContext) -> Result<u64, Error> {
        let mut folds: Vec<_> = std::mem::take(&mut self.folds).into_iter().collect();
        folds.sort_by(|(left, _), (right, _)| left.cmp(right));
        for (id, fold) in &folds {
            self.cover(context, id, fold);
        }
        let versions: HashMap<&str, u64> = folds
            .iter()
            .map(|(id, fold)| (id.as_str(), fold.version))
            .collect();
        let beyond = &self.beyond;
        let version_of = |id: &str| {
            let known = versions.get(id).copied().unwrap_or(0);
            known.max(beyond.get(id).copied().unwrap_or(0))
        };
        for offset in self.events.take_aborted() {
            context.model.saw_aborted(self.events.place, offset);
        }
        self.outcomes.finish(context, version_of)?;
        self.states.unaccounted(context, version_of);
        self.letters.finish(context, self.committed)?;
        Ok(self.commands.read
            + self.events.read
            + self.outcomes.stream.read
            + self.letters.stream.read
            + self.states.read)
    }
}

/// What deciding again has shown.
#[derive(Clone, Copy, Debug, Default)]
struct Decided {
    /// Events that the rules give.
    events: usize,
    /// They are the rules that decided it then.
    is_checked: bool,
    /// The records are those of the log, and so is the state that deciding has left behind.
    is_same: bool,
}

/// The message without its frame: the same contract may be registered anew.
fn content(payload: Option<&[u8]>) -> &[u8] {
    let payload = payload.unwrap_or_default();
    registry::unframe(payload).map_or(payload, |framed| framed.payload)
}
