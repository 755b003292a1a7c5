//! The only source of randomness in a run.

use std::sync::Arc;

use fastrand::Rng;
use parking_lot::Mutex;

/// A random number generator that depends on the seed alone. Clones share its state.
#[derive(Clone)]
pub struct SeededRng(Arc<Mutex<Rng>>);

impl SeededRng {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Rng::with_seed(seed))))
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&self, bound: usize) -> usize {
        self.0.lock().usize(..bound)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&self, low: i64, high: i64) -> i64 {
        self.0.lock().i64(low..=high)
    }

    /// True with a probability of `parts_per_million`; draws no number when that is 0.
    pub fn happens(&self, parts_per_million: u32) -> bool {
        parts_per_million > 0 && self.0.lock().u32(..1_000_000) < parts_per_million
    }

    /// True or false, equally likely.
    pub fn flip_coin(&self) -> bool {
        self.0.lock().bool()
    }

    /// A random element; `None`, without a draw, when there is none.
    pub fn pick<'a, T>(&self, among: &'a [T]) -> Option<&'a T> {
        (!among.is_empty()).then(|| &among[self.below(among.len())])
    }

    /// Random bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.lock().fill(&mut bytes);
        bytes
    }

    /// A generator that is seeded by this one.
    pub fn fork(&self) -> Rng {
        self.0.lock().fork()
    }
}
