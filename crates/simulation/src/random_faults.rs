//! What happens between the steps of a worker, by the dice.

use std::rc::Weak;

use engine::log::simulated::{Ending, FaultInjector, Point, StepOutcome};

use crate::world::World;

/// The fate of one process.
pub struct RandomFaults {
    pub world: Weak<World>,
    /// Its slot in the world.
    pub slot: usize,
}

impl FaultInjector for RandomFaults {
    fn reach(&self, instance: &str, point: Point) -> StepOutcome {
        match self.world.upgrade() {
            Some(world) => world.reach(self.slot, instance, point),
            None => StepOutcome::Crash,
        }
    }

    fn ending(&self, _instance: &str) -> Ending {
        let Some(world) = self.world.upgrade() else {
            return Ending::Prompt;
        };
        if !world.is_troubled() || !world.dice.happens(world.plan.ending) {
            return Ending::Prompt;
        }
        let ways = [
            Ending::Lost,
            Ending::ReplyLost,
            Ending::Late,
            Ending::Repeated,
        ];
        ways[world.dice.below(ways.len())]
    }

    fn portion(&self, there: usize) -> usize {
        match self.world.upgrade() {
            Some(world) if world.dice.toss() => world.dice.below(there) + 1,
            _ => there,
        }
    }

    fn toss(&self) -> bool {
        self.world.upgrade().is_none_or(|world| world.dice.toss())
    }
}
