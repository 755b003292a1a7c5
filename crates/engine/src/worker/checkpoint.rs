//! Checkpoints: the changed states, then a record with the offsets that they include.
//!
//! A checkpoint is written in pieces, each inside a normal transaction, so that no batch waits for a large one. Its
//! offsets are those of the last batch committed before its first piece: every state written later includes at least
//! those offsets, and take-over skips events that a state already includes.

use contracts::core::v1::{Checkpoint, Chunk, Metadata};
use contracts::{Contract, Record as _, StateBody, Topic};
use observability::TraceParent;
use prost::Message as _;
use uuid::Uuid;

use super::WorkerContext;
use super::aggregate::{Aggregate, Stored};
use super::partition::PartitionState;
use crate::log::{Output, Partition};
use crate::{Decider, State};

/// States written with one batch.
const STATES_PER_PIECE: usize = 1_000;
/// A larger state is written in numbered chunks.
const MAX_STATE_BYTES: usize = 512 * 1024;

/// A checkpoint that is being written.
pub struct CheckpointProgress {
    pending: Vec<String>,
    events_offset: i64,
    commands_offset: i64,
}

impl CheckpointProgress {
    /// States that are still to be written.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }
}

/// Keys of the state topic: a kind, and the id where there is one.
pub enum StateKey<'a> {
    /// An aggregate in one record.
    Aggregate(&'a str),
    /// A chunk of a large aggregate, with its number.
    Chunk(&'a str, u32),
    /// The end of a checkpoint.
    Checkpoint,
}

impl<'a> StateKey<'a> {
    /// The record's key.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Aggregate(id) => format!("state:{id}").into_bytes(),
            Self::Chunk(id, index) => format!("chunk:{index}:{id}").into_bytes(),
            Self::Checkpoint => b"checkpoint".to_vec(),
        }
    }

    /// Parses a record's key; `None` for any other key.
    pub fn decode(key: &'a [u8]) -> Option<Self> {
        let key = std::str::from_utf8(key).ok()?;
        if key == "checkpoint" {
            return Some(Self::Checkpoint);
        }
        if let Some(id) = key.strip_prefix("state:") {
            return Some(Self::Aggregate(id));
        }
        let (index, id) = key.strip_prefix("chunk:")?.split_once(':')?;
        Some(Self::Chunk(id, index.parse().ok()?))
    }
}

/// Begins a checkpoint of all changed states, as of the last committed batch.
pub fn begin<D: Decider>(partition_state: &mut PartitionState<D>) {
    partition_state.checkpoint = Some(CheckpointProgress {
        // The open window lies beyond this checkpoint: its changed states are written now and stay dirty.
        pending: std::mem::replace(&mut partition_state.dirty, partition_state.changed.clone())
            .into_iter()
            .collect(),
        events_offset: partition_state.events_end,
        commands_offset: partition_state.committed,
    });
}

/// Appends the next piece; the last one ends the checkpoint.
pub fn write_piece<D: Decider>(
    context: &WorkerContext<D>,
    partition: Partition,
    partition_state: &mut PartitionState<D>,
    outputs: &mut Vec<Output>,
) {
    let Some(mut progress) = partition_state.checkpoint.take() else {
        return;
    };
    let from = progress.pending.len().saturating_sub(STATES_PER_PIECE);
    for id in progress.pending.drain(from..) {
        if let Some(aggregate) = partition_state.aggregates.get_mut(&id) {
            write_state(context, partition, &id, aggregate, outputs);
        }
    }
    if !progress.pending.is_empty() {
        partition_state.checkpoint = Some(progress);
        return;
    }
    evict(context, partition, partition_state, outputs);
    let checkpoint = Checkpoint {
        events_offset: progress.events_offset,
        commands_offset: progress.commands_offset,
        rules_version: D::RULES_VERSION,
        schema_id: context
            .codec
            .schemas()
            .writer_id(D::Contract::SERVICE, Topic::Events),
        evicted_through_ms: partition_state.evicted_through_ms,
        partition_time_ms: partition_state.time_ms,
    };
    outputs.push(output(
        context,
        partition,
        &StateKey::Checkpoint,
        Some((
            metadata::<D>("checkpoint", 0, partition_state.time_ms),
            StateBody::Checkpoint(checkpoint),
        )),
    ));
}

