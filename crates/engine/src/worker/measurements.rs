//! A worker's gauges, updated once a second.

use std::collections::BTreeMap;
use std::time::Duration;

use contracts::Contract;

use super::Worker;
use crate::Decider;
use crate::effects::{EffectScheduler, unix_ms};
use crate::log::{Input, Log, Partition};

const EVERY: Duration = Duration::from_secs(1);

/// State between two updates of the gauges.
#[derive(Default)]
pub struct Measurements {
    next_at: Duration,
    /// Since when any partition has been waiting to be taken over.
    restoring_since: Option<Duration>,
    /// Since when each partition has been behind (Unix milliseconds).
    behind_since_ms: BTreeMap<Partition, i64>,
    /// Partitions of the last update.
    published: Vec<Partition>,
    /// Number of stalled partitions.
    pub stalled: usize,
}

impl Measurements {
    /// Publishes with the next step.
    pub fn publish_soon(&mut self) {
        self.next_at = Duration::ZERO;
    }
}

impl<D: Decider, L: Log, S: EffectScheduler<D>> Worker<D, L, S> {
    pub(super) fn publish_metrics(&mut self) {
        let now = self.log.now();
        if now < self.measurements.next_at {
            return;
        }
        self.measurements.next_at = now + EVERY;
        self.publish_partitions(now);
        self.publish_lag();
        self.status
            .observe(self.log.unix_ms(), self.phase, &self.partitions);
    }

    fn publish_partitions(&mut self, now: Duration) {
        let service = D::Contract::SERVICE.name();
        let metrics = &self.context.metrics;
        let restoring = self.partitions.is_restoring();
        let since = restoring.then(|| self.measurements.restoring_since.unwrap_or(now));
        self.measurements.restoring_since = since;
        metrics
            .restoring_seconds
            .with_label_values(&[service])
            .set(since.map_or(0.0, |since| now.saturating_sub(since).as_secs_f64()));
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let blocked = self
            .partitions
            .phases()
            .filter(|(_, phase)| phase.reason().is_some());
        metrics
            .partitions
            .with_label_values(&[service])
            .set(count(self.partitions.restored().count()));
        metrics
            .blocked_partitions
            .with_label_values(&[service])
            .set(count(blocked.count()));
        metrics
            .standing_partitions
            .with_label_values(&[service])
            .set(count(self.measurements.stalled));
        metrics.aggregates.with_label_values(&[service]).set(count(
            self.partitions
                .restored()
                .map(|(_, state)| state.aggregates.len())
                .sum(),
        ));
    }

    fn publish_lag(&mut self) {
        let service = D::Contract::SERVICE.name();
        let metrics = &self.context.metrics;
        let now_ms = unix_ms();
        for partition in self.measurements.published.drain(..) {
            if self.partitions.get(partition).is_none() {
                let revoked = partition.to_string();
                // Its new owner exports it now.
                let _ = metrics
                    .lag_records
                    .remove_label_values(&[service, &revoked]);
                let _ = metrics
                    .lag_seconds
                    .remove_label_values(&[service, &revoked]);
                self.measurements.behind_since_ms.remove(&partition);
            }
        }
        for (partition, partition_state) in self.partitions.restored() {
            self.measurements.published.push(partition);
            let Some(end) = self.log.stable_end(partition) else {
                continue;
            };
            let label = partition.to_string();
            let records = (end - partition_state.committed).max(0);
            metrics
                .lag_records
                .with_label_values(&[service, &label])
                .set(records);
            let age_ms = if records == 0 {
                self.measurements.behind_since_ms.remove(&partition);
                0
            } else {
                // The oldest one was appended after the last processed record, and after the partition was last up to
                // date.
                let since_ms = self.measurements.behind_since_ms.entry(partition);
                let since_ms = (*since_ms.or_insert(now_ms)).max(partition_state.time_ms);
                (now_ms - since_ms).max(0)
            };
            #[allow(clippy::cast_precision_loss)]
            metrics
                .lag_seconds
                .with_label_values(&[service, &label])
                .set(age_ms as f64 / 1000.0);
        }
    }

    /// Observes how long the commands of the committed window had waited.
    pub(super) fn observe_command_waits(&self, service: &str) {
        let waits = self
            .context
            .metrics
            .command_wait_seconds
            .with_label_values(&[service]);
        let now_ms = unix_ms();
        // Records behind a blocked one have not been decided yet.
        let is_decided = |input: &&Input| {
            let partition_state = self.partitions.get(input.partition);
            partition_state.is_some_and(|partition_state| input.offset < partition_state.committed)
        };
        for input in self.inputs.iter().filter(is_decided) {
            #[allow(clippy::cast_precision_loss)]
            waits.observe((now_ms - input.time_ms).max(0) as f64 / 1000.0);
        }
    }
}
