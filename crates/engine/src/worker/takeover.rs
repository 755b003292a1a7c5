//! Taking over a partition: the committed offset first, then the states, then the events, up to the high watermarks.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use contracts::core::v1::{Checkpoint, Metadata};
use contracts::{Contract, StateBody, Topic};
use observability::TraceParent;
use prost::Message as _;
use registry::Resolution;

use super::aggregate::{Aggregate, Stored};
use super::checkpoint::StateKey;
use super::partition::{Finished, PartitionState};
use super::trace;
use super::{Safeguard, WorkerContext};
use crate::codec::Undecodable;
use crate::log::{self, Ends, Input, Log, Partition, Progress};
use crate::{Decider, State, headers};

/// A take-over under way.
pub struct TakeOver<D: Decider> {
    partition: Partition,
    begun: Duration,
    committed: Option<i64>,
    commands: Ends,
    events: Ends,
    phase: Phase,
    checkpoint: Option<Checkpoint>,
    aggregates: HashMap<String, Aggregate<State<D>>>,
    chunks: HashMap<String, BTreeMap<u32, Piece>>,
    replayed: Vec<String>,
    highest_source: Option<i64>,
    time_ms: i64,
    buffer: Vec<Input>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    State,
    /// `full` ignores states and checkpoint.
    Events {
        full: bool,
    },
}

/// Why states are not enough.
#[derive(Clone, Copy)]
enum Cause {
    /// One cannot be read, or does not fit the events behind it.
    Damaged,
    /// There is no checkpoint.
    Missing,
    /// They are folds by older rules.
    Outdated,
}

impl Cause {
    const fn label(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Missing => "missing",
            Self::Outdated => "outdated",
        }
    }
}

struct Piece {
    version: u64,
    time_ms: i64,
    trace: Option<TraceParent>,
    count: u32,
    part: Vec<u8>,
}

/// Why a partition cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Trouble with the log.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// The registry has not answered yet; the next step asks again.
    #[error("waiting for the schema registry")]
    Registry,
    /// Written by a newer binary.
    #[error(
        "partition {partition} was written by a newer version: {reason}; this service must be upgraded"
    )]
    Newer {
        /// Which partition.
        partition: Partition,
        /// What is newer.
        reason: String,
    },
    /// The log contradicts itself; somebody reset the group, or recreated a topic or the registry.
    #[error("partition {partition} cannot be taken over: {reason}")]
    Damaged {
        /// Which partition.
        partition: Partition,
        /// What is wrong.
        reason: String,
    },
}

impl<D: Decider> TakeOver<D> {
    /// Notes where the partition starts and how far it has to be read; the order matters: what the committed offset
    /// covers lies below the watermarks seen after it.
    pub fn begin<L: Log>(log: &mut L, partition: Partition) -> Result<Self, Error> {
        let begun = log.now();
        let committed = log.committed(partition)?;
        let state = log.ends(Topic::State, partition)?;
        let events = log.ends(Topic::Events, partition)?;
        let commands = log.ends(Topic::Commands, partition)?;
        log.open(Topic::State, partition, state.low, state.high)?;
        Ok(Self {
            partition,
            begun,
            committed,
            commands,
            events,
            phase: Phase::State,
            checkpoint: None,
            aggregates: HashMap::new(),
            chunks: HashMap::new(),
            replayed: Vec::new(),
            highest_source: None,
            time_ms: 0,
            buffer: Vec::new(),
        })
    }

    /// The partition that is taken over.
    pub fn partition(&self) -> Partition {
        self.partition
    }

