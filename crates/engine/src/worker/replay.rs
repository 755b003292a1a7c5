//! Deciding outside a worker: commands from the log are decided again by the same code.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use contracts::core::v1::Metadata;
use contracts::{Contract, Topic};

use super::aggregate::Aggregate;
use super::dead_letter::dead_letter;
use super::partition::PartitionState;
use super::{Reject, Settings, WorkerContext, decide};
use crate::codec::{Codec, Poison, Undecodable};
use crate::log::{Cluster, Input, Output};
use crate::metrics::Metrics;
use crate::{Command, Decider, State};

/// Decides the commands of one partition again. It has no side effects: it returns the records that a worker would have
/// written.
pub struct Replay<D: Decider> {
    context: WorkerContext<D>,
    partition_state: PartitionState<D>,
}

/// Result of a replayed command.
#[derive(Debug)]
pub enum Replayed {
    /// These records: events, messages to other services, an outcome. Empty when nothing changes and no caller waits.
    Records(Vec<Output>),
    /// This dead letter.
    Dead {
        /// The record.
        letter: Output,
        /// Class of the error.
        class: &'static str,
    },
    /// The worker would have reset its partitions, and written a dead letter the next time.
    Failed {
        /// Class of the error.
        class: &'static str,
    },
    /// The command cannot be decoded yet: its schema is newer, or the registry does not answer.
    Blocked {
        /// Id of its schema.
        schema_id: u32,
        /// The schema is known to be newer.
        is_newer: bool,
    },
}

impl<D: Decider> Replay<D> {
    /// A replay without aggregates. `cluster` gives names and partitions; no connection is made.
    ///
    /// # Panics
    ///
    /// Never: a fresh registry takes every metric.
    pub fn new(rules: D, cluster: Arc<Cluster>, codec: Codec) -> Self {
        let metrics = Metrics::new(&prometheus::Registry::new());
        let commands_topic = cluster.topic(D::Contract::SERVICE, Topic::Commands);
        Self {
            context: WorkerContext {
                rules,
                codec,
                metrics: metrics.expect("a fresh registry takes every name"),
                settings: Settings::default(),
                cluster,
                commands_topic,
            },
            partition_state: PartitionState::at(0),
        }
    }

    /// Decides a command, and folds its events. `events_end` and `evicted_through_ms` are the values of the worker's
    /// partition at that time.
    pub fn decide(&mut self, input: &Input, events_end: i64, evicted_through_ms: i64) -> Replayed {
        self.partition_state.events_end = events_end;
        self.partition_state.evicted_through_ms = evicted_through_ms;
        let replayed = self.replay(input);
        // A replay writes no checkpoints.
        self.partition_state.dirty.clear();
        self.partition_state.changed.clear();
        self.partition_state.finished.clear();
        replayed
    }

    fn replay(&mut self, input: &Input) -> Replayed {
        let Self {
            context,
            partition_state,
        } = self;
        let (metadata, command) = match decide::decode_command::<D>(context, input) {
            Ok(opened) => opened,
            Err(Undecodable::Poison(poison)) => return self.dead(input, &poison),
            Err(Undecodable::Newer(schema_id)) => {
                return Replayed::Blocked {
                    schema_id,
                    is_newer: true,
                };
            }
            Err(Undecodable::Pending(schema_id)) => {
                return Replayed::Blocked {
                    schema_id,
                    is_newer: false,
                };
            }
        };
        let mut outputs = Vec::new();
        let decided = catch_unwind(AssertUnwindSafe(|| {
            decide::decide(
                context,
                partition_state,
                input,
                &metadata,
                &command,
                None,
                &mut outputs,
            )
        }));
        match decided.unwrap_or_else(|_| Err(Reject::Reset(decide::panicked()))) {
            Ok(_) => Replayed::Records(outputs),
            Err(Reject::Poison(poison)) => self.dead(input, &poison),
            Err(Reject::Reset(poison)) => Replayed::Failed {
                class: poison.class,
            },
        }
    }

    fn dead(&self, input: &Input, poison: &Poison) -> Replayed {
        Replayed::Dead {
            letter: dead_letter(&self.context, input, poison),
            class: poison.class,
        }
    }

    /// Decodes and checks a command.
    ///
    /// # Errors
    ///
    /// The worker would have written a dead letter, or waited.
    pub fn open(&self, input: &Input) -> Result<(Metadata, Command<D>), Undecodable> {
        decide::decode_command::<D>(&self.context, input)
    }

    /// Sets an aggregate's state, version and time of its last event (Unix milliseconds).
    pub fn set(&mut self, id: &str, state: State<D>, version: u64, time_ms: i64) {
        let aggregate = Aggregate {
            state,
            version,
            time_ms,
            ..Aggregate::default()
        };
        self.partition_state
            .aggregates
            .insert(id.to_owned(), aggregate);
    }

    /// Drops an aggregate, as a worker does at its eviction.
    pub fn forget(&mut self, id: &str) {
        self.partition_state.aggregates.remove(id);
    }
}
