//! The history of a run: one line a step.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::{Arc, Mutex};

use super::Clock;

/// Takes down what happens; its digest tells whether two histories are the same. Clones write the same journal.
#[derive(Clone)]
pub struct Journal(Arc<Mutex<Inner>>);

struct Inner {
    clock: Clock,
    digest: DefaultHasher,
    lines: VecDeque<String>,
    keep: usize,
    count: u64,
}

impl Journal {
    /// A journal that keeps its last lines, by that clock.
    pub fn new(clock: Clock, keep: usize) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            clock,
            // Without keys of its own: the same in every process.
            digest: DefaultHasher::new(),
            lines: VecDeque::new(),
            keep,
            count: 0,
        })))
    }

    /// Takes down a line.
    pub fn note(&self, line: fmt::Arguments<'_>) {
        let mut inner = self.0.lock().expect("no holder panics");
        let millis = inner.clock.elapsed().as_millis();
        let line = format!("{:>4}.{:03} {line}", millis / 1000, millis % 1000);
        inner.digest.write(line.as_bytes());
        inner.digest.write_u8(b'\n');
        inner.count += 1;
        if inner.keep > 0 {
            if inner.lines.len() == inner.keep {
                inner.lines.pop_front();
            }
            inner.lines.push_back(line);
        }
    }

    /// Takes down bytes without showing them.
    pub fn bytes(&self, bytes: &[u8]) {
        let mut inner = self.0.lock().expect("no holder panics");
        inner.digest.write(bytes);
    }

    /// Equal for equal histories.
    pub fn digest(&self) -> u64 {
        self.0.lock().expect("no holder panics").digest.finish()
    }

    /// Lines so far.
    pub fn len(&self) -> u64 {
        self.0.lock().expect("no holder panics").count
    }

    /// Whether nothing has happened.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last lines.
    pub fn lines(&self) -> Vec<String> {
        let inner = self.0.lock().expect("no holder panics");
        inner.lines.iter().cloned().collect()
    }
}
