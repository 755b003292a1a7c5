//! For how long transactions have been holding partitions up: pure.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Since when the last stable offset of each partition has been where it is, behind the high watermark.
#[derive(Debug)]
pub struct Stability<P> {
    behind: HashMap<P, (i64, Instant)>,
}

impl<P> Default for Stability<P> {
    fn default() -> Self {
        Self {
            behind: HashMap::new(),
        }
    }
}

impl<P: Eq + Hash> Stability<P> {
    /// For how long the last stable offset has stood still behind the high watermark. Under load it is behind at any
    /// moment, but moves.
    pub fn held_up(&mut self, partition: P, stable: i64, high: i64, now: Instant) -> Duration {
        if stable >= high {
            self.behind.remove(&partition);
            return Duration::ZERO;
        }
        let (seen, since) = self.behind.entry(partition).or_insert((stable, now));
        if *seen != stable {
            (*seen, *since) = (stable, now);
        }
        now.saturating_duration_since(*since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_offset_that_stands_still_behind_the_end_is_held_up() {
        let begun = Instant::now();
        let mut stability = Stability::default();
        let mut held_up = |stable, high, second| {
            let now = begun + Duration::from_secs(second);
            stability.held_up((), stable, high, now).as_secs()
        };
        assert_eq!(held_up(5, 5, 0), 0);
        assert_eq!(held_up(5, 8, 10), 0);
        assert_eq!(held_up(5, 9, 14), 4);
        // It moves, and is behind again.
        assert_eq!(held_up(7, 12, 20), 0);
        assert_eq!(held_up(7, 12, 25), 5);
        assert_eq!(held_up(12, 12, 30), 0);
        assert_eq!(held_up(12, 13, 31), 0);
    }
}
