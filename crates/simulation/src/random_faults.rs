//! Random faults inside a worker's calls on the log.

use std::rc::Weak;

use engine::log::simulated::{EndDelivery, FaultInjector, FaultPoint, StepOutcome};

use crate::simulation::Simulation;

/// The fault injector of one process.
pub struct RandomFaults {
    pub simulation: Weak<Simulation>,
    /// The slot of the process.
    pub slot: usize,
}

impl FaultInjector for RandomFaults {
    fn reach(&self, instance: &str, point: FaultPoint) -> StepOutcome {
        match self.simulation.upgrade() {
            Some(simulation) => simulation.reach(self.slot, instance, point),
            None => StepOutcome::Crash,
        }
    }

    fn end_delivery(&self, _instance: &str) -> EndDelivery {
        let Some(simulation) = self.simulation.upgrade() else {
            return EndDelivery::Prompt;
        };
        if !simulation.faults_enabled() || !simulation.rng.happens(simulation.plan.end_fault_ppm) {
            return EndDelivery::Prompt;
        }
        let deliveries = [
            EndDelivery::Lost,
            EndDelivery::ReplyLost,
            EndDelivery::Late,
            EndDelivery::Repeated,
        ];
        deliveries[simulation.rng.below(deliveries.len())]
    }

    fn fetch_size(&self, available: usize) -> usize {
        match self.simulation.upgrade() {
            Some(simulation) if simulation.rng.flip_coin() => simulation.rng.below(available) + 1,
            _ => available,
        }
    }

    fn flip_coin(&self) -> bool {
        self.simulation
            .upgrade()
            .is_none_or(|simulation| simulation.rng.flip_coin())
    }
}
