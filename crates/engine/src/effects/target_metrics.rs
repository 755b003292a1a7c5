//! Metrics of the targets, computed at each scrape: an age grows and a breaker half-opens without an event.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntGaugeVec};

use super::clock::unix_ms;
use super::target::Target;
use crate::metrics::names;

/// By service and target: the age of the oldest effect without an answer, and the breaker's state. Clones share state.
#[derive(Clone)]
pub struct TargetMetrics {
    oldest_seconds: GaugeVec,
    breaker_state: IntGaugeVec,
    targets: Arc<Mutex<Vec<Weak<Target>>>>,
}

impl TargetMetrics {
    /// Metrics without a target.
    ///
    /// # Errors
    ///
    /// A metric name is invalid.
    pub fn new() -> Result<Self, prometheus::Error> {
        let oldest = names::EFFECTS_OLDEST_SECONDS;
        let breaker = names::BREAKER_STATE;
        Ok(Self {
            oldest_seconds: GaugeVec::new(oldest.opts(), oldest.labels)?,
            breaker_state: IntGaugeVec::new(breaker.opts(), breaker.labels)?,
            targets: Arc::default(),
        })
    }

    /// Exports a target while it exists.
    pub(super) fn watch(&self, target: &Arc<Target>) {
        let mut targets = self.targets.lock();
        targets.push(Arc::downgrade(target));
    }
}

impl Collector for TargetMetrics {
    fn desc(&self) -> Vec<&Desc> {
        let mut descriptions = self.oldest_seconds.desc();
        descriptions.extend(self.breaker_state.desc());
        descriptions
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Held to the end, so that concurrent scrapes do not mix their values.
        let mut targets = self.targets.lock();
        targets.retain(|target| target.strong_count() > 0);
        self.oldest_seconds.reset();
        self.breaker_state.reset();
        let now_ms = unix_ms();
        for target in targets.iter().filter_map(Weak::upgrade) {
            let labels = [target.service(), target.name()];
            let age_ms = target
                .oldest_ms()
                .map_or(0, |since| (now_ms - since).max(0));
            // Two workers of a service in one process have targets of the same name: the worse one is exported.
            let oldest = self.oldest_seconds.with_label_values(&labels);
            #[allow(clippy::cast_precision_loss)]
            oldest.set(oldest.get().max(age_ms as f64 / 1000.0));
            let state = self.breaker_state.with_label_values(&labels);
            state.set(state.get().max(target.state() as i64));
        }
        let mut families = self.oldest_seconds.collect();
        families.extend(self.breaker_state.collect());
        families
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Value by name and target.
    fn value(metrics: &TargetMetrics, name: &str, target: &str) -> Option<f64> {
        let families = metrics.collect();
        let family = families.iter().find(|family| family.name() == name)?;
        let of_target = family.get_metric().iter().find(|metric| {
            let labels = metric.get_label();
            labels.iter().any(|label| label.value() == target)
        })?;
        Some(of_target.get_gauge().get_value())
    }

    #[tokio::test]
    async fn the_age_grows_from_when_an_effect_became_outstanding() {
        let metrics = TargetMetrics::new().expect("the names are good");
        let target = Arc::new(Target::new("payments", "provider", 10));
        metrics.watch(&target);
        let oldest = || value(&metrics, names::EFFECTS_OLDEST_SECONDS.name, "provider");
        assert_eq!(oldest(), Some(0.0));

        let taken_over = target.track(unix_ms() - 60_000);
        let decided = target.track(unix_ms());
        assert!(oldest().is_some_and(|age| (60.0..120.0).contains(&age)));
        drop(taken_over);
        assert!(oldest().is_some_and(|age| age < 60.0));
        drop(decided);

        // The broker's clock is ahead of this one.
        let ahead = target.track(unix_ms() + 60_000);
        assert_eq!(oldest(), Some(0.0));
        drop(ahead);
    }

    #[tokio::test]
    async fn the_breaker_state_is_exported_until_the_target_is_dropped() {
        let metrics = TargetMetrics::new().expect("the names are good");
        let target = Arc::new(Target::new("shipping", "carrier", 10));
        metrics.watch(&target);
        let state = || value(&metrics, names::BREAKER_STATE.name, "carrier");
        assert_eq!(state(), Some(0.0));
        for _ in 0..10 {
            target.acquire().await.failed();
        }
        assert_eq!(state(), Some(2.0));
        let probe = target.acquire().await;
        assert_eq!(state(), Some(1.0));
        probe.answered();
        assert_eq!(state(), Some(0.0));
        drop(target);
        assert_eq!(state(), None);
    }
}