    /// Reads a piece; the partition when all is read.
    pub fn step<L: Log>(
        &mut self,
        tools: &WorkerContext<D>,
        log: &mut L,
        wait: Duration,
    ) -> Result<Option<PartitionState<D>>, Error> {
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.is_empty() {
            let read = log.read(wait, &mut buffer);
            self.count(tools, buffer.len());
            if let Err(error) = read {
                // What came before the trouble is not read again.
                self.buffer = buffer;
                return Err(error.into());
            }
            if matches!(read, Ok(Progress::Done)) && buffer.is_empty() {
                return self.next_phase(tools, log);
            }
        }
        // Kept when the registry has to be asked first, so that nothing is read twice.
        let mut inputs = std::mem::take(&mut buffer).into_iter();
        while let Some(input) = inputs.next() {
            let taken = match self.phase {
                Phase::State => self.take_state(tools, &input),
                Phase::Events { full } => self.take_event(tools, &input, full),
            };
            match taken {
                Ok(true) => {}
                Ok(false) => {
                    self.replay_all(tools, log, Cause::Damaged)?;
                    return Ok(None);
                }
                Err(error) => {
                    if matches!(error, Error::Registry) {
                        self.buffer.push(input);
                        self.buffer.extend(inputs);
                    }
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    fn count(&self, tools: &WorkerContext<D>, records: usize) {
        let topic = match self.phase {
            Phase::State => Topic::State,
            Phase::Events { .. } => Topic::Events,
        };
        tools
            .metrics
            .restored_records
            .with_label_values(&[D::Contract::SERVICE.name(), topic.name()])
            .inc_by(records as u64);
    }

    fn next_phase<L: Log>(
        &mut self,
        tools: &WorkerContext<D>,
        log: &mut L,
    ) -> Result<Option<PartitionState<D>>, Error> {
        match self.phase {
            Phase::State => {
                self.check_checkpoint(tools)?;
                let whole = self.join_chunks();
                let cause = match &self.checkpoint {
                    _ if !whole => Some(Cause::Damaged),
                    None => Some(Cause::Missing),
                    Some(checkpoint) => {
                        (checkpoint.rules_version < D::RULES_VERSION).then_some(Cause::Outdated)
                    }
                };
                if let Some(cause) = cause {
                    self.replay_all(tools, log, cause)?;
                } else {
                    let from = self.checkpoint.as_ref().map_or(0, |c| c.events_offset);
                    if from > self.events.high {
                        return Err(self.damaged(format!(
                            "its events end at {}, before the checkpoint's {from}: the topic was truncated or made anew",
                            self.events.high
                        )));
                    }
                    self.phase = Phase::Events { full: false };
                    log.open(Topic::Events, self.partition, from, self.events.high)?;
                }
                Ok(None)
            }
            Phase::Events { .. } => self.finish(tools, log).map(Some),
        }
    }

    /// Ignores states and checkpoint, and says so where there is something to replay.
    fn replay_all<L: Log>(
        &mut self,
        tools: &WorkerContext<D>,
        log: &mut L,
        cause: Cause,
    ) -> Result<(), Error> {
        if self.events.high > 0 {
            let service = D::Contract::SERVICE;
            let cause = cause.label();
            tracing::warn!(%service, partition = self.partition, cause, "replaying every event");
            tools
                .metrics
                .full_replays
                .with_label_values(&[service.name(), cause])
                .inc();
        }
        if self.events.low > 0 {
            return Err(self.damaged("its first events are gone"));
        }
        self.aggregates.clear();
        self.buffer.clear();
        self.replayed.clear();
        self.phase = Phase::Events { full: true };
        log.open(Topic::Events, self.partition, 0, self.events.high)?;
        Ok(())
    }

    fn take_state(&mut self, tools: &WorkerContext<D>, input: &Input) -> Result<bool, Error> {
        let key = input.key.as_deref().unwrap_or_default();
        let Some(key) = StateKey::decode(key) else {
            return Ok(true);
        };
        if input.payload.is_none() {
            match key {
                StateKey::Aggregate(id) => {
                    self.aggregates.remove(id);
                }
                StateKey::Chunk(id, index) => {
                    if let Some(pieces) = self.chunks.get_mut(id) {
                        pieces.remove(&index);
                    }
                }
                StateKey::Checkpoint => self.checkpoint = None,
            }
            return Ok(true);
        }
        let decoded = tools.codec.own::<<D::Contract as Contract>::StateRecord>(
            D::Contract::SERVICE,
            Topic::State,
            input,
        );
        let (metadata, body) = match decoded {
            Ok(record) => record,
            // A state that cannot be read is found again in the events.
            Err(Undecodable::Poison(_)) => return Ok(false),
            Err(other) => return Err(self.undecodable(other)),
        };
        let Metadata {
            aggregate_id,
            aggregate_version: version,
            time_ms,
            ..
        } = metadata;
        match body {
            StateBody::Aggregate(state) => {
                let aggregate = Aggregate {
                    state,
                    version,
                    time_ms,
                    stored: Stored::Whole,
                    trace: trace::context_of(input),
                };
                self.aggregates.insert(aggregate_id, aggregate);
            }
            StateBody::Chunk(chunk) => {
                let piece = Piece {
                    version,
                    time_ms,
                    trace: trace::context_of(input),
                    count: chunk.count,
                    part: chunk.part,
                };
                self.chunks
                    .entry(aggregate_id)
                    .or_default()
                    .insert(chunk.index, piece);
            }
            StateBody::Checkpoint(checkpoint) => self.checkpoint = Some(checkpoint),
            StateBody::Parked(_) => {}
        }
        Ok(true)
    }

    /// Puts large states together; whether all of them were whole.
    fn join_chunks(&mut self) -> bool {
        for (id, mut pieces) in std::mem::take(&mut self.chunks) {
            let Some(newest) = pieces.values().max_by_key(|piece| piece.version) else {
                continue;
            };
            let (version, time_ms, count) = (newest.version, newest.time_ms, newest.count);
            let trace = newest.trace;
            // A replay that no longer knew of a larger state may have left its last chunks behind.
            pieces.retain(|index, piece| piece.version == version && *index < count);
            if pieces.len() != count as usize {
                return false;
            }
            let bytes: Vec<u8> = pieces.into_values().flat_map(|piece| piece.part).collect();
            let Ok(state) = State::<D>::decode(bytes.as_slice()) else {
                return false;
            };
            let aggregate = Aggregate {
                state,
                version,
                time_ms,
                stored: Stored::Chunks(count),
                trace,
            };
            // Chunks can be left behind by a replay that no longer knew of them.
            let newest = self.aggregates.get(&id).map_or(0, |whole| whole.version);
            if version > newest {
                self.aggregates.insert(id, aggregate);
            }
        }
        true
    }

    fn check_checkpoint(&self, tools: &WorkerContext<D>) -> Result<(), Error> {
        let Some(checkpoint) = &self.checkpoint else {
            return Ok(());
        };
        if checkpoint.rules_version > D::RULES_VERSION {
            return Err(Error::Newer {
                partition: self.partition,
                reason: format!("its rules have version {}", checkpoint.rules_version),
            });
        }
        let service = D::Contract::SERVICE;
        match tools.codec.schemas().resolve(service, Topic::Events, checkpoint.schema_id) {
            Resolution::Known => Ok(()),
            Resolution::Pending => Err(Error::Registry),
            Resolution::Newer => Err(Error::Newer {
                partition: self.partition,
                reason: format!("its events have schema {}", checkpoint.schema_id),
            }),
            Resolution::Unknown | Resolution::Foreign => Err(self.damaged(format!(
                "the schema registry no longer knows schema {} as one of its events: it was wiped or replaced",
                checkpoint.schema_id
            ))),
        }
    }

    fn take_event(
        &mut self,
        tools: &WorkerContext<D>,
        input: &Input,
        full: bool,
    ) -> Result<bool, Error> {
        let decoded = tools.codec.own::<<D::Contract as Contract>::EventRecord>(
            D::Contract::SERVICE,
            Topic::Events,
            input,
        );
        let (metadata, event) = match decoded {
            Ok(record) => record,
            Err(Undecodable::Poison(poison)) => {
                return Err(self.damaged(format!(
                    "the event at offset {} cannot be read: {}",
                    input.offset, poison.message
                )));
            }
            Err(other) => return Err(self.undecodable(other)),
        };
        let source = input
            .header(headers::SOURCE_OFFSET)
            .and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        self.highest_source = self.highest_source.max(source);
        self.time_ms = self.time_ms.max(metadata.time_ms);

        let aggregate = self
            .aggregates
            .entry(metadata.aggregate_id.clone())
            .or_default();
        if metadata.aggregate_version <= aggregate.version {
            return Ok(true);
        }
        if metadata.aggregate_version != aggregate.version + 1 {
            if full {
                return Err(self.damaged(format!(
                    "events of {} jump to version {} at offset {}",
                    metadata.aggregate_id, metadata.aggregate_version, input.offset
                )));
            }
            return Ok(false);
        }
        D::evolve(&mut aggregate.state, &event);
        aggregate.version = metadata.aggregate_version;
        aggregate.time_ms = metadata.time_ms;
        aggregate.trace = trace::context_of(input).or(aggregate.trace);
        self.replayed.push(metadata.aggregate_id);
        Ok(true)
    }

    fn finish<L: Log>(
        &mut self,
        tools: &WorkerContext<D>,
        log: &mut L,
    ) -> Result<PartitionState<D>, Error> {
        let position = self.start()?;
        let mut running = PartitionState::at(position);
        running.aggregates = std::mem::take(&mut self.aggregates);
        // A state that is not in the topic, or older than there, is written by the next checkpoint.
        if tools.settings.without != Some(Safeguard::CheckpointingReplayed) {
            running.dirty.extend(self.replayed.drain(..));
        }
        running.events_end = self.events.high;
        running.time_ms = self.time_ms;
        if let Some(checkpoint) = &self.checkpoint {
            running.evicted_through_ms = checkpoint.evicted_through_ms;
            running.time_ms = running.time_ms.max(checkpoint.partition_time_ms);
        }
        running.answers_until = self.commands.high;
        let mut finished: Vec<_> = running
            .aggregates
            .iter()
            .filter(|(_, aggregate)| D::finished(&aggregate.state))
            .map(|(id, aggregate)| {
                Finished::seen::<D>(id, aggregate.time_ms, log.unix_ms(), &tools.settings)
            })
            .collect();
        finished
            .sort_unstable_by(|one, other| (one.time_ms, &one.id).cmp(&(other.time_ms, &other.id)));
        running.finished = finished.into();

        let took = log.now().saturating_sub(self.begun);
        tools
            .metrics
            .restore(D::Contract::SERVICE)
            .observe(took.as_secs_f64());
        tracing::info!(
            service = %D::Contract::SERVICE, partition = self.partition, position,
            aggregates = running.aggregates.len(), replayed = running.dirty.len(),
            millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX), "partition taken over"
        );
        Ok(running)
    }

    /// Where the commands start, checked against everything that is known of it.
    fn start(&self) -> Result<i64, Error> {
        let Some(committed) = self.committed else {
            if self.highest_source.is_some() || self.checkpoint.is_some() {
                return Err(
                    self.damaged("the group's committed offset is missing although events exist")
                );
            }
            return Ok(self.commands.low);
        };
        if let Some(checkpoint) = &self.checkpoint
            && committed < checkpoint.commands_offset
        {
            return Err(self.damaged(format!(
                "the group's committed offset {committed} lies before the checkpoint's {}: somebody reset the group",
                checkpoint.commands_offset
            )));
        }
        if let Some(source) = self.highest_source
            && committed <= source
        {
            return Err(self.damaged(format!(
                "the group's committed offset {committed} does not lie behind command {source}, which has events: \
                 somebody reset the group"
            )));
        }
        if committed < self.commands.low || committed > self.commands.high {
            return Err(self.damaged(format!(
                "the group's committed offset {committed} lies outside the commands that are kept ({} to {})",
                self.commands.low, self.commands.high
            )));
        }
        Ok(committed)
    }

    fn undecodable(&self, undecodable: Undecodable) -> Error {
        match undecodable {
            Undecodable::Pending(_) => Error::Registry,
            Undecodable::Newer(id) => Error::Newer {
                partition: self.partition,
                reason: format!("a record has schema {id}"),
            },
            Undecodable::Poison(poison) => self.damaged(poison.message),
        }
    }

    fn damaged(&self, reason: impl Into<String>) -> Error {
        Error::Damaged {
            partition: self.partition,
            reason: reason.into(),
        }
    }
}
