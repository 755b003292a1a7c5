//! Take-over of a partition: reads the committed offset, then the states, then the events, up to the high watermarks.

mod states;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use contracts::core::v1::Checkpoint;
use contracts::{Contract, Topic};
use registry::Resolution;

use self::states::StoredChunk;
use super::aggregate::Aggregate;
use super::partition::{Finished, PartitionState};
use super::trace;
use super::{WorkerContext, WorkerSafeguard};
use crate::codec::Undecodable;
use crate::log::{self, Ends, Input, Log, Partition, Progress};
use crate::{Decider, State, headers};

/// A running take-over.
pub struct TakeOver<D: Decider> {
    partition: Partition,
    started_at: Duration,
    committed: Option<i64>,
    commands: Ends,
    events: Ends,
    phase: Phase,
    checkpoint: Option<Checkpoint>,
    aggregates: HashMap<String, Aggregate<State<D>>>,
    chunks: HashMap<String, BTreeMap<u32, StoredChunk>>,
    replayed: Vec<String>,
    highest_source_offset: Option<i64>,
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

/// Why a take-over replays every event.
#[derive(Clone, Copy)]
enum ReplayCause {
    /// A state cannot be read, or does not fit the events after it.
    Damaged,
    /// There is no checkpoint.
    Missing,
    /// The states were folded by older rules.
    Outdated,
}

impl ReplayCause {
    const fn label(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Missing => "missing",
            Self::Outdated => "outdated",
        }
    }
}

/// Why a partition cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log failed.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// The registry has not answered yet; the next step asks again.
    #[error("waiting for the schema registry")]
    Registry,
    /// A newer binary wrote the partition.
    #[error(
        "partition {partition} was written by a newer version: {reason}; this service must be upgraded"
    )]
    Newer {
        /// Which partition.
        partition: Partition,
        /// What is newer.
        reason: String,
    },
    /// The log contradicts itself: the group was reset, or a topic or the registry was recreated.
    #[error("partition {partition} cannot be taken over: {reason}")]
    Damaged {
        /// Which partition.
        partition: Partition,
        /// What is wrong.
        reason: String,
    },
}

impl<D: Decider> TakeOver<D> {
    /// Fetches the committed offset and then the watermarks. The order matters: all records that the committed offset
    /// covers lie below watermarks that are fetched after it.
    pub fn begin<L: Log>(log: &mut L, partition: Partition) -> Result<Self, Error> {
        let started_at = log.now();
        let committed = log.committed(partition)?;
        let state = log.ends(Topic::State, partition)?;
        let events = log.ends(Topic::Events, partition)?;
        let commands = log.ends(Topic::Commands, partition)?;
        log.open(Topic::State, partition, state.low, state.high)?;
        Ok(Self {
            partition,
            started_at,
            committed,
            commands,
            events,
            phase: Phase::State,
            checkpoint: None,
            aggregates: HashMap::new(),
            chunks: HashMap::new(),
            replayed: Vec::new(),
            highest_source_offset: None,
            time_ms: 0,
            buffer: Vec::new(),
        })
    }

    /// The partition that is taken over.
    pub fn partition(&self) -> Partition {
        self.partition
    }

