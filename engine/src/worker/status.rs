//! What a worker is at, for readiness.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::log::Partition;

/// A cheap handle on what the worker said last.
#[derive(Clone, Debug, Default)]
pub struct Status {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    joined: bool,
    running: Vec<Partition>,
    restoring: Vec<Partition>,
    blocked: BTreeMap<Partition, String>,
    unavailable: Option<String>,
    /// Why a take-over has to wait.
    delayed: Option<String>,
    rounds: u64,
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
        if !inner.joined {
            return Err("joining the group".into());
        }
        if let Some(reason) = &inner.delayed {
            return Err(reason.clone());
        }
        if !inner.restoring.is_empty() {
            return Err(format!("restoring partitions {:?}", inner.restoring));
        }
        match inner.blocked.iter().next() {
            Some((partition, reason)) => Err(format!("partition {partition}: {reason}")),
            None => Ok(()),
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

    pub(super) fn joined(&self) {
        self.change(|inner| {
            inner.joined = true;
            inner.unavailable = None;
        });
    }

    pub(super) fn left(&self) {
        self.change(|inner| inner.joined = false);
    }

    pub(super) fn partitions(&self, running: Vec<Partition>, restoring: Vec<Partition>) {
        self.change(|inner| {
            inner
                .blocked
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
