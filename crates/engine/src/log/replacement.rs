//! When a client of the log is replaced: one rule for consumers, producers, readers and lookups.
//!
//! A client library keeps connections, metadata and coordinators, and may lose one of them for good although the broker
//! is healthy. So a client that has failed for [`PATIENCE`] is compared with a fresh one: when the fresh one gets an
//! answer, it replaces the failed one. When neither does, the broker is unavailable, and no client is replaced.

use std::time::Duration;

/// How long a client may fail before it is compared with a fresh one.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// Between two comparisons.
const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// Longest patience with a client that has replaced another one and fails as well.
const LONGEST_PATIENCE: Duration = Duration::from_secs(48);

/// Tracks how long a client has failed. Times are those of [`crate::log::Log::now`].
#[derive(Clone, Debug)]
pub struct FailureTracker {
    since: Option<Duration>,
    compare_at: Duration,
    /// Patience with a client that has not replaced another one.
    least: Duration,
    patience: Duration,
}

impl Default for FailureTracker {
    fn default() -> Self {
        Self::with_patience(PATIENCE)
    }
}

impl FailureTracker {
    /// A tracker with another patience than [`PATIENCE`].
    pub const fn with_patience(patience: Duration) -> Self {
        Self {
            since: None,
            compare_at: Duration::ZERO,
            least: patience,
            patience,
        }
    }

    /// The client works.
    pub fn answered(&mut self) {
        *self = Self::with_patience(self.least);
    }

    /// The client has failed; returns whether to compare it with a fresh one now.
    pub fn failed(&mut self, now: Duration) -> bool {
        self.has_failed_since(now, now)
    }

    /// Like [`FailureTracker::failed`], for a client that has failed since a moment before `now`.
    pub fn has_failed_since(&mut self, since: Duration, now: Duration) -> bool {
        let since = *self.since.get_or_insert(since);
        if now.saturating_sub(since) < self.patience || now < self.compare_at {
            return false;
        }
        self.compare_at = now + COMPARE_EVERY;
        true
    }

    /// The client was replaced. Its successor gets twice the time, so that a fault that no fresh client cures does not
    /// cause endless replacements.
    pub fn replaced(&mut self) {
        self.since = None;
        self.patience = (self.patience * 2).min(LONGEST_PATIENCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_client_that_fails_for_some_seconds_is_compared_every_second() {
        let mut failures = FailureTracker::default();
        let compared: Vec<u64> = (10..20).filter(|now| failures.failed(at(*now))).collect();
        assert_eq!(compared, [13, 14, 15, 16, 17, 18, 19]);
    }

    #[test]
    fn a_client_known_to_have_failed_for_long_is_compared_at_once() {
        let mut failures = FailureTracker::default();
        assert!(!failures.has_failed_since(at(8), at(10)));
        assert!(failures.has_failed_since(at(10), at(11)));
    }

    #[test]
    fn an_answer_restarts_the_time() {
        let mut failures = FailureTracker::default();
        assert!(!failures.failed(at(0)));
        failures.answered();
        assert!(!failures.failed(at(5)));
        assert!(failures.failed(at(8)));
    }

    #[test]
    fn the_patience_doubles_with_each_replacement_until_an_answer() {
        let mut failures = FailureTracker::default();
        let mut replaced = Vec::new();
        for now in 0..200 {
            if failures.failed(at(now)) {
                failures.replaced();
                replaced.push(now);
            }
        }
        assert_eq!(replaced, [3, 10, 23, 48, 97, 146, 195]);
        failures.answered();
        assert!(!failures.failed(at(300)));
        assert!(failures.failed(at(303)));
    }
}
