//! Deciding outside a worker: commands that were decided once are decided again, by the very same code.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use contracts::core::v1::Metadata;
use contracts::{Contract, Topic};

use super::aggregate::Aggregate;
use super::dead_letter::dead_letter;
use super::partition::PartitionState;
use super::{Reject, Settings, WorkerContext, decide};
use crate::codec::{Codec, Poison, Undecodable};
use crate::log::kafka::Cluster;
use crate::log::{Input, Output};
use crate::metrics::Metrics;
use crate::{Command, Decider, State};

/// Decides the commands of one partition again. It writes nothing and tells nobody: what would have been written is
/// returned.
pub struct Replay<D: Decider> {
    tools: WorkerContext<D>,
    running: PartitionState<D>,
}

/// What deciding a command leads to.
#[derive(Debug)]
pub enum Replayed {
    /// These records: events, messages to other services, an outcome. None when nothing changes and nobody waits.
    Records(Vec<Output>),
    /// This dead letter.
    Dead {
        /// As it is written.
        letter: Output,
        /// Class of the error.
        class: &'static str,
    },
    /// The worker would have gone back, and written a dead letter the next time.
    Failed {
        /// Class of the error.
        class: &'static str,
    },
    /// It cannot be decoded yet: its schema is newer, or the registry does not answer.
    Blocked {
        /// Its schema.
        schema_id: u32,
        /// The schema is known to be newer.
        is_newer: bool,
    },
}

impl<D: Decider> Replay<D> {
    /// Nothing is known yet. `cluster` gives names and partitions; nobody connects to it.
    ///
    /// # Panics
    ///
    /// Never: a fresh registry takes every metric.
    pub fn new(rules: D, cluster: Arc<Cluster>, codec: Codec) -> Self {
        let metrics = Metrics::new(&prometheus::Registry::new());
        let commands_topic = cluster.topic(D::Contract::SERVICE, Topic::Commands);
        Self {
            tools: WorkerContext {
                rules,
                codec,
                metrics: metrics.expect("a fresh registry takes every name"),
                settings: Settings::default(),
                cluster,
                commands_topic,
            },
            running: PartitionState::at(0),
        }
    }

    /// Decides a command, and folds its events. `events_end` and `evicted_through_ms` are what the worker knew of its
    /// partition then.
    pub fn decide(&mut self, input: &Input, events_end: i64, evicted_through_ms: i64) -> Replayed {
        self.running.events_end = events_end;
        self.running.evicted_through_ms = evicted_through_ms;
        let replayed = self.replay(input);
        // Only a worker has checkpoints to write.
        self.running.dirty.clear();
        self.running.changed.clear();
        self.running.finished.clear();
        replayed
    }

    fn replay(&mut self, input: &Input) -> Replayed {
        let Self { tools, running } = self;
        let (metadata, command) = match decide::open::<D>(tools, input) {
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
                tools,
                running,
                input,
                &metadata,
                &command,
                None,
                &mut outputs,
            )
        }));
        match decided.unwrap_or_else(|_| Err(Reject::GoBack(decide::panicked()))) {
            Ok(_) => Replayed::Records(outputs),
            Err(Reject::Poison(poison)) => self.dead(input, &poison),
            Err(Reject::GoBack(poison)) => Replayed::Failed {
                class: poison.class,
            },
        }
    }

    fn dead(&self, input: &Input, poison: &Poison) -> Replayed {
        Replayed::Dead {
            letter: dead_letter(&self.tools, input, poison),
            class: poison.class,
        }
    }

    /// What a command says, when the worker would have decided it.
    ///
    /// # Errors
    ///
    /// The worker would have written a dead letter, or waited.
    pub fn open(&self, input: &Input) -> Result<(Metadata, Command<D>), Undecodable> {
        decide::open::<D>(&self.tools, input)
    }

    /// Puts an aggregate in place of what is known of it: its state, its version, the time of its last event.
    pub fn set(&mut self, id: &str, state: State<D>, version: u64, time_ms: i64) {
        let aggregate = Aggregate {
            state,
            version,
            time_ms,
            ..Aggregate::default()
        };
        self.running.aggregates.insert(id.to_owned(), aggregate);
    }

    /// Forgets an aggregate, as a worker does when it leaves memory.
    pub fn forget(&mut self, id: &str) {
        self.running.aggregates.remove(id);
    }
}
