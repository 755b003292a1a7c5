//! The whole platform on a simulated log: the four rule books, the real worker and the real effects, their partners
//! with their faults, and callers. One seed draws everything that happens, so that the same seed is the same history.
//!
//! Single-threaded, without real time. [`run`] lives through one seed; what is wrong with it stands in [`Run`].

mod audit_run;
mod checks;
mod effect_runtime;
mod faults;
mod partners;
mod plan;
mod process;
mod projectors;
mod random_faults;
mod rng;
mod safeguard;
mod workload;
mod world;

pub use plan::Plan;
pub use safeguard::Safeguard;

use crate::rng::SeededRng;
use crate::world::World;

/// What became of a seed.
#[derive(Debug)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// What is wrong; empty when all is well.
    pub violations: Vec<String>,
    /// Equal for equal histories.
    pub digest: u64,
    /// How many lines the history has.
    pub lines: u64,
    /// Its last lines.
    pub last: Vec<String>,
}

/// Lives through a seed, without a protection if one is given; keeps the last lines of its history.
pub fn run(seed: u64, without: Option<Safeguard>, keep: usize) -> Run {
    let dice = SeededRng::new(seed);
    let plan = Plan::draw(&dice);
    let world = World::new(plan, dice, without, keep);
    world
        .journal
        .note(format_args!("seed {seed}: {:?}", world.plan));
    let violations = world.live();
    Run {
        seed,
        violations,
        digest: world.journal.digest(),
        lines: world.journal.len(),
        last: world.journal.lines(),
    }
}
