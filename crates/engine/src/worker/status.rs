//! Status of a worker, for readiness.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use contracts::Service;
use parking_lot::Mutex;

use crate::log::Partition;

/// A cheap handle on the worker's last reported status.
#[derive(Clone, Debug, Default)]
pub struct Status {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    /// Why the group membership is not confirmed; "joining the group" before the first check.
    membership: Option<String>,
    running: Vec<Partition>,
    restoring: Vec<Partition>,
    blocked: BTreeMap<Partition, String>,
    /// Partitions whose records wait for no known reason.
    stalled: BTreeMap<Partition, String>,
    unavailable: Option<String>,
    /// Why a take-over has to wait.
    delayed: Option<String>,
    iterations: u64,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            membership: Some("joining the group".to_owned()),
            running: Vec::new(),
            restoring: Vec::new(),
            blocked: BTreeMap::new(),
            stalled: BTreeMap::new(),
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
        if !inner.restoring.is_empty() {
            let restoring = format!("restoring partitions {:?}", inner.restoring);
            return Err(match &inner.delayed {
                Some(reason) => format!("{restoring}: {reason}"),
                None => restoring,
            });
        }
        let reasons: Vec<_> = inner
            .blocked
            .iter()
            .chain(&inner.stalled)
            .map(|(partition, reason)| format!("partition {partition}: {reason}"))
            .collect();
        if reasons.is_empty() {
            Ok(())
        } else {
            Err(reasons.join("; "))
        }
    }

    /// The processed partitions.
    pub fn running(&self) -> Vec<Partition> {
        self.inner.lock().running.clone()
    }

    /// Finished iterations of the worker's loop. An idle worker iterates too: when the count does not advance, the
    /// worker is stuck.
    pub fn iterations(&self) -> u64 {
        self.inner.lock().iterations
    }

    pub(super) fn round_done(&self) {
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
            if !inner.stalled.contains_key(&partition) {
                tracing::warn!(%service, partition, position, seconds, reason, "partition stalled");
            }
            let text = format!("stalled at offset {position} for {seconds} s: {reason}");
            inner.stalled.insert(partition, text);
        });
    }

    /// Number of stalled partitions.
    pub(super) fn stalled_count(&self) -> usize {
        self.inner.lock().stalled.len()
    }

    /// All partitions but these advance.
    pub(super) fn retain_stalled(&self, stalled: &BTreeSet<Partition>) {
        self.change(|inner| {
            inner.stalled.retain(|partition, _| {
                let is_stalled = stalled.contains(partition);
                if !is_stalled {
                    tracing::info!(partition, "partition advances again");
                }
                is_stalled
            });
        });
    }

    pub(super) fn partitions(&self, running: Vec<Partition>, restoring: Vec<Partition>) {
        self.change(|inner| {
            inner
                .blocked
                .retain(|partition, _| running.contains(partition));
            inner
                .stalled
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
        change(&mut self.inner.lock());
    }
}
