//! The scheduler: random selection of the next step, random pauses, and the passage of time.

use std::rc::Rc;

use engine::log::simulated::{FaultPoint, StepOutcome};

use super::Simulation;
use super::slots::Slot;

/// Maximum number of nested pauses.
const MAX_PAUSE_DEPTH: usize = 2;

impl Simulation {
    /// A worker's call reaches a point: other processes may run, and faults may strike, before it continues.
    pub fn reach(self: &Rc<Self>, slot: usize, instance: &str, point: FaultPoint) -> StepOutcome {
        if self.rng.below(3) == 0 || !self.faults_enabled() {
            self.perform_broker_action();
        }
        if !self.faults_enabled() {
            return StepOutcome::Continue;
        }
        let service = self.slots.borrow().get(slot).map(|slot| slot.service);
        let Some(service) = service else {
            // The slot is still being created.
            return StepOutcome::Continue;
        };
        if self.rng.happens(self.plan.crash_ppm) {
            self.journal
                .note(format_args!("{service}.{instance} crashes at {point:?}"));
            self.slots.borrow_mut()[slot].has_crashed = true;
            return StepOutcome::Crash;
        }
        if self.pause_depth.get() < MAX_PAUSE_DEPTH && self.rng.happens(self.plan.pause_ppm) {
            self.journal
                .note(format_args!("{service}.{instance} is paused at {point:?}"));
            self.pause(slot);
            self.journal
                .note(format_args!("{service}.{instance} continues at {point:?}"));
        }
        if self.rng.happens(self.plan.unanswered_ppm) {
            self.journal.note(format_args!(
                "{service}.{instance} gets no answer at {point:?}"
            ));
            return StepOutcome::Unavailable;
        }
        StepOutcome::Continue
    }

    /// Pauses a process within a call, and runs others meanwhile.
    fn pause(self: &Rc<Self>, slot: usize) {
        self.pause_depth.set(self.pause_depth.get() + 1);
        // Either the whole process is frozen, or only its worker: then its heartbeats continue.
        let now_ms = self.clock.unix_ms();
        if self.rng.flip_coin() {
            self.slots.borrow_mut()[slot].frozen_until_ms = i64::MAX;
        }
        let lasts_ms = match self.rng.below(3) {
            0 => self.rng.between(1_000, 30_000),
            _ => self.rng.between(0, 300),
        };
        for _ in 0..self.rng.below(80) + 1 {
            self.random_action();
        }
        while self.clock.unix_ms() < now_ms + lasts_ms {
            for _ in 0..6 {
                self.random_action();
            }
            self.advance(self.rng.between(1, 400));
        }
        self.slots.borrow_mut()[slot].frozen_until_ms = 0;
        self.pause_depth.set(self.pause_depth.get() - 1);
    }

    /// Performs one random action.
    pub(super) fn random_action(self: &Rc<Self>) {
        if self.rng.happens(self.plan.external_fault_ppm) {
            self.inject_fault();
        }
        match self.rng.below(100) {
            0..=44 => self.step_random_process(),
            45..=61 => self.run_effects_of_random_process(),
            62..=68 => self.partners.run_due_work(),
            69..=82 => self.perform_broker_action(),
            83..=91 => self.advance_random(),
            92..=95 => self.projectors.step(self),
            _ => self.workload.send_random_command(self),
        }
    }

    fn advance_random(&self) {
        let by_ms = match self.rng.below(20) {
            0 => self.rng.between(100, 1_000),
            1..=4 => self.rng.between(10, 100),
            _ => self.rng.between(1, 10),
        };
        self.advance(by_ms);
    }

    /// Advances the clock; processes that are not frozen send heartbeats.
    pub(super) fn advance(&self, by_ms: i64) {
        let mut left_ms = by_ms;
        while left_ms > 0 {
            let step_ms = left_ms.min(1_000);
            left_ms -= step_ms;
            self.clock.advance_ms(step_ms);
            let now_ms = self.clock.unix_ms();
            for slot in self.slots.borrow().iter() {
                if let Some(probe) = &slot.probe
                    && slot.frozen_until_ms <= now_ms
                    && probe.sends_heartbeats()
                {
                    self.broker
                        .heartbeat(slot.service, slot.instance, probe.member_id.get());
                }
            }
        }
        if self.broker.is_unavailable() && self.clock.unix_ms() >= self.broker_recovers_ms.get() {
            self.journal
                .note(format_args!("the broker is available again"));
            self.broker.set_unavailable(false);
        }
        let recover_ms = self.partners_recover_ms.get();
        if recover_ms > 0 && self.clock.unix_ms() >= recover_ms {
            self.partners_recover_ms.set(0);
            self.partners.sandbox.set_behaviour(self.plan.behaviour);
        }
    }

    /// Performs a random pending action of the broker, except markers of slow leaders.
    pub(super) fn perform_broker_action(&self) {
        let mut pending_actions = self.broker.pending_actions();
        let slow_leaders = self.slow_leaders.borrow();
        if !slow_leaders.is_empty() {
            let now_ms = self.clock.unix_ms();
            pending_actions.retain(|action| {
                let until_ms = action
                    .marker_partition()
                    .and_then(|tp| slow_leaders.get(&tp));
                until_ms.is_none_or(|until_ms| *until_ms <= now_ms)
            });
        }
        if let Some(action) = self.rng.pick(&pending_actions) {
            self.broker.perform(action);
        }
    }

    fn step_random_process(self: &Rc<Self>) {
        let now = self.clock.elapsed();
        let now_ms = self.clock.unix_ms();
        let runnable: Vec<_> = self.slots_where(|slot| {
            !slot.is_running
                && slot.frozen_until_ms <= now_ms
                && match &slot.probe {
                    Some(probe) => probe.waits_until.get() <= now,
                    None => slot.restart_ms.is_some_and(|at_ms| at_ms <= now_ms),
                }
        });
        if let Some(index) = self.rng.pick(&runnable) {
            self.step(*index);
        }
    }

    fn run_effects_of_random_process(&self) {
        let now_ms = self.clock.unix_ms();
        let runnable = self.slots_where(|slot| {
            slot.process.is_some() && !slot.is_running && slot.frozen_until_ms <= now_ms
        });
        if let Some(index) = self.rng.pick(&runnable) {
            self.run_effects(*index);
        }
    }

    /// Indices of the slots that match.
    pub fn slots_where(&self, matches: impl Fn(&Slot) -> bool) -> Vec<usize> {
        let slots = self.slots.borrow();
        (0..slots.len())
            .filter(|index| matches(&slots[*index]))
            .collect()
    }

    /// Runs the effects and timers of a process that are due.
    pub(super) fn run_effects(&self, index: usize) {
        let process = self.slots.borrow_mut()[index].process.take();
        if let Some(mut process) = process {
            process.run_effects();
            self.slots.borrow_mut()[index].process = Some(process);
        }
    }
}
