//! Status of a worker, for readiness.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use contracts::Service;
use parking_lot::Mutex;
use serde::Serialize;

use super::partition::PartitionState;
use super::partitions::Partitions;
use super::{WorkerPhase, checkpoint};
use crate::Decider;
use crate::log::Partition;

/// A handle on the worker's last reported status; cloning it is cheap.
#[derive(Clone, Debug, Default)]
pub struct Status {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    /// Why the group membership is not confirmed; "joining the group" before the first check.
    membership: Option<String>,
    observed: ObservableState,
    unavailable: Option<String>,
    /// Why a take-over has to wait.
    delayed: Option<String>,
    iterations: u64,
}

/// The phases of a worker and its partitions.
#[derive(Clone, Debug, Serialize)]
pub struct ObservableState {
    /// When the worker reported this, Unix milliseconds: each second, unless it waits for the broker.
    pub observed_ms: i64,
    /// Why the worker is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_ready: Option<String>,
    /// `starting`, `running` or `recreating_producer`.
    pub phase: &'static str,
    /// Since when the producer has to be recreated, Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<i64>,
    /// The owned partitions.
    pub partitions: BTreeMap<Partition, ObservablePartition>,
}

impl Default for ObservableState {
    fn default() -> Self {
        Self {
            observed_ms: 0,
            not_ready: None,
            phase: "starting",
            since_ms: None,
            partitions: BTreeMap::new(),
        }
    }
}

/// The phase of a partition.
#[derive(Clone, Debug, Serialize)]
pub struct ObservablePartition {
    /// `assigned`, `restoring`, `running`, `blocked` or `failed`.
    pub phase: &'static str,
    /// Why it is blocked or has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why its records wait although it is running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stalled: Option<String>,
    /// Its state, once it is restored.
    #[serde(flatten)]
    pub restored: Option<RestoredPartition>,
}

/// Offsets and sizes of a partition's state.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RestoredPartition {
    /// First command that has not been processed.
    pub position: i64,
    /// The group's committed offset.
    pub committed: i64,
    /// Offset after the last committed event.
    pub events_end: i64,
    /// Highest append time of a command, Unix milliseconds.
    pub time_ms: i64,
    /// Aggregates in memory.
    pub aggregates: usize,
    /// Finished aggregates that are not evicted yet.
    pub finished: usize,
    /// Aggregates changed since the last checkpoint.
    pub dirty: usize,
    /// States that the checkpoint that is being written still lacks.
    pub checkpoint_pending: usize,
    /// Whether effects and timers run: all commands that existed at take-over are processed.
    pub effects_started: bool,
}

impl RestoredPartition {
    fn of<D: Decider>(state: &PartitionState<D>) -> Self {
        let checkpoint = state.checkpoint.as_ref();
        Self {
            position: state.position,
            committed: state.committed,
            events_end: state.events_end,
            time_ms: state.time_ms,
            aggregates: state.aggregates.len(),
            finished: state.finished.len(),
            dirty: state.dirty.len(),
            checkpoint_pending: checkpoint.map_or(0, checkpoint::CheckpointProgress::pending),
            effects_started: state.effects_started,
        }
    }
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            membership: Some("joining the group".to_owned()),
            observed: ObservableState::default(),
            unavailable: None,
            delayed: None,
            iterations: 0,
        }
    }
}

impl Status {
    /// Whether the worker processes all its partitions.
    ///
    /// # Errors
    ///
    /// The reason, for readiness.
    pub fn ready(&self) -> Result<(), String> {
        let inner = self.inner.lock();
        if let Some(reason) = &inner.unavailable {
            return Err(reason.clone());
        }
        if let Some(reason) = &inner.membership {
            return Err(reason.clone());
        }
        let partitions = &inner.observed.partitions;
        let restoring: Vec<_> = partitions
            .iter()
            .filter(|(_, observed)| observed.restored.is_none() && observed.reason.is_none())
            .map(|(partition, _)| partition)
            .collect();
        if !restoring.is_empty() {
            let restoring = format!("restoring partitions {restoring:?}");
            return Err(match &inner.delayed {
                Some(reason) => format!("{restoring}: {reason}"),
                None => restoring,
            });
        }
        let reasons: Vec<_> = partitions
            .iter()
            .filter_map(|(partition, observed)| {
                let reason = observed.reason.as_ref().or(observed.stalled.as_ref())?;
                Some(format!("partition {partition}: {reason}"))
            })
            .collect();
        if reasons.is_empty() {
            Ok(())
        } else {
            Err(reasons.join("; "))
        }
    }

