//! Places for processes: beginning one, a step of it, its end.

use std::rc::Rc;
use std::time::Duration;

use contracts::Service;
use engine::log::simulated::{Client, Probe};
use engine::worker::Error;
use payments::Provider;
use shipping::{Carrier, Deadlines, ShipmentRules};

use super::World;
use crate::checks;
use crate::process::{self, NoEffects, Process};
use crate::random_faults::RandomFaults;

const PARTNER_DEADLINE: Duration = Duration::from_secs(2);

/// A place for a process.
pub struct Slot {
    pub service: Service,
    pub instance: &'static str,
    pub process: Option<Box<dyn Process>>,
    pub(super) pulse: Option<Probe>,
    /// It runs now, further down on the stack.
    pub is_busy: bool,
    /// It has met its end in the middle of a step.
    pub(super) has_crashed: bool,
    /// Nothing of it runs until then, not even its heartbeats.
    pub frozen_until_ms: i64,
    /// When it comes back; `None` for one that has gone for good.
    pub restart_ms: Option<i64>,
    /// Somebody else was started under its name while it ran.
    pub is_doubled: bool,
}

impl Slot {
    pub fn new(service: Service, instance: &'static str) -> Self {
        Self {
            service,
            instance,
            process: None,
            pulse: None,
            is_busy: false,
            has_crashed: false,
            frozen_until_ms: 0,
            restart_ms: Some(0),
            is_doubled: false,
        }
    }

    /// A client of its log loses the broker, which is well.
    pub fn lose(&self, client: Client) {
        if let Some(pulse) = &self.pulse {
            pulse.lost.borrow_mut().insert(client);
        }
    }

    pub fn end(&mut self, restart_ms: Option<i64>) {
        self.process = None;
        self.pulse = None;
        self.frozen_until_ms = 0;
        self.restart_ms = restart_ms;
    }
}

impl World {
    pub(super) fn step(self: &Rc<Self>, index: usize) {
        let process = {
            let slot = &mut self.slots.borrow_mut()[index];
            slot.is_busy = true;
            slot.process.take()
        };
        match process {
            None => self.start(index),
            Some(mut process) => {
                let ended = process.step();
                self.stepped(index, process, ended);
            }
        }
        self.slots.borrow_mut()[index].is_busy = false;
    }

    fn stepped(&self, index: usize, process: Box<dyn Process>, ended: Result<(), Error>) {
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[index];
        if slot.has_crashed {
            slot.has_crashed = false;
            slot.pulse = None;
            slot.restart_ms = Some(self.clock.unix_ms() + self.downtime_ms());
            return;
        }
        let Err(error) = ended else {
            slot.process = Some(process);
            return;
        };
        slot.pulse = None;
        let (service, instance) = (slot.service, slot.instance);
        self.journal
            .note(format_args!("{service}.{instance} ends: {error}"));
        if slot.is_doubled && matches!(error, Error::Fenced(_)) {
            slot.restart_ms = None;
        } else {
            let violation = format!("{service}.{instance} has ended: {error}");
            self.violations.borrow_mut().push(violation);
        }
    }

    pub fn downtime_ms(&self) -> i64 {
        match self.dice.below(4) {
            0 => self.dice.between(5_000, 25_000),
            _ => self.dice.between(0, 1_000),
        }
    }

    /// Begins the process of a slot; the broker may not let it, then it tries again.
    fn start(self: &Rc<Self>, index: usize) {
        let (service, instance) = {
            let slot = &self.slots.borrow()[index];
            (slot.service, slot.instance)
        };
        let fate = Rc::new(RandomFaults {
            world: Rc::downgrade(self),
            slot: index,
        });
        let parts = &self.parts;
        let process = match service {
            Service::Orders => process::begin(
                parts,
                fate,
                instance,
                self.order_rules(),
                NoEffects,
                |effect, _| match *effect {},
            ),
            Service::Inventory => process::begin(
                parts,
                fate,
                instance,
                self.stock_rules(),
                NoEffects,
                |effect, _| match *effect {},
            ),
            Service::Payments => process::begin(
                parts,
                fate,
                instance,
                self.payment_rules(),
                Provider::new(self.partners.provider(), PARTNER_DEADLINE),
                checks::answers_payment,
            ),
            Service::Shipping => process::begin(
                parts,
                fate,
                instance,
                ShipmentRules,
                Carrier::new(
                    self.partners.carrier(),
                    Deadlines {
                        call: PARTNER_DEADLINE,
                        tracking_wait: Duration::from_secs(1),
                    },
                ),
                checks::answers_shipment,
            ),
        };
        let now_ms = self.clock.unix_ms();
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[index];
        if let Some(process) = process.filter(|_| !slot.has_crashed) {
            self.journal
                .note(format_args!("{service}.{instance} starts"));
            slot.pulse = Some(process.pulse().clone());
            slot.process = Some(process);
        } else {
            slot.restart_ms = Some(now_ms + 500);
        }
        slot.has_crashed = false;
    }
}