    /// Reads one batch; returns the partition's state when all is read.
    pub fn step<L: Log>(
        &mut self,
        context: &WorkerContext<D>,
        log: &mut L,
        wait: Duration,
    ) -> Result<Option<PartitionState<D>>, Error> {
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.is_empty() {
            let read = log.read(wait, &mut buffer);
            self.count(context, buffer.len());
            if let Err(error) = read {
                // Records read before the error are not read again.
                self.buffer = buffer;
                return Err(error.into());
            }
            if matches!(read, Ok(Progress::Done)) && buffer.is_empty() {
                return self.next_phase(context, log);
            }
        }
        // Kept while a schema is being resolved, so that nothing is read twice.
        let mut inputs = std::mem::take(&mut buffer).into_iter();
        while let Some(input) = inputs.next() {
            let taken = match self.phase {
                Phase::State => self.apply_state(context, &input),
                Phase::Events { full } => self.apply_event(context, &input, full),
            };
            match taken {
                Ok(true) => {}
                Ok(false) => {
                    self.replay_all(context, log, ReplayCause::Damaged)?;
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

    fn count(&self, context: &WorkerContext<D>, records: usize) {
        let topic = match self.phase {
            Phase::State => Topic::State,
            Phase::Events { .. } => Topic::Events,
        };
        context
            .metrics
            .restored_records
            .with_label_values(&[D::Contract::SERVICE.name(), topic.name()])
            .inc_by(records as u64);
    }

    fn next_phase<L: Log>(
        &mut self,
        context: &WorkerContext<D>,
        log: &mut L,
    ) -> Result<Option<PartitionState<D>>, Error> {
        match self.phase {
            Phase::State => {
                self.check_checkpoint(context)?;
                let complete = self.join_chunks();
                let cause = match &self.checkpoint {
                    _ if !complete => Some(ReplayCause::Damaged),
                    None => Some(ReplayCause::Missing),
                    Some(checkpoint) => (checkpoint.rules_version < D::RULES_VERSION)
                        .then_some(ReplayCause::Outdated),
                };
                if let Some(cause) = cause {
                    self.replay_all(context, log, cause)?;
                } else {
                    let from = self.checkpoint.as_ref().map_or(0, |c| c.events_offset);
                    if from > self.events.high {
                        return Err(self.damaged(format!(
                            "its events end at {}, before the checkpoint's {from}: the topic was truncated or recreated",
                            self.events.high
                        )));
                    }
                    self.phase = Phase::Events { full: false };
                    log.open(Topic::Events, self.partition, from, self.events.high)?;
                }
                Ok(None)
            }
            Phase::Events { .. } => self.finish(context, log).map(Some),
        }
    }

    /// Starts a replay of all events without states and checkpoint; logs it when there are events.
    fn replay_all<L: Log>(
        &mut self,
        context: &WorkerContext<D>,
        log: &mut L,
        cause: ReplayCause,
    ) -> Result<(), Error> {
        if self.events.high > 0 {
            let service = D::Contract::SERVICE;
            let cause = cause.label();
            tracing::warn!(%service, partition = self.partition, cause, "replaying every event");
            context
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

    fn check_checkpoint(&self, context: &WorkerContext<D>) -> Result<(), Error> {
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
        match context.codec.schemas().resolve(service, Topic::Events, checkpoint.schema_id) {
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

    fn apply_event(
        &mut self,
        context: &WorkerContext<D>,
        input: &Input,
        full: bool,
    ) -> Result<bool, Error> {
        let decoded = context
            .codec
            .decode::<<D::Contract as Contract>::EventRecord>(
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
        self.highest_source_offset = self.highest_source_offset.max(source);
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
        context: &WorkerContext<D>,
        log: &mut L,
    ) -> Result<PartitionState<D>, Error> {
        let position = self.start_offset()?;
        let mut partition_state = PartitionState::at(position);
        partition_state.aggregates = std::mem::take(&mut self.aggregates);
        // The next checkpoint writes the states that the topic lacks, or has in an older version.
        if context.settings.has(WorkerSafeguard::CheckpointingReplayed) {
            partition_state.dirty.extend(self.replayed.drain(..));
        }
        partition_state.events_end = self.events.high;
        partition_state.time_ms = self.time_ms;
        if let Some(checkpoint) = &self.checkpoint {
            partition_state.evicted_through_ms = checkpoint.evicted_through_ms;
            partition_state.time_ms = partition_state.time_ms.max(checkpoint.partition_time_ms);
        }
        partition_state.answers_until = self.commands.high;
        let mut finished: Vec<_> = partition_state
            .aggregates
            .iter()
            .filter(|(_, aggregate)| D::finished(&aggregate.state))
            .map(|(id, aggregate)| {
                Finished::new::<D>(id, aggregate.time_ms, log.unix_ms(), &context.settings)
            })
            .collect();
        finished
            .sort_unstable_by(|one, other| (one.time_ms, &one.id).cmp(&(other.time_ms, &other.id)));
        partition_state.finished = finished.into();

        let took = log.now().saturating_sub(self.started_at);
        context
            .metrics
            .restore(D::Contract::SERVICE)
            .observe(took.as_secs_f64());
        tracing::info!(
            service = %D::Contract::SERVICE, partition = self.partition, position,
            aggregates = partition_state.aggregates.len(), replayed = partition_state.dirty.len(),
            millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX), "partition taken over"
        );
        Ok(partition_state)
    }

    /// Offset of the first command to process, checked against checkpoint, events and watermarks.
    fn start_offset(&self) -> Result<i64, Error> {
        let Some(committed) = self.committed else {
            if self.highest_source_offset.is_some() || self.checkpoint.is_some() {
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
                "the group's committed offset {committed} lies before the checkpoint's {}: the group was reset",
                checkpoint.commands_offset
            )));
        }
        if let Some(source) = self.highest_source_offset
            && committed <= source
        {
            return Err(self.damaged(format!(
                "the group's committed offset {committed} does not lie behind command {source}, which has events: \
                 the group was reset"
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