fn evict<D: Decider>(
    context: &WorkerContext<D>,
    partition: Partition,
    partition_state: &mut PartitionState<D>,
    outputs: &mut Vec<Output>,
) {
    let until_ms = partition_state.eviction_limit_ms(&context.settings);
    while let Some(id) = partition_state.next_evictable(until_ms) {
        if let Some(aggregate) = partition_state.aggregates.remove(&id) {
            erase(context, partition, &id, aggregate.stored, outputs);
        }
        if let Some(time_ms) = contracts::rules::uuid_v7_time_ms(&id) {
            partition_state.evicted_through_ms = partition_state.evicted_through_ms.max(time_ms);
        }
    }
}

fn write_state<D: Decider>(
    context: &WorkerContext<D>,
    partition: Partition,
    id: &str,
    aggregate: &mut Aggregate<State<D>>,
    outputs: &mut Vec<Output>,
) {
    let metadata = metadata::<D>(id, aggregate.version, aggregate.time_ms);
    let traced = |mut output: Output| {
        output
            .headers
            .extend(aggregate.trace.map(TraceParent::record_header));
        output
    };
    let size = aggregate.state.encoded_len();
    if size <= MAX_STATE_BYTES {
        if let Stored::Chunks(_) = aggregate.stored {
            erase(context, partition, id, aggregate.stored, outputs);
        }
        outputs.push(traced(output(
            context,
            partition,
            &StateKey::Aggregate(id),
            Some((metadata, StateBody::Aggregate(aggregate.state.clone()))),
        )));
        aggregate.stored = Stored::Single;
        return;
    }
    let bytes = aggregate.state.encode_to_vec();
    let parts: Vec<_> = bytes.chunks(MAX_STATE_BYTES).collect();
    let count = u32::try_from(parts.len()).expect("a state has fewer than 2³² chunks");
    match aggregate.stored {
        Stored::Single => erase(context, partition, id, Stored::Single, outputs),
        Stored::Chunks(stored) => {
            for index in count..stored {
                outputs.push(output(
                    context,
                    partition,
                    &StateKey::Chunk(id, index),
                    None,
                ));
            }
        }
        Stored::Absent => {}
    }
    for (index, part) in (0..).zip(parts) {
        outputs.push(traced(output(
            context,
            partition,
            &StateKey::Chunk(id, index),
            Some((
                metadata.clone(),
                StateBody::Chunk(Chunk {
                    index,
                    count,
                    part: part.to_vec(),
                }),
            )),
        )));
    }
    aggregate.stored = Stored::Chunks(count);
}

fn erase<D: Decider>(
    context: &WorkerContext<D>,
    partition: Partition,
    id: &str,
    stored: Stored,
    outputs: &mut Vec<Output>,
) {
    match stored {
        Stored::Absent => {}
        Stored::Single => outputs.push(output(context, partition, &StateKey::Aggregate(id), None)),
        Stored::Chunks(count) => {
            for index in 0..count {
                outputs.push(output(
                    context,
                    partition,
                    &StateKey::Chunk(id, index),
                    None,
                ));
            }
        }
    }
}

fn metadata<D: Decider>(id: &str, version: u64, time_ms: i64) -> Metadata {
    Metadata {
        id: Uuid::new_v5(&Uuid::nil(), id.as_bytes()).to_string(),
        aggregate_id: id.to_owned(),
        aggregate_version: version,
        time_ms,
        actor: D::Contract::SERVICE.name().to_owned(),
        rules_version: D::RULES_VERSION,
        ..Metadata::default()
    }
}

fn output<D: Decider>(
    context: &WorkerContext<D>,
    partition: Partition,
    key: &StateKey<'_>,
    content: Option<(Metadata, StateBody<State<D>>)>,
) -> Output {
    let service = D::Contract::SERVICE;
    Output {
        service,
        topic: Topic::State,
        partition,
        key: Some(key.encode()),
        payload: content.map(|(metadata, body)| {
            let record = <D::Contract as Contract>::StateRecord::new_record(metadata, body);
            context.codec.encode(service, Topic::State, &record)
        }),
        headers: Vec::new(),
    }
}
