//! The values of a period of time, to detect duplicates.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher as _};

/// A hash that is the same in every run.
pub(crate) fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A set that drops values older than `keep_ms`. Its clock is the time of the records.
#[derive(Debug)]
pub(crate) struct DedupWindow {
    keep_ms: i64,
    hashes: HashSet<u64>,
    by_time: VecDeque<(i64, u64)>,
}

impl DedupWindow {
    pub(crate) fn new(keep_ms: i64) -> Self {
        Self {
            keep_ms,
            hashes: HashSet::new(),
            by_time: VecDeque::new(),
        }
    }

    /// Adds a value. Returns whether it is new.
    pub(crate) fn insert(&mut self, time_ms: i64, value: impl Hash) -> bool {
        let value = hash(value);
        while let Some((oldest, hash)) = self.by_time.front()
            && *oldest < time_ms.saturating_sub(self.keep_ms)
        {
            self.hashes.remove(hash);
            self.by_time.pop_front();
        }
        let is_new = self.hashes.insert(value);
        if is_new {
            self.by_time.push_back((time_ms, value));
        }
        is_new
    }

    pub(crate) fn contains(&self, value: impl Hash) -> bool {
        self.contains_hash(hash(value))
    }

    /// Like [`contains`](Self::contains), for the hash of a value.
    pub(crate) fn contains_hash(&self, hash: u64) -> bool {
        self.hashes.contains(&hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_known_within_the_window() {
        let mut window = DedupWindow::new(10);
        assert!(window.insert(0, "a"));
        assert!(!window.insert(10, "a") && window.contains("a"));
        assert!(window.insert(11, "b"));
        assert!(!window.contains("a") && window.insert(12, "a"));
    }
}
