//! Slots for processes: start, step, end.

use std::rc::Rc;
use std::time::Duration;

use contracts::Service;
use engine::effects::NoEffects;
use engine::log::simulated::{ClientKind, Probe};
use engine::worker::Error;
use payments::Provider;
use shipping::{Carrier, Deadlines, ShipmentRules};

use super::Simulation;
use crate::checks;
use crate::process::{self, Process};
use crate::random_faults::RandomFaults;

const PARTNER_DEADLINE: Duration = Duration::from_secs(2);

/// A slot for a process, which may be down.
pub struct Slot {
    pub service: Service,
    pub instance: &'static str,
    pub process: Option<Box<dyn Process>>,
    pub(super) probe: Option<Probe>,
    /// A step of it is in progress, further down on the stack.
    pub is_running: bool,
    /// It has crashed during the current step.
    pub(super) has_crashed: bool,
    /// It does nothing until then and sends no heartbeats.
    pub frozen_until_ms: i64,
    /// When it restarts; `None` after it has left for good.
    pub restart_ms: Option<i64>,
    /// A second process was started under its instance name.
    pub is_duplicated: bool,
}

impl Slot {
    pub fn new(service: Service, instance: &'static str) -> Self {
        Self {
            service,
            instance,
            process: None,
            probe: None,
            is_running: false,
            has_crashed: false,
            frozen_until_ms: 0,
            restart_ms: Some(0),
            is_duplicated: false,
        }
    }

    /// A client of its log loses the connection to the broker for good.
    pub fn disconnect(&self, client: ClientKind) {
        if let Some(probe) = &self.probe {
            probe.disconnected.borrow_mut().insert(client);
        }
    }

    /// Ends the process at once; it restarts at `restart_ms`.
    pub fn stop(&mut self, restart_ms: Option<i64>) {
        self.process = None;
        self.probe = None;
        self.frozen_until_ms = 0;
        self.restart_ms = restart_ms;
    }
}

impl Simulation {
    /// Starts the process of a slot, or runs one step of it.
    pub(super) fn step(self: &Rc<Self>, index: usize) {
        let process = {
            let slot = &mut self.slots.borrow_mut()[index];
            slot.is_running = true;
            slot.process.take()
        };
        match process {
            None => self.start(index),
            Some(mut process) => {
                let result = process.step();
                self.finish_step(index, process, result);
            }
        }
        self.slots.borrow_mut()[index].is_running = false;
    }

    fn finish_step(&self, index: usize, process: Box<dyn Process>, result: Result<(), Error>) {
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[index];
        if slot.has_crashed {
            slot.has_crashed = false;
            slot.probe = None;
            slot.restart_ms = Some(self.clock.unix_ms() + self.random_downtime_ms());
            return;
        }
        let Err(error) = result else {
            slot.process = Some(process);
            return;
        };
        slot.probe = None;
        let (service, instance) = (slot.service, slot.instance);
        self.journal
            .note(format_args!("{service}.{instance} ends: {error}"));
        if slot.is_duplicated && matches!(error, Error::Fenced(_)) {
            slot.restart_ms = None;
        } else {
            let violation = format!("{service}.{instance} has ended: {error}");
            self.violations.borrow_mut().push(violation);
        }
    }

    pub fn random_downtime_ms(&self) -> i64 {
        match self.rng.below(4) {
            0 => self.rng.between(5_000, 25_000),
            _ => self.rng.between(0, 1_000),
        }
    }

    /// Starts the process of a slot; when the broker refuses, the slot retries later.
    fn start(self: &Rc<Self>, index: usize) {
        let (service, instance) = {
            let slot = &self.slots.borrow()[index];
            (slot.service, slot.instance)
        };
        let faults = Rc::new(RandomFaults {
            simulation: Rc::downgrade(self),
            slot: index,
        });
        let context = &self.process_context;
        let process = match service {
            Service::Orders => process::start(
                context,
                faults,
                instance,
                self.order_rules(),
                NoEffects,
                |effect, _| match *effect {},
            ),
            Service::Inventory => process::start(
                context,
                faults,
                instance,
                self.stock_rules(),
                NoEffects,
                |effect, _| match *effect {},
            ),
            Service::Payments => process::start(
                context,
                faults,
                instance,
                self.payment_rules(),
                Provider::new(self.partners.provider(), PARTNER_DEADLINE),
                checks::is_payment_answer,
            ),
            Service::Shipping => process::start(
                context,
                faults,
                instance,
                ShipmentRules,
                Carrier::new(
                    self.partners.carrier(),
                    Deadlines {
                        call: PARTNER_DEADLINE,
                        tracking_wait: Duration::from_secs(1),
                    },
                ),
                checks::is_shipment_answer,
            ),
        };
        let now_ms = self.clock.unix_ms();
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[index];
        if let Some(process) = process.filter(|_| !slot.has_crashed) {
            self.journal
                .note(format_args!("{service}.{instance} starts"));
            slot.probe = Some(process.probe().clone());
            slot.process = Some(process);
        } else {
            slot.restart_ms = Some(now_ms + 500);
        }
        slot.has_crashed = false;
    }
}
