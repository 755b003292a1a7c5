//! The state topic of a take-over: aggregates, chunks of large ones, and the checkpoint.

use contracts::core::v1::Metadata;
use contracts::{Contract, StateBody, Topic};
use observability::TraceParent;
use prost::Message as _;

use super::{Error, TakeOver};
use crate::codec::Undecodable;
use crate::log::Input;
use crate::worker::aggregate::{Aggregate, Stored};
use crate::worker::checkpoint::StateKey;
use crate::worker::{WorkerContext, trace};
use crate::{Decider, State};

/// A chunk of a large state.
pub(super) struct StoredChunk {
    version: u64,
    time_ms: i64,
    trace: Option<TraceParent>,
    count: u32,
    part: Vec<u8>,
}

impl<D: Decider> TakeOver<D> {
    /// Applies one record; `false` when the states are damaged and all events must be replayed.
    pub(super) fn apply_state(
        &mut self,
        context: &WorkerContext<D>,
        input: &Input,
    ) -> Result<bool, Error> {
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
                    if let Some(chunks) = self.chunks.get_mut(id) {
                        chunks.remove(&index);
                    }
                }
                StateKey::Checkpoint => self.checkpoint = None,
            }
            return Ok(true);
        }
        let decoded = context
            .codec
            .decode::<<D::Contract as Contract>::StateRecord>(
                D::Contract::SERVICE,
                Topic::State,
                input,
            );
        let (metadata, body) = match decoded {
            Ok(record) => record,
            // A state that cannot be read is rebuilt from the events.
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
                    stored: Stored::Single,
                    trace: trace::context_of(input),
                };
                self.aggregates.insert(aggregate_id, aggregate);
            }
            StateBody::Chunk(chunk) => {
                let stored_chunk = StoredChunk {
                    version,
                    time_ms,
                    trace: trace::context_of(input),
                    count: chunk.count,
                    part: chunk.part,
                };
                self.chunks
                    .entry(aggregate_id)
                    .or_default()
                    .insert(chunk.index, stored_chunk);
            }
            StateBody::Checkpoint(checkpoint) => self.checkpoint = Some(checkpoint),
            StateBody::Parked(_) => {}
        }
        Ok(true)
    }

    /// Joins the chunks of large states; returns whether all states were complete.
    pub(super) fn join_chunks(&mut self) -> bool {
        for (id, mut chunks) in std::mem::take(&mut self.chunks) {
            let Some(newest) = chunks.values().max_by_key(|chunk| chunk.version) else {
                continue;
            };
            let (version, time_ms, count) = (newest.version, newest.time_ms, newest.count);
            let trace = newest.trace;
            // A replay that did not know a larger state may have left its last chunks.
            chunks.retain(|index, chunk| chunk.version == version && *index < count);
            if chunks.len() != count as usize {
                return false;
            }
            let bytes: Vec<u8> = chunks.into_values().flat_map(|chunk| chunk.part).collect();
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
            // A replay that did not know of the chunks may have left them.
            let newest = self.aggregates.get(&id).map_or(0, |single| single.version);
            if version > newest {
                self.aggregates.insert(id, aggregate);
            }
        }
        true
    }
}