    /// The restored partitions.
    pub fn restored(&self) -> Vec<Partition> {
        let inner = self.inner.lock();
        let observed = inner.observed.partitions.iter();
        observed
            .filter(|(_, observed)| observed.restored.is_some())
            .map(|(partition, _)| *partition)
            .collect()
    }

    /// The phases and offsets of the worker and its partitions.
    pub fn observable_state(&self) -> ObservableState {
        let not_ready = self.ready().err();
        let observed = self.inner.lock().observed.clone();
        ObservableState {
            not_ready,
            ..observed
        }
    }

    /// Finished iterations of the worker's loop. An idle worker iterates too: when the count does not advance, the
    /// worker is stuck.
    pub fn iterations(&self) -> u64 {
        self.inner.lock().iterations
    }

    pub(super) fn iteration_done(&self) {
        self.change(|inner| inner.iterations += 1);
    }

    /// Why the group membership is not confirmed; `None` when it is.
    pub(super) fn membership(&self, reason: Option<String>) {
        self.change(|inner| inner.membership = reason);
    }

    /// A partition is stalled.
    pub(super) fn stalled(
        &self,
        service: Service,
        partition: Partition,
        position: i64,
        seconds: u64,
        reason: String,
    ) {
        self.change(|inner| {
            let Some(observed) = inner.observed.partitions.get_mut(&partition) else {
                return;
            };
            if observed.stalled.is_none() {
                tracing::warn!(%service, partition, position, seconds, reason, "partition stalled");
            }
            let text = format!("stalled at offset {position} for {seconds} s: {reason}");
            observed.stalled = Some(text);
        });
    }

    /// Number of stalled partitions.
    pub(super) fn stalled_count(&self) -> usize {
        let inner = self.inner.lock();
        let observed = inner.observed.partitions.values();
        observed
            .filter(|observed| observed.stalled.is_some())
            .count()
    }

    /// Clears the stalls of all other partitions.
    pub(super) fn retain_stalled(&self, stalled: &BTreeSet<Partition>) {
        self.change(|inner| {
            for (partition, observed) in &mut inner.observed.partitions {
                if !stalled.contains(partition) && observed.stalled.take().is_some() {
                    tracing::info!(partition, "partition advances again");
                }
            }
        });
    }

    /// Copies the phases and offsets of the worker.
    pub(super) fn observe<D: Decider>(
        &self,
        now_ms: i64,
        phase: WorkerPhase,
        partitions: &Partitions<D>,
    ) {
        self.change(|inner| {
            let former = std::mem::take(&mut inner.observed.partitions);
            let stalled = |partition: Partition| former.get(&partition)?.stalled.clone();
            inner.observed = ObservableState {
                observed_ms: now_ms,
                not_ready: None,
                phase: phase.name(),
                since_ms: match phase {
                    WorkerPhase::Running => None,
                    WorkerPhase::RecreatingProducer { since_ms, .. } => Some(since_ms),
                },
                partitions: partitions
                    .phases()
                    .map(|(partition, phase)| {
                        let restored = phase.state().map(RestoredPartition::of);
                        let observed = ObservablePartition {
                            phase: phase.name(),
                            reason: phase.reason().map(str::to_owned),
                            stalled: restored.and_then(|_| stalled(partition)),
                            restored,
                        };
                        (partition, observed)
                    })
                    .collect(),
            };
            if !partitions.is_restoring() {
                inner.delayed = None;
            }
        });
    }

    pub(super) fn delayed(&self, reason: String) {
        self.change(|inner| inner.delayed = Some(reason));
    }

    pub(super) fn clear_delay(&self) {
        self.change(|inner| inner.delayed = None);
    }

    pub(super) fn log_unavailable(&self, reason: String) {
        self.change(|inner| inner.unavailable = Some(reason));
    }

    pub(super) fn log_available(&self) {
        self.change(|inner| inner.unavailable = None);
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.inner.lock());
    }
}
