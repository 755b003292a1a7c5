//! The states of one partition as hashes, by aggregate and version. Their number is bounded by the topic, which is
//! compacted.

use std::collections::{BTreeMap, HashMap};

use contracts::core::v1::{Checkpoint, Chunk, Metadata};
use contracts::{Contract, StateBody, Topic};
use engine::log::Input;
use engine::worker::StateKey;
use engine::{Codec, Decider, State};
use prost::Message as _;

use super::stream::Stream;
use super::undecodable_reason;
use crate::context::AuditContext;
use crate::dedup_window::hash;
use crate::evidence::{Error, Evidence, TopicPartition};
use crate::report::{Example, Invariant};

/// A state record.
#[derive(Clone, Copy, Debug)]
struct StoredState {
    offset: i64,
    /// Time of the record, in Unix milliseconds.
    written_ms: i64,
    /// Time of the last event of the aggregate, in Unix milliseconds.
    time_ms: i64,
    content: u64,
}

/// A checkpoint and its offset.
#[derive(Clone, Debug)]
pub(crate) struct CheckpointRecord {
    offset: i64,
    pub(crate) content: Checkpoint,
}

/// The records of the state topic of one partition.
pub(crate) struct StateTopic {
    topic_partition: TopicPartition,
    states: HashMap<String, BTreeMap<u64, Vec<StoredState>>>,
    /// Version of the latest state of each aggregate that has one.
    latest: HashMap<String, u64>,
    pub(crate) checkpoint: Option<CheckpointRecord>,
    pub(crate) read: u64,
}

/// Chunks of a large state, by index.
#[derive(Default)]
struct Chunks {
    version: u64,
    parts: BTreeMap<u32, Vec<u8>>,
}

impl StateTopic {
    pub(crate) fn read<D: Decider>(
        evidence: &impl Evidence,
        topic_partition: TopicPartition,
        codec: &Codec,
        context: &mut AuditContext,
    ) -> Result<Self, Error> {
        let mut topic = Self {
            topic_partition,
            states: HashMap::new(),
            latest: HashMap::new(),
            checkpoint: None,
            read: 0,
        };
        let mut chunks = HashMap::new();
        let mut stream = Stream::open(evidence, topic_partition)?;
        while let Some(input) = stream.next()? {
            topic.add_record::<D>(&input, codec, &mut chunks, context)?;
        }
        topic.read = stream.read;
        topic.check_checkpoint(evidence, context);
        Ok(topic)
    }

    fn add_record<D: Decider>(
        &mut self,
        input: &Input,
        codec: &Codec,
        chunks: &mut HashMap<String, Chunks>,
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
        let decoded =
            codec.decode::<<D::Contract as Contract>::StateRecord>(service, Topic::State, input);
        let (metadata, body) = match decoded {
            Ok(decoded) => decoded,
            Err(undecodable) => {
                let wrong = undecodable_reason(self.topic_partition, input.offset, undecodable)?;
                let example = Example::new(format!("a state cannot be read: {wrong}"));
                let example = example.at(self.topic_partition, input.offset);
                context.findings.violated(Invariant::I15, example);
                return Ok(());
            }
        };
        match body {
            StateBody::Aggregate(state) => {
                self.add_state::<D>(input, &metadata, &state.encode_to_vec(), context);
            }
            StateBody::Chunk(chunk) => {
                self.add_chunk::<D>(input, &metadata, chunk, chunks, context);
            }
            StateBody::Checkpoint(content) => {
                let offset = input.offset;
                self.checkpoint = Some(CheckpointRecord { offset, content });
            }
            StateBody::Parked(_) => {}
        }
        Ok(())
    }

    fn add_chunk<D: Decider>(
        &mut self,
        input: &Input,
        metadata: &Metadata,
        chunk: Chunk,
        chunks: &mut HashMap<String, Chunks>,
        context: &mut AuditContext,
    ) {
        let chunks = chunks.entry(metadata.aggregate_id.clone()).or_default();
        if chunks.version != metadata.aggregate_version {
            *chunks = Chunks {
                version: metadata.aggregate_version,
                ..Chunks::default()
            };
        }
        chunks.parts.insert(chunk.index, chunk.part);
        if chunks.parts.len() == chunk.count as usize {
            let bytes: Vec<u8> = std::mem::take(&mut chunks.parts)
                .into_values()
                .flatten()
                .collect();
            self.add_state::<D>(input, metadata, &bytes, context);
        }
    }

