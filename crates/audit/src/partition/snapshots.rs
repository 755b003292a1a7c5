//! The states of one partition, by aggregate and version, as hashes: their size follows the topic's, which is compacted.

use std::collections::{BTreeMap, HashMap};

use contracts::core::v1::{Checkpoint, Chunk, Metadata};
use contracts::{Contract, StateBody, Topic};
use engine::log::Input;
use engine::worker::StateKey;
use engine::{Codec, Decider, State};
use prost::Message as _;

use super::stream::Stream;
use super::troubled;
use crate::context::AuditContext;
use crate::dedup_window::hash;
use crate::evidence::{Error, Evidence, TopicPartition};
use crate::report::{Example, Invariant};

/// A state in the topic.
#[derive(Clone, Copy, Debug)]
struct Kept {
    offset: i64,
    /// Of the record.
    written_ms: i64,
    /// Of the aggregate's last event.
    time_ms: i64,
    content: u64,
}

/// A checkpoint and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct LastCheckpoint {
    offset: i64,
    pub(crate) content: Checkpoint,
}

/// What the topic holds.
pub(crate) struct States {
    place: TopicPartition,
    kept: HashMap<String, BTreeMap<u64, Vec<Kept>>>,
    /// Version of the latest state of each aggregate that has one.
    latest: HashMap<String, u64>,
    pub(crate) checkpoint: Option<LastCheckpoint>,
    pub(crate) read: u64,
}

/// Pieces of a large state, by number.
#[derive(Default)]
struct Pieces {
    version: u64,
    parts: BTreeMap<u32, Vec<u8>>,
}

impl States {
    pub(crate) fn read<D: Decider>(
        evidence: &impl Evidence,
        place: TopicPartition,
        codec: &Codec,
        context: &mut AuditContext,
    ) -> Result<Self, Error> {
        let mut states = Self {
            place,
            kept: HashMap::new(),
            latest: HashMap::new(),
            checkpoint: None,
            read: 0,
        };
        let mut chunks = HashMap::new();
        let mut stream = Stream::open(evidence, place)?;
        while let Some(input) = stream.next()? {
            states.take::<D>(&input, codec, &mut chunks, context)?;
        }
        states.read = stream.read;
        states.judge_checkpoint(evidence, context);
        Ok(states)
    }

    fn take<D: Decider>(
        &mut self,
        input: &Input,
        codec: &Codec,
        chunks: &mut HashMap<String, Pieces>,
        context: &mut AuditContext,
    ) -> Result<(), Error> {
        let key = input.key.as_deref().unwrap_or_default();
        if input.payload.is_none() {
            match StateKey::decode(key) {
                Some(StateKey::Aggregate(id) | StateKey::Chunk(id, 0)) => {
                    self.latest.remove(id);
                }
                Some(StateKey::Checkpoint) => self.checkpoint = None,
                Some(StateKey::Chunk(..)) | None => {}
            }
            return Ok(());
        }
        let service = D::Contract::SERVICE;
        let opened =
            codec.own::<<D::Contract as Contract>::StateRecord>(service, Topic::State, input);
        let (metadata, body) = match opened {
            Ok(opened) => opened,
            Err(undecodable) => {
                let wrong = troubled(self.place, input.offset, undecodable)?;
                let example = Example::new(format!("a state cannot be read: {wrong}"));
                let example = example.at(self.place, input.offset);
                context.findings.violated(Invariant::I15, example);
                return Ok(());
            }
        };
        match body {
            StateBody::Aggregate(state) => {
                self.keep::<D>(input, &metadata, &state.encode_to_vec(), context);
            }
            StateBody::Chunk(chunk) => {
                self.piece::<D>(input, &metadata, chunk, chunks, context);
            }
            StateBody::Checkpoint(content) => {
                let offset = input.offset;
                self.checkpoint = Some(LastCheckpoint { offset, content });
            }
            StateBody::Parked(_) => {}
        }
        Ok(())
    }

    fn piece<D: Decider>(
        &mut self,
        input: &Input,
        metadata: &Metadata,
        chunk: Chunk,
        chunks: &mut HashMap<String, Pieces>,
        context: &mut AuditContext,
    ) {
        let pieces = chunks.entry(metadata.aggregate_id.clone()).or_default();
        if pieces.version != metadata.aggregate_version {
            *pieces = Pieces {
                version: metadata.aggregate_version,
                ..Pieces::default()
            };
        }
        pieces.parts.insert(chunk.index, chunk.part);
        if pieces.parts.len() == chunk.count as usize {
            let bytes: Vec<u8> = std::mem::take(&mut pieces.parts)
                .into_values()
                .flatten()
                .collect();
            self.keep::<D>(input, metadata, &bytes, context);
        }
    }

