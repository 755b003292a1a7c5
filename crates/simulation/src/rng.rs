//! The only source of chance in a run.

use std::sync::{Arc, Mutex, MutexGuard};

use fastrand::Rng;

/// Dice that fall by the seed alone; clones are the same dice.
#[derive(Clone)]
pub struct SeededRng(Arc<Mutex<Rng>>);

impl SeededRng {
    /// Dice of a seed.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Rng::with_seed(seed))))
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&self, bound: usize) -> usize {
        self.rng().usize(..bound)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&self, low: i64, high: i64) -> i64 {
        self.rng().i64(low..=high)
    }

    /// Once in a million times `parts`.
    pub fn happens(&self, parts_per_million: u32) -> bool {
        parts_per_million > 0 && self.rng().u32(..1_000_000) < parts_per_million
    }

    /// One of two.
    pub fn toss(&self) -> bool {
        self.rng().bool()
    }

    /// One of them.
    pub fn pick<'a, T>(&self, among: &'a [T]) -> Option<&'a T> {
        (!among.is_empty()).then(|| &among[self.below(among.len())])
    }

    /// Some bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng().fill(&mut bytes);
        bytes
    }

    /// Other dice that are thrown with these.
    pub fn fork(&self) -> Rng {
        self.rng().fork()
    }

    fn rng(&self) -> MutexGuard<'_, Rng> {
        self.0.lock().expect("no holder panics")
    }
}