    fn add_state<D: Decider>(
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
            // The worker folds the events instead of loading this state.
            context.findings.unchecked(Invariant::I15);
            return;
        }
        let state = StoredState {
            offset: input.offset,
            written_ms: input.time_ms,
            time_ms: *time_ms,
            content: hash(bytes),
        };
        let versions = self.states.entry(aggregate_id.clone()).or_default();
        versions.entry(*aggregate_version).or_default().push(state);
    }

    fn check_checkpoint(&self, evidence: &impl Evidence, context: &mut AuditContext) {
        let Some(last) = &self.checkpoint else { return };
        context.findings.checked(Invariant::I15);
        let ends_of = |topic| {
            let topic_partition = TopicPartition {
                topic,
                ..self.topic_partition
            };
            evidence.cut().ends(topic_partition)
        };
        let (events, commands) = (ends_of(Topic::Events), ends_of(Topic::Commands));
        if last.content.events_offset > events.high || last.content.commands_offset > commands.high
        {
            let wrong = format!(
                "the checkpoint covers events to {} and commands to {}, the log ends at {} and {}",
                last.content.events_offset,
                last.content.commands_offset,
                events.high,
                commands.high
            );
            let example = Example::new(wrong).at(self.topic_partition, last.offset);
            context.findings.violated(Invariant::I15, example);
        }
    }

    /// Compares the states of an aggregate in this version with the fold.
    pub(crate) fn compare<D: Decider>(
        &mut self,
        context: &mut AuditContext,
        id: &str,
        version: u64,
        time_ms: i64,
        fold: &State<D>,
    ) {
        let Some(versions) = self.states.get_mut(id) else {
            return;
        };
        let Some(states) = versions.remove(&version) else {
            return;
        };
        if versions.is_empty() {
            self.states.remove(id);
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
            let example = Example::new(wrong)
                .at(self.topic_partition, state.offset)
                .of_aggregate(id);
            context.findings.violated(Invariant::I15, example);
        }
    }

    /// Compares an aggregate with the last checkpoint. A state in version `checkpointed_version`, the last one before
    /// the events offset of the checkpoint, or a later one must exist, unless the worker may have evicted the aggregate
    /// by then.
    pub(crate) fn check_coverage<D: Decider>(
        &self,
        context: &mut AuditContext,
        id: &str,
        checkpointed_version: u64,
        may_be_evicted: bool,
    ) {
        let Some(last) = &self.checkpoint else { return };
        if checkpointed_version == 0 || last.content.rules_version != D::RULES_VERSION {
            return;
        }
        context.findings.checked(Invariant::I15);
        let wrong = match self.latest.get(id) {
            Some(version) if *version >= checkpointed_version => return,
            Some(version) => {
                format!(
                    "the checkpoint has it in version {version}, and covers version {checkpointed_version}"
                )
            }
            None => {
                let through = last.content.evicted_through_ms;
                let is_evicted =
                    contracts::rules::uuid_v7_time_ms(id).is_none_or(|id_ms| id_ms <= through);
                if may_be_evicted && is_evicted {
                    return;
                }
                format!("the checkpoint lacks it, and covers version {checkpointed_version}")
            }
        };
        let example = Example::new(wrong)
            .at(self.topic_partition, last.offset)
            .of_aggregate(id);
        context.findings.violated(Invariant::I15, example);
    }

    /// Reports the states that match no event. `version_of` returns the version of an aggregate in the log, including
    /// events beyond the cut.
    pub(crate) fn report_unmatched(
        &mut self,
        context: &mut AuditContext,
        version_of: impl Fn(&str) -> u64,
    ) {
        let mut unmatched: Vec<_> = std::mem::take(&mut self.states).into_iter().collect();
        unmatched.sort_by(|(left, _), (right, _)| left.cmp(right));
        for (id, versions) in unmatched {
            let known = version_of(&id);
            for (version, states) in versions {
                for state in states {
                    let (invariant, wrong) = if version > known {
                        let wrong =
                            format!("a state has version {version}, the committed log has {known}");
                        (Invariant::I10, wrong)
                    } else {
                        let wrong = format!("a state of version {version} fits no event");
                        (Invariant::I15, wrong)
                    };
                    let example = Example::new(wrong)
                        .at(self.topic_partition, state.offset)
                        .of_aggregate(&id);
                    context.add_unmatched(state.written_ms, invariant, example);
                }
            }
        }
    }
}
