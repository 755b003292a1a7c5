//! Whose turn it is: the dice say who runs, for how long somebody is held up, and how time passes.

use std::rc::Rc;

use engine::log::simulated::{Point, StepOutcome};

use super::World;
use super::slots::Slot;

/// How deep others may run within a pause of somebody who runs within a pause.
const DEEPEST: usize = 2;

impl World {
    /// The worker of a slot has come to a point of a call; others may run before it goes on.
    pub fn reach(self: &Rc<Self>, slot: usize, instance: &str, point: Point) -> StepOutcome {
        if self.dice.below(3) == 0 || !self.is_troubled() {
            self.chore();
        }
        if !self.is_troubled() {
            return StepOutcome::Go;
        }
        let service = self.slots.borrow().get(slot).map(|slot| slot.service);
        let Some(service) = service else {
            // It is still being made.
            return StepOutcome::Go;
        };
        if self.dice.happens(self.plan.crash) {
            self.journal
                .note(format_args!("{service}.{instance} crashes at {point:?}"));
            self.slots.borrow_mut()[slot].has_crashed = true;
            return StepOutcome::Crash;
        }
        if self.depth.get() < DEEPEST && self.dice.happens(self.plan.pause) {
            self.journal
                .note(format_args!("{service}.{instance} is held up at {point:?}"));
            self.pause(slot);
            self.journal
                .note(format_args!("{service}.{instance} goes on at {point:?}"));
        }
        if self.dice.happens(self.plan.unanswered) {
            self.journal.note(format_args!(
                "{service}.{instance} gets no answer at {point:?}"
            ));
            return StepOutcome::Unavailable;
        }
        StepOutcome::Go
    }

    /// Others run while somebody is in the middle of something.
    fn pause(self: &Rc<Self>, slot: usize) {
        self.depth.set(self.depth.get() + 1);
        // Frozen as a whole, or only slow: then its heartbeats go on.
        let now_ms = self.clock.unix_ms();
        if self.dice.toss() {
            self.slots.borrow_mut()[slot].frozen_until_ms = i64::MAX;
        }
        let lasts_ms = match self.dice.below(3) {
            0 => self.dice.between(1_000, 30_000),
            _ => self.dice.between(0, 300),
        };
        for _ in 0..self.dice.below(80) + 1 {
            self.act();
        }
        while self.clock.unix_ms() < now_ms + lasts_ms {
            for _ in 0..6 {
                self.act();
            }
            self.advance(self.dice.between(1, 400));
        }
        self.slots.borrow_mut()[slot].frozen_until_ms = 0;
        self.depth.set(self.depth.get() - 1);
    }

    /// One action of somebody.
    pub(super) fn act(self: &Rc<Self>) {
        if self.dice.happens(self.plan.mishap) {
            self.mishap();
        }
        match self.dice.below(100) {
            0..=44 => self.step_somebody(),
            45..=61 => self.drive_somebody(),
            62..=68 => self.partners.work(),
            69..=82 => self.chore(),
            83..=91 => self.pass_time(),
            92..=95 => self.projectors.step(self),
            _ => self.customers.ask(self),
        }
    }

    fn pass_time(&self) {
        let by_ms = match self.dice.below(20) {
            0 => self.dice.between(100, 1_000),
            1..=4 => self.dice.between(10, 100),
            _ => self.dice.between(1, 10),
        };
        self.advance(by_ms);
    }

    /// Time passes for all who are not frozen.
    pub(super) fn advance(&self, by_ms: i64) {
        let mut left_ms = by_ms;
        while left_ms > 0 {
            let step_ms = left_ms.min(1_000);
            left_ms -= step_ms;
            self.clock.advance_ms(step_ms);
            let now_ms = self.clock.unix_ms();
            for slot in self.slots.borrow().iter() {
                if let Some(pulse) = &slot.pulse
                    && slot.frozen_until_ms <= now_ms
                    && pulse.beats()
                {
                    self.broker
                        .heartbeat(slot.service, slot.instance, pulse.member.get());
                }
            }
        }
        if self.broker.is_away() && self.clock.unix_ms() >= self.broker_back_ms.get() {
            self.journal.note(format_args!("the broker is back"));
            self.broker.set_away(false);
        }
        let back_ms = self.partners_back_ms.get();
        if back_ms > 0 && self.clock.unix_ms() >= back_ms {
            self.partners_back_ms.set(0);
            self.partners.sandbox.behave(self.plan.behaviour);
        }
    }

    pub(super) fn chore(&self) {
        let mut chores = self.broker.chores();
        let slow = self.slow.borrow();
        if !slow.is_empty() {
            let now_ms = self.clock.unix_ms();
            chores.retain(|chore| {
                let until_ms = chore.place().and_then(|place| slow.get(&place));
                until_ms.is_none_or(|until_ms| *until_ms <= now_ms)
            });
        }
        if let Some(chore) = self.dice.pick(&chores) {
            self.broker.perform(chore);
        }
    }

    fn step_somebody(self: &Rc<Self>) {
        let now = self.clock.elapsed();
        let now_ms = self.clock.unix_ms();
        let able: Vec<_> = self.indices(|slot| {
            !slot.is_busy
                && slot.frozen_until_ms <= now_ms
                && match &slot.pulse {
                    Some(pulse) => pulse.ahead.get() <= now,
                    None => slot.restart_ms.is_some_and(|at_ms| at_ms <= now_ms),
                }
        });
        if let Some(index) = self.dice.pick(&able) {
            self.step(*index);
        }
    }

    fn drive_somebody(&self) {
        let now_ms = self.clock.unix_ms();
        let able = self.indices(|slot| {
            slot.process.is_some() && !slot.is_busy && slot.frozen_until_ms <= now_ms
        });
        if let Some(index) = self.dice.pick(&able) {
            self.drive(*index);
        }
    }

    pub fn indices(&self, fits: impl Fn(&Slot) -> bool) -> Vec<usize> {
        let slots = self.slots.borrow();
        (0..slots.len())
            .filter(|index| fits(&slots[*index]))
            .collect()
    }

    pub(super) fn drive(&self, index: usize) {
        let process = self.slots.borrow_mut()[index].process.take();
        if let Some(mut process) = process {
            process.drive();
            self.slots.borrow_mut()[index].process = Some(process);
        }
    }
}
