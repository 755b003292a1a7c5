//! When a client of the log is replaced: one rule for consumers, producers, readers and lookups.
//!
//! A client library keeps connections, metadata and coordinators, and may lose one of them for good although the broker
//! is well. So a client that has failed for [`PATIENCE`] is compared with a fresh one: when the fresh one gets an
//! answer, it takes the place of the former. While neither gets one, the broker is away, and nothing is replaced.

use std::time::Duration;

/// How long a client may fail before it is compared with a fresh one.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// Between two comparisons.
const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// Longest patience with a client that has just replaced another one and fails as well.
const LONGEST_PATIENCE: Duration = Duration::from_secs(48);

/// For how long a client has failed. Times are those of [`crate::log::Log::now`].
#[derive(Clone, Debug)]
pub struct Failing {
    since: Option<Duration>,
    compare_at: Duration,
    /// At first.
    least: Duration,
    patience: Duration,
}

impl Default for Failing {
    fn default() -> Self {
        Self::with_patience(PATIENCE)
    }
}

impl Failing {
    /// Compares after another time than [`PATIENCE`].
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

    /// The client has failed; whether it is to be compared with a fresh one now.
    pub fn failed(&mut self, now: Duration) -> bool {
        self.has_failed_since(now, now)
    }

    /// The same of a client that has failed since some moment before `now`.
    pub fn has_failed_since(&mut self, since: Duration, now: Duration) -> bool {
        let since = *self.since.get_or_insert(since);
        if now.saturating_sub(since) < self.patience || now < self.compare_at {
            return false;
        }
        self.compare_at = now + COMPARE_EVERY;
        true
    }

    /// The client was replaced. Its successor gets twice the time, so that a fault which no fresh client cures does not
    /// replace one client after the other.
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
        let mut failing = Failing::default();
        let compared: Vec<u64> = (10..20).filter(|now| failing.failed(at(*now))).collect();
        assert_eq!(compared, [13, 14, 15, 16, 17, 18, 19]);
    }

    #[test]
    fn what_is_known_to_have_failed_for_long_is_compared_at_once() {
        let mut failing = Failing::default();
        assert!(!failing.has_failed_since(at(8), at(10)));
        assert!(failing.has_failed_since(at(10), at(11)));
    }

    #[test]
    fn an_answer_begins_the_time_anew() {
        let mut failing = Failing::default();
        assert!(!failing.failed(at(0)));
        failing.answered();
        assert!(!failing.failed(at(5)));
        assert!(failing.failed(at(8)));
    }

    #[test]
    fn a_successor_that_never_answers_gets_more_and_more_time() {
        let mut failing = Failing::default();
        let mut replaced = Vec::new();
        for now in 0..200 {
            if failing.failed(at(now)) {
                failing.replaced();
                replaced.push(now);
            }
        }
        assert_eq!(replaced, [3, 10, 23, 48, 97, 146, 195]);
        failing.answered();
        assert!(!failing.failed(at(300)));
        assert!(failing.failed(at(303)));
    }
}