    fn keep<D: Decider>(
        &mut self,
        input: &Input,
        metadata: &Metadata,
        bytes: &[u8],
        context: &mut AuditContext,
    ) {
        let Metadata {
            aggregate_id,
            aggregate_version,
            rules_version,
            time_ms,
            ..
        } = metadata;
        self.latest.insert(aggregate_id.clone(), *aggregate_version);
        if *rules_version != D::RULES_VERSION {
            // Its owner folds the events instead.
            context.findings.unchecked(Invariant::I15);
            return;
        }
        let kept = Kept {
            offset: input.offset,
            written_ms: input.time_ms,
            time_ms: *time_ms,
            content: hash(bytes),
        };
        let versions = self.kept.entry(aggregate_id.clone()).or_default();
        versions.entry(*aggregate_version).or_default().push(kept);
    }

    fn judge_checkpoint(&self, evidence: &impl Evidence, context: &mut AuditContext) {
        let Some(last) = &self.checkpoint else { return };
        context.findings.checked(Invariant::I15);
        let of = |topic| {
            let place = TopicPartition {
                topic,
                ..self.place
            };
            evidence.cut().ends(place)
        };
        let (events, commands) = (of(Topic::Events), of(Topic::Commands));
        if last.content.events_offset > events.high || last.content.commands_offset > commands.high
        {
            let wrong = format!(
                "the checkpoint speaks of events to {} and commands to {}, the log ends at {} and {}",
                last.content.events_offset,
                last.content.commands_offset,
                events.high,
                commands.high
            );
            let example = Example::new(wrong).at(self.place, last.offset);
            context.findings.violated(Invariant::I15, example);
        }
    }

    /// Holds the states of an aggregate in this version against the fold.
    pub(crate) fn compare<D: Decider>(
        &mut self,
        context: &mut AuditContext,
        id: &str,
        version: u64,
        time_ms: i64,
        fold: &State<D>,
    ) {
        let Some(versions) = self.kept.get_mut(id) else {
            return;
        };
        let Some(states) = versions.remove(&version) else {
            return;
        };
        if versions.is_empty() {
            self.kept.remove(id);
        }
        let content = hash(fold.encode_to_vec().as_slice());
        for state in states {
            context.findings.checked(Invariant::I15);
            let wrong = if state.content != content {
                format!("its state in version {version} is not the fold of its events")
            } else if state.time_ms != time_ms {
                format!("its state in version {version} has another time than its last event")
            } else {
                continue;
            };
            let example = Example::new(wrong).at(self.place, state.offset).of(id);
            context.findings.violated(Invariant::I15, example);
        }
    }

    /// Holds an aggregate against the last checkpoint: it must have the state in version `covered`, the last one before
    /// the checkpoint's events offset, or a later one; or have left memory, if it may have by then.
    pub(crate) fn cover<D: Decider>(
        &self,
        context: &mut AuditContext,
        id: &str,
        covered: u64,
        may_have_left: bool,
    ) {
        let Some(last) = &self.checkpoint else { return };
        if covered == 0 || last.content.rules_version != D::RULES_VERSION {
            return;
        }
        context.findings.checked(Invariant::I15);
        let wrong = match self.latest.get(id) {
            Some(version) if *version >= covered => return,
            Some(version) => {
                format!("the checkpoint has it in version {version}, and goes to version {covered}")
            }
            None => {
                let through = last.content.evicted_through_ms;
                let is_noted =
                    contracts::rules::uuid_v7_time_ms(id).is_none_or(|id_ms| id_ms <= through);
                if may_have_left && is_noted {
                    return;
                }
                format!("the checkpoint lacks it, and goes to version {covered}")
            }
        };
        let example = Example::new(wrong).at(self.place, last.offset).of(id);
        context.findings.violated(Invariant::I15, example);
    }

    /// States that no event of the log led to. `version_of` is how far an aggregate has come in the log, `beyond`
    /// included.
    pub(crate) fn unaccounted(
        &mut self,
        context: &mut AuditContext,
        version_of: impl Fn(&str) -> u64,
    ) {
        let mut kept: Vec<_> = std::mem::take(&mut self.kept).into_iter().collect();
        kept.sort_by(|(left, _), (right, _)| left.cmp(right));
        for (id, versions) in kept {
            let known = version_of(&id);
            for (version, states) in versions {
                for state in states {
                    let (invariant, wrong) = if version > known {
                        let wrong = format!(
                            "a state speaks of version {version}, the committed log has {known}"
                        );
                        (Invariant::I10, wrong)
                    } else {
                        let wrong = format!("a state of version {version} fits no event");
                        (Invariant::I15, wrong)
                    };
                    let example = Example::new(wrong).at(self.place, state.offset).of(&id);
                    context.loose(state.written_ms, invariant, example);
                }
            }
        }
    }
}
