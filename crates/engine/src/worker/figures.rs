//! What a worker shows of itself, once a second.

use std::collections::BTreeMap;
use std::time::Duration;

use contracts::Contract;

use super::Worker;
use crate::Decider;
use crate::effects::{EffectScheduler, unix_ms};
use crate::log::{Input, Log, Partition};

const EVERY: Duration = Duration::from_secs(1);

/// Between two looks.
#[derive(Default)]
pub struct Figures {
    next_at: Duration,
    /// Since when some partition has been waiting to be taken over.
    restoring_since: Option<Duration>,
    /// Since when each partition has been behind (Unix milliseconds).
    behind_since_ms: BTreeMap<Partition, i64>,
    /// Partitions that were shown last.
    shown: Vec<Partition>,
    /// Partitions that stand still.
    pub standing: usize,
}

impl Figures {
    /// Something has changed that is not to wait.
    pub fn show_at_once(&mut self) {
        self.next_at = Duration::ZERO;
    }
}

impl<D: Decider, L: Log, A: EffectScheduler<D>> Worker<D, L, A> {
    pub(super) fn show(&mut self) {
        let now = self.log.now();
        if now < self.figures.next_at {
            return;
        }
        self.figures.next_at = now + EVERY;
        self.show_partitions(now);
        self.show_lag();
    }

    fn show_partitions(&mut self, now: Duration) {
        let service = D::Contract::SERVICE.name();
        let metrics = &self.tools.metrics;
        let restoring = self.takeover.is_some() || !self.queue.is_empty();
        let since = restoring.then(|| self.figures.restoring_since.unwrap_or(now));
        self.figures.restoring_since = since;
        metrics
            .restoring_seconds
            .with_label_values(&[service])
            .set(since.map_or(0.0, |since| now.saturating_sub(since).as_secs_f64()));
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let running = self.running.values();
        let blocked = running
            .clone()
            .filter(|partition| partition.blocked_until.is_some());
        metrics
            .partitions
            .with_label_values(&[service])
            .set(count(self.running.len()));
        metrics
            .blocked_partitions
            .with_label_values(&[service])
            .set(count(blocked.count()));
        metrics
            .standing_partitions
            .with_label_values(&[service])
            .set(count(self.figures.standing));
        metrics.aggregates.with_label_values(&[service]).set(count(
            running.map(|partition| partition.aggregates.len()).sum(),
        ));
    }

    fn show_lag(&mut self) {
        let service = D::Contract::SERVICE.name();
        let metrics = &self.tools.metrics;
        let now_ms = unix_ms();
        for partition in self.figures.shown.drain(..) {
            if !self.running.contains_key(&partition) {
                let gone = partition.to_string();
                // Shown by whoever owns it now.
                let _ = metrics.lag_records.remove_label_values(&[service, &gone]);
                let _ = metrics.lag_seconds.remove_label_values(&[service, &gone]);
                self.figures.behind_since_ms.remove(&partition);
            }
        }
        for (partition, running) in &self.running {
            self.figures.shown.push(*partition);
            let Some(end) = self.log.stable_end(*partition) else {
                continue;
            };
            let label = partition.to_string();
            let records = (end - running.committed).max(0);
            metrics
                .lag_records
                .with_label_values(&[service, &label])
                .set(records);
            let age_ms = if records == 0 {
                self.figures.behind_since_ms.remove(partition);
                0
            } else {
                // The oldest of them came after what was processed last, and after the partition was not behind.
                let since_ms = self.figures.behind_since_ms.entry(*partition);
                let since_ms = (*since_ms.or_insert(now_ms)).max(running.time_ms);
                (now_ms - since_ms).max(0)
            };
            #[allow(clippy::cast_precision_loss)]
            metrics
                .lag_seconds
                .with_label_values(&[service, &label])
                .set(age_ms as f64 / 1000.0);
        }
    }

    /// How long the commands of the window that was just committed had waited.
    pub(super) fn show_waits(&self, service: &str) {
        let waits = self
            .tools
            .metrics
            .command_wait_seconds
            .with_label_values(&[service]);
        let now_ms = unix_ms();
        // What waits behind a blocked record has not been decided yet.
        let is_decided = |input: &&Input| {
            let running = self.running.get(&input.partition);
            running.is_some_and(|running| input.offset < running.committed)
        };
        for input in self.inputs.iter().filter(is_decided) {
            #[allow(clippy::cast_precision_loss)]
            waits.observe((now_ms - input.time_ms).max(0) as f64 / 1000.0);
        }
    }
}
