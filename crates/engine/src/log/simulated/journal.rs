//! The history of a run: one line for each step.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;

use parking_lot::Mutex;

use super::Clock;

/// Records the history of a run. Equal digests mean equal histories. Clones write to the same journal.
#[derive(Clone)]
pub struct Journal(Arc<Mutex<Inner>>);

struct Inner {
    clock: Clock,
    digest: DefaultHasher,
    lines: VecDeque<String>,
    max_lines: usize,
    count: u64,
}

impl Journal {
    /// A journal that keeps its last `max_lines` lines, with timestamps of that clock.
    pub fn new(clock: Clock, max_lines: usize) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            clock,
            // Has fixed keys: the digest is the same in every process.
            digest: DefaultHasher::new(),
            lines: VecDeque::new(),
            max_lines,
            count: 0,
        })))
    }

    /// Adds a line.
    pub fn note(&self, line: fmt::Arguments<'_>) {
        let mut inner = self.0.lock();
        let millis = inner.clock.elapsed().as_millis();
        let line = format!("{:>4}.{:03} {line}", millis / 1000, millis % 1000);
        inner.digest.write(line.as_bytes());
        inner.digest.write_u8(b'\n');
        inner.count += 1;
        if inner.max_lines > 0 {
            if inner.lines.len() == inner.max_lines {
                inner.lines.pop_front();
            }
            inner.lines.push_back(line);
        }
    }

    /// Adds bytes to the digest, without a line.
    pub fn digest_bytes(&self, bytes: &[u8]) {
        let mut inner = self.0.lock();
        inner.digest.write(bytes);
    }

    /// The digest of the history so far.
    pub fn digest(&self) -> u64 {
        self.0.lock().digest.finish()
    }

    /// Number of lines so far.
    pub fn len(&self) -> u64 {
        self.0.lock().count
    }

    /// Whether there is no line yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last lines, as many as are kept.
    pub fn lines(&self) -> Vec<String> {
        let inner = self.0.lock();
        inner.lines.iter().cloned().collect()
    }
}
