//! Tracks for how long open transactions have blocked the readers of partitions. Pure.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Tracks since when the last stable offset of each partition has not advanced while it is below the high watermark.
#[derive(Debug)]
pub struct StabilityTracker<P> {
    behind: HashMap<P, (i64, Instant)>,
}

impl<P> Default for StabilityTracker<P> {
    fn default() -> Self {
        Self {
            behind: HashMap::new(),
        }
    }
}

impl<P: Eq + Hash> StabilityTracker<P> {
    /// For how long the last stable offset has not advanced while it is below the high watermark. Under load it is
    /// always below, but advances.
    pub fn stalled_for(&mut self, partition: P, stable: i64, high: i64, now: Instant) -> Duration {
        if stable >= high {
            self.behind.remove(&partition);
            return Duration::ZERO;
        }
        let (last, since) = self.behind.entry(partition).or_insert((stable, now));
        if *last != stable {
            (*last, *since) = (stable, now);
        }
        now.saturating_duration_since(*since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_offset_that_does_not_advance_below_the_end_is_stalled() {
        let start = Instant::now();
        let mut stability = StabilityTracker::default();
        let mut stalled_for = |stable, high, second| {
            let now = start + Duration::from_secs(second);
            stability.stalled_for((), stable, high, now).as_secs()
        };
        assert_eq!(stalled_for(5, 5, 0), 0);
        assert_eq!(stalled_for(5, 8, 10), 0);
        assert_eq!(stalled_for(5, 9, 14), 4);
        // It advances, but is still below the end.
        assert_eq!(stalled_for(7, 12, 20), 0);
        assert_eq!(stalled_for(7, 12, 25), 5);
        assert_eq!(stalled_for(12, 12, 30), 0);
        assert_eq!(stalled_for(12, 13, 31), 0);
    }
}
