//! Detection of stalled loops: a thread in a call that does not return cannot report that itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::readiness::Component;

/// Interval between two checks of a loop.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// How long a loop may go without completing an iteration.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// After this time the component is not ready.
    pub not_ready: Duration,
    /// After this time the process is not live: only a restart repairs it.
    pub not_live: Duration,
}

/// Counts the completed iterations of a loop. Clones share one counter.
#[derive(Clone, Debug, Default)]
pub struct Iterations(Arc<AtomicU64>);

impl Iterations {
    /// Counts one completed iteration.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The iterations completed so far.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Compares the iterations of a loop with those at the previous check.
#[derive(Debug)]
pub struct StallDetector {
    limits: Limits,
    iterations: u64,
    since: Instant,
}

impl StallDetector {
    /// A detector for a loop that starts now.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            iterations: 0,
            since: Instant::now(),
        }
    }

    /// Reports to `component` whether its loop stalls; `iterations` is the number that the loop has completed.
    pub fn check(&mut self, iterations: u64, component: &Component) {
        if iterations != self.iterations {
            self.iterations = iterations;
            self.since = Instant::now();
        }
        let stalled = self.since.elapsed();
        if stalled <= self.limits.not_ready {
            component.clear_stalled();
        } else {
            let reason = format!("has stalled for {} s", stalled.as_secs());
            component.set_stalled(reason, stalled > self.limits.not_live);
        }
    }
}

/// Checks a loop periodically and reports its stalls to `component`, which the loop itself otherwise reports to.
/// Never ends.
pub async fn watch(iterations: Iterations, limits: Limits, component: Component) {
    let mut detector = StallDetector::new(limits);
    let mut interval = tokio::time::interval(CHECK_INTERVAL);
    loop {
        interval.tick().await;
        detector.check(iterations.count(), &component);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readiness::Readiness;

    const LIMITS: Limits = Limits {
        not_ready: Duration::from_secs(60),
        not_live: Duration::from_secs(120),
    };

    #[tokio::test(start_paused = true)]
    async fn a_stalled_loop_is_not_ready_and_later_not_live() {
        let readiness = Readiness::default();
        let component = readiness.component("worker");
        component.ready();
        let iterations = Iterations::default();
        iterations.increment();
        tokio::spawn(watch(iterations.clone(), LIMITS, component.clone()));
        let began = Instant::now();
        let mut report = readiness.watch();
        report.wait_for(|report| !report.ready).await.unwrap();
        assert!(began.elapsed() > LIMITS.not_ready && began.elapsed() < LIMITS.not_live);
        assert_eq!(readiness.not_live(), None);

        report
            .wait_for(|report| !report.not_live.is_empty())
            .await
            .unwrap();
        assert!(began.elapsed() > LIMITS.not_live);
        let reason = readiness.not_live().unwrap();
        assert!(reason.starts_with("worker: has stalled for 12"), "{reason}");

        // The loop was only slow: what its component reported applies again.
        iterations.increment();
        report.wait_for(|report| report.ready).await.unwrap();
        assert_eq!(readiness.not_live(), None);
    }
}
