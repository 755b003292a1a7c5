//! What a worker is at, for readiness.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use contracts::Service;

use crate::log::Partition;

/// A cheap handle on what the worker said last.
#[derive(Clone, Debug, Default)]
pub struct Status {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    /// Why the place in the group is not confirmed; "starting" before the worker has looked.
    place: Option<String>,
    running: Vec<Partition>,
    restoring: Vec<Partition>,
    blocked: BTreeMap<Partition, String>,
    /// Partitions whose records wait although nothing is known that keeps them.
    standing: BTreeMap<Partition, String>,
    unavailable: Option<String>,
    /// Why a take-over has to wait.
    delayed: Option<String>,
    rounds: u64,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            place: Some("joining the group".to_owned()),
            running: Vec::new(),
            restoring: Vec::new(),
            blocked: BTreeMap::new(),
            standing: BTreeMap::new(),
            unavailable: None,
            delayed: None,
            rounds: 0,
        }
    }
}

impl Status {
    /// Whether the worker does its work; otherwise why not.
    ///
    /// # Errors
    ///
    /// The reason, for readiness.
    pub fn ready(&self) -> Result<(), String> {
        let inner = self.inner.lock().expect("no holder panics");
        if let Some(reason) = &inner.unavailable {
            return Err(reason.clone());
        }
        if let Some(reason) = &inner.place {
            return Err(reason.clone());
        }
        if !inner.restoring.is_empty() {
            let restoring = format!("restoring partitions {:?}", inner.restoring);
            return Err(match &inner.delayed {
                Some(reason) => format!("{restoring}: {reason}"),
                None => restoring,
            });
        }
        let told: Vec<_> = inner
            .blocked
            .iter()
            .chain(&inner.standing)
            .map(|(partition, reason)| format!("partition {partition}: {reason}"))
            .collect();
        if told.is_empty() {
            Ok(())
        } else {
            Err(told.join("; "))
        }
    }

    /// The partitions that are processed.
    pub fn running(&self) -> Vec<Partition> {
        self.inner.lock().expect("no holder panics").running.clone()
    }

    /// Rounds that the worker has finished. A worker goes round even when it has nothing to do: where this stands
    /// still, the worker waits for something that does not come.
    pub fn rounds(&self) -> u64 {
        self.inner.lock().expect("no holder panics").rounds
    }

    pub(super) fn went_round(&self) {
        self.change(|inner| inner.rounds += 1);
    }

    /// Why the place in the group is not confirmed; `None` when it is.
    pub(super) fn place(&self, reason: Option<String>) {
        self.change(|inner| inner.place = reason);
    }

    /// A partition stands still.
    pub(super) fn stands_still(
        &self,
        service: Service,
        partition: Partition,
        position: i64,
        seconds: u64,
        reason: String,
    ) {
        self.change(|inner| {
            if !inner.standing.contains_key(&partition) {
                tracing::warn!(%service, partition, position, seconds, reason, "partition stands still");
            }
            let told = format!("stands still at offset {position} for {seconds} s: {reason}");
            inner.standing.insert(partition, told);
        });
    }

    /// Partitions that are named as standing still.
    pub(super) fn standing(&self) -> usize {
        self.inner.lock().expect("no holder panics").standing.len()
    }

    /// All partitions but these move.
    pub(super) fn only_these_stand(&self, standing: &BTreeSet<Partition>) {
        self.change(|inner| {
            inner.standing.retain(|partition, _| {
                let stands = standing.contains(partition);
                if !stands {
                    tracing::info!(partition, "partition moves again");
                }
                stands
            });
        });
    }

    pub(super) fn partitions(&self, running: Vec<Partition>, restoring: Vec<Partition>) {
        self.change(|inner| {
            inner
                .blocked
                .retain(|partition, _| running.contains(partition));
            inner
                .standing
                .retain(|partition, _| running.contains(partition));
            inner.running = running;
            inner.restoring = restoring;
            if inner.restoring.is_empty() {
                inner.delayed = None;
            }
        });
    }

    pub(super) fn blocked(&self, partition: Partition, reason: String) {
        tracing::warn!(partition, reason, "partition paused");
        self.change(|inner| {
            inner.blocked.insert(partition, reason);
        });
    }

    pub(super) fn unblocked(&self, partition: Partition) {
        self.change(|inner| {
            inner.blocked.remove(&partition);
        });
    }

    pub(super) fn delayed(&self, reason: String) {
        self.change(|inner| inner.delayed = Some(reason));
    }

    pub(super) fn undelayed(&self) {
        self.change(|inner| inner.delayed = None);
    }

    pub(super) fn log_unavailable(&self, reason: String) {
        self.change(|inner| inner.unavailable = Some(reason));
    }

    pub(super) fn log_available(&self) {
        self.change(|inner| inner.unavailable = None);
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.inner.lock().expect("no holder panics"));
    }
}
