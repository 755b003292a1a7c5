//! The platform on a simulated log: the four rule books, the real worker and effects, the partners with their faults,
//! and customers. A seed determines every random choice, so that a seed always gives the same history.
//!
//! Single-threaded, without real time. [`run`] runs one seed and returns a [`RunReport`].

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
mod simulation;
mod workload;

pub use plan::Plan;
pub use safeguard::Safeguard;

use crate::rng::SeededRng;
use crate::simulation::Simulation;

/// The result of a seed.
#[derive(Debug)]
pub struct RunReport {
    /// The seed.
    pub seed: u64,
    /// Violations; empty when the run is clean.
    pub violations: Vec<String>,
    /// Equal for equal histories.
    pub digest: u64,
    /// Number of lines of the history.
    pub line_count: u64,
    /// The last lines of the history.
    pub last_lines: Vec<String>,
}

/// Runs a seed, without one safeguard if it is given, and keeps the last `max_lines` lines of the history.
pub fn run(seed: u64, disabled_safeguard: Option<Safeguard>, max_lines: usize) -> RunReport {
    let rng = SeededRng::new(seed);
    let plan = Plan::draw(&rng);
    let simulation = Simulation::new(plan, rng, disabled_safeguard, max_lines);
    simulation
        .journal
        .note(format_args!("seed {seed}: {:?}", simulation.plan));
    let violations = simulation.run();
    RunReport {
        seed,
        violations,
        digest: simulation.journal.digest(),
        line_count: simulation.journal.len(),
        last_lines: simulation.journal.lines(),
    }
}
