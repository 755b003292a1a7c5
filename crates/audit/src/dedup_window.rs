//! What was seen lately.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher as _};

/// A hash that is the same in every run.
pub(crate) fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A set that forgets what is older than a while, in the log's own time.
#[derive(Debug)]
pub(crate) struct DedupWindow {
    keep_ms: i64,
    known: HashSet<u64>,
    by_time: VecDeque<(i64, u64)>,
}

impl DedupWindow {
    pub(crate) fn new(keep_ms: i64) -> Self {
        Self {
            keep_ms,
            known: HashSet::new(),
            by_time: VecDeque::new(),
        }
    }

    /// Takes a value in; whether it was not known.
    pub(crate) fn insert(&mut self, time_ms: i64, value: impl Hash) -> bool {
        let value = hash(value);
        while let Some((oldest, known)) = self.by_time.front()
            && *oldest < time_ms.saturating_sub(self.keep_ms)
        {
            self.known.remove(known);
            self.by_time.pop_front();
        }
        let is_new = self.known.insert(value);
        if is_new {
            self.by_time.push_back((time_ms, value));
        }
        is_new
    }

    pub(crate) fn contains(&self, value: impl Hash) -> bool {
        self.knows(hash(value))
    }

    /// The same for the hash of a value.
    pub(crate) fn knows(&self, hash: u64) -> bool {
        self.known.contains(&hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_known_for_a_while() {
        let mut recent = DedupWindow::new(10);
        assert!(recent.insert(0, "a"));
        assert!(!recent.insert(10, "a") && recent.contains("a"));
        assert!(recent.insert(11, "b"));
        assert!(!recent.contains("a") && recent.insert(12, "a"));
    }
}
