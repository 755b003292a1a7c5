//! Loops that stall: a thread in a call that does not return cannot say so itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::readiness::Component;

/// Between two looks at a loop.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// When a loop that finishes no round is said to stall.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The component is not ready after this.
    pub not_ready: Duration,
    /// Nothing but a restart of the process helps after this.
    pub stuck: Duration,
}

/// Rounds that a loop has finished; clones count together.
#[derive(Clone, Debug, Default)]
pub struct Rounds(Arc<AtomicU64>);

impl Rounds {
    /// The loop has finished a round.
    pub fn finish(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Rounds so far.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Compares the rounds of a loop with those of the last look.
#[derive(Debug)]
pub struct StallDetector {
    limits: Limits,
    rounds: u64,
    since: Instant,
}

impl StallDetector {
    /// A detector for a loop that begins now.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            rounds: 0,
            since: Instant::now(),
        }
    }

    /// Looks at a loop that has finished so many rounds, and tells its component whether it stalls.
    pub fn look(&mut self, rounds: u64, component: &Component) {
        if rounds != self.rounds {
            self.rounds = rounds;
            self.since = Instant::now();
        }
        let stalled = self.since.elapsed();
        if stalled <= self.limits.not_ready {
            component.goes_on();
        } else {
            let reason = format!("has stood still for {} s", stalled.as_secs());
            component.stalls(reason, stalled > self.limits.stuck);
        }
    }
}

/// Watches a loop that tells of its own readiness while it goes on. Never ends.
pub async fn watch(rounds: Rounds, limits: Limits, component: Component) {
    let mut detector = StallDetector::new(limits);
    let mut every = tokio::time::interval(LOOK_EVERY);
    loop {
        every.tick().await;
        detector.look(rounds.count(), &component);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readiness::Readiness;

    const LIMITS: Limits = Limits {
        not_ready: Duration::from_secs(60),
        stuck: Duration::from_secs(120),
    };

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_stalls_is_not_ready_and_later_stuck() {
        let readiness = Readiness::default();
        let component = readiness.component("worker");
        component.ready();
        let rounds = Rounds::default();
        rounds.finish();
        tokio::spawn(watch(rounds.clone(), LIMITS, component.clone()));
        let began = Instant::now();
        let mut report = readiness.watch();
        report.wait_for(|report| !report.ready).await.unwrap();
        assert!(began.elapsed() > LIMITS.not_ready && began.elapsed() < LIMITS.stuck);
        assert_eq!(readiness.stuck(), None);

        report
            .wait_for(|report| !report.stuck.is_empty())
            .await
            .unwrap();
        assert!(began.elapsed() > LIMITS.stuck);
        let stuck = readiness.stuck().unwrap();
        assert!(
            stuck.starts_with("worker: has stood still for 12"),
            "{stuck}"
        );

        // It was no more than very slow; what it said of itself holds again.
        rounds.finish();
        report.wait_for(|report| report.ready).await.unwrap();
        assert_eq!(readiness.stuck(), None);
    }
}
