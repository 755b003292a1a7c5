//! The world of one seed, and its only scheduler.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use contracts::sandbox::v1::Behaviour;
use contracts::{Service, Topic};
use engine::log::Partition;
use engine::log::simulated::{Broker, Clock, Journal, Place, Point, Pulse, Verdict};
use engine::worker::{Error, Settings};
use engine::{Cluster, Codec, Metrics};
use inventory::StockRules;
use orders::OrderRules;
use payments::{PaymentRules, Provider};
use registry::Schemas;
use shipping::{Carrier, Deadlines, ShipmentRules};

use crate::audited::audited;
use crate::checks;
use crate::customers::Customers;
use crate::dice::Dice;
use crate::fate::Drawn;
use crate::partners::Partners;
use crate::plan::Plan;
use crate::process::{self, NoEffects, Parts, Process};
use crate::projectors::Projectors;
use crate::protection::Protection;

/// Names of a service's processes.
pub const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
/// How deep others may run within a pause of somebody who runs within a pause.
const DEEPEST: usize = 2;
/// When the world must have come to rest after its troubles, milliseconds.
const REST_MS: i64 = 20 * 60_000;
const PARTNER_DEADLINE: Duration = Duration::from_secs(2);

/// Everything that a run happens to.
pub struct World {
    pub plan: Plan,
    pub dice: Dice,
    pub clock: Clock,
    pub journal: Journal,
    pub broker: Broker,
    pub parts: Parts,
    pub partners: Partners,
    pub customers: Customers,
    pub projectors: Projectors,
    pub slots: RefCell<Vec<Slot>>,
    /// Partitions whose leader is slow to write markers, and until when.
    pub slow: RefCell<BTreeMap<Place, i64>>,
    is_troubled: Cell<bool>,
    depth: Cell<usize>,
    pub broker_back_ms: Cell<i64>,
    pub partners_back_ms: Cell<i64>,
    violations: RefCell<Vec<String>>,
}

/// A place for a process.
pub struct Slot {
    pub service: Service,
    pub instance: &'static str,
    pub process: Option<Box<dyn Process>>,
    pulse: Option<Pulse>,
    /// It runs now, further down on the stack.
    pub is_busy: bool,
    /// It has met its end in the middle of a step.
    has_crashed: bool,
    /// Nothing of it runs until then, not even its heartbeats.
    pub frozen_until_ms: i64,
    /// When it comes back; `None` for one that has gone for good.
    pub restart_ms: Option<i64>,
    /// Somebody else was started under its name while it ran.
    pub is_doubled: bool,
}

impl World {
    /// The world of a plan.
    pub fn new(plan: Plan, dice: Dice, without: Option<Protection>, keep: usize) -> Rc<Self> {
        let clock = Clock::default();
        let journal = Journal::new(clock.clone(), keep);
        let broker = Broker::new(clock.clone(), journal.clone(), plan.partitions);
        let registry = prometheus::Registry::new();
        let parts = Parts {
            broker: broker.clone(),
            dice: dice.clone(),
            codec: Codec::new(schemas()),
            metrics: Metrics::new(&registry).expect("the registry is empty"),
            cluster: Arc::new(Cluster {
                bootstrap: String::new(),
                prefix: String::new(),
                partitions: plan.partitions,
            }),
            settings: Settings {
                horizon: plan.horizon,
                slack: plan.slack,
                checkpoint_every: plan.checkpoint_every,
                without: None,
            },
            unknown: plan.unknown,
            without,
            violations: Arc::default(),
        };
        let partners = Partners::new(plan.behaviour, &clock);
        let mut slots = Vec::new();
        for service in Service::ALL {
            for instance in &NAMES[..plan.instances] {
                slots.push(Slot::new(service, instance));
            }
        }
        Rc::new(Self {
            plan,
            dice,
            clock,
            journal,
            broker,
            parts,
            partners,
            customers: Customers::default(),
            projectors: Projectors::new(schemas(), without),
            slots: RefCell::new(slots),
            slow: RefCell::default(),
            is_troubled: Cell::new(true),
            depth: Cell::new(0),
            broker_back_ms: Cell::new(0),
            partners_back_ms: Cell::new(0),
            violations: RefCell::default(),
        })
    }

    /// Lives through its troubles, comes to rest, and is looked at; what is wrong then.
    pub fn live(self: &Rc<Self>) -> Vec<String> {
        self.customers.stock_up(self);
        for _ in 0..self.plan.actions {
            self.act();
            if !self.violations.borrow().is_empty() {
                break;
            }
        }
        self.is_troubled.set(false);
        if self.violations.borrow().is_empty() {
            self.rest();
        }
        let mut violations = self.violations();
        // Once a service may have forgotten something, only the log itself tells whether it had.
        let remembered = self.plan.horizon + self.plan.slack;
        if violations.is_empty() && self.clock.elapsed() < remembered {
            violations = audited(self);
        }
        // What stands in the log may also tell why it did not come to rest.
        violations.append(&mut checks::at_rest(self));
        if violations.is_empty() && self.plan.is_forgetful() {
            self.long_after();
            violations = self.violations();
            violations.append(&mut checks::at_rest(self));
        }
        violations
    }

    fn violations(&self) -> Vec<String> {
        let mut violations = std::mem::take(&mut *self.violations.borrow_mut());
        violations.append(&mut self.parts.violations.lock().expect("no holder panics"));
        violations
    }

    /// Whether anything goes wrong (still).
    pub fn is_troubled(&self) -> bool {
        self.is_troubled.get()
    }

    /// The rule books, as the services have them in this world.
    pub fn order_rules(&self) -> OrderRules {
        OrderRules {
            horizon_ms: self.horizon_ms(),
            stock_wait_ms: 40_000,
            payment_wait_ms: 40_000,
            shipping_wait_ms: 60_000,
            delivery_wait_ms: 60_000,
        }
    }

    /// See [`World::order_rules`].
    pub fn stock_rules(&self) -> StockRules {
        StockRules {
            horizon_ms: self.horizon_ms(),
        }
    }

    /// See [`World::order_rules`].
    pub fn payment_rules(&self) -> PaymentRules {
        PaymentRules {
            refund_wait_ms: 500,
        }
    }

    fn horizon_ms(&self) -> i64 {
        i64::try_from(self.plan.horizon.as_millis()).unwrap_or(i64::MAX)
    }

    /// The worker of a slot has come to a point of a call; others may run before it goes on.
    pub fn reach(self: &Rc<Self>, slot: usize, instance: &str, point: Point) -> Verdict {
        if self.dice.below(3) == 0 || !self.is_troubled() {
            self.chore();
        }
        if !self.is_troubled() {
            return Verdict::Go;
        }
        let service = self.slots.borrow().get(slot).map(|slot| slot.service);
        let Some(service) = service else {
            // It is still being made.
            return Verdict::Go;
        };
        if self.dice.happens(self.plan.crash) {
            self.journal
                .note(format_args!("{service}.{instance} crashes at {point:?}"));
            self.slots.borrow_mut()[slot].has_crashed = true;
            return Verdict::Crash;
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
            return Verdict::Unavailable;
        }
        Verdict::Go
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
    fn act(self: &Rc<Self>) {
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
    fn advance(&self, by_ms: i64) {
        let mut left_ms = by_ms;
        while left_ms > 0 {
            let step_ms = left_ms.min(1_000);
            left_ms -= step_ms;
            self.clock.advance_ms(step_ms);
            let now_ms = self.clock.unix_ms();
            for slot in self.slots.borrow().iter() {
                if let Some(pulse) = &slot.pulse
                    && slot.frozen_until_ms <= now_ms
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

    fn chore(&self) {
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

    fn drive(&self, index: usize) {
        let process = self.slots.borrow_mut()[index].process.take();
        if let Some(mut process) = process {
            process.drive();
            self.slots.borrow_mut()[index].process = Some(process);
        }
    }

    fn step(self: &Rc<Self>, index: usize) {
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
        let fate = Rc::new(Drawn {
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

    /// All troubles are over; everything that was begun comes to its end.
    fn rest(self: &Rc<Self>) {
        self.journal.note(format_args!("all troubles are over"));
        let now_ms = self.clock.unix_ms();
        self.broker.set_away(false);
        self.slow.borrow_mut().clear();
        self.partners_back_ms.set(0);
        self.partners.sandbox.behave(Behaviour {
            provider: None,
            carrier: None,
            refund_refuse_percent: 0,
            ..self.plan.behaviour
        });
        for slot in self.slots.borrow_mut().iter_mut() {
            slot.frozen_until_ms = 0;
            slot.restart_ms = slot.restart_ms.map(|_| now_ms);
        }
        let mut look_ms = now_ms;
        while self.clock.unix_ms() < now_ms + REST_MS {
            let now = self.clock.elapsed();
            let able = self.indices(|slot| match &slot.pulse {
                Some(pulse) => pulse.ahead.get() <= now,
                None => slot
                    .restart_ms
                    .is_some_and(|at_ms| at_ms <= self.clock.unix_ms()),
            });
            for index in able {
                self.step(index);
            }
            for index in self.indices(|slot| slot.process.is_some()) {
                self.drive(index);
            }
            self.partners.work();
            self.chore();
            self.revive();
            self.projectors.step(self);
            if !self.violations.borrow().is_empty() {
                return;
            }
            if self.clock.unix_ms() >= look_ms {
                look_ms = self.clock.unix_ms() + 1_000;
                let is_over = self.is_processed() && self.projectors.is_done(self);
                if is_over && checks::unfinished(self).is_empty() {
                    self.journal.note(format_args!("all is at rest"));
                    return;
                }
            }
            self.advance(self.dice.between(5, 100));
        }
        let mut unfinished = checks::unfinished(self);
        unfinished.truncate(5);
        let violation = format!(
            "not at rest in time: processed {}, waiting {unfinished:?}",
            self.is_processed()
        );
        self.violations.borrow_mut().push(violation);
    }

    /// Everything has left memory when customers ask again.
    fn long_after(self: &Rc<Self>) {
        self.journal.note(format_args!("long after"));
        let remembered = self.plan.horizon + self.plan.slack;
        for _ in 0..2 {
            self.advance(i64::try_from(remembered.as_millis()).unwrap_or(0));
            self.customers.repeat_all(self);
            self.rest();
        }
    }

    /// Whoever watches over the processes sees to it that there is one.
    fn revive(&self) {
        let now_ms = self.clock.unix_ms();
        for service in Service::ALL {
            let alive = self.indices(|slot| {
                slot.service == service && (slot.pulse.is_some() || slot.restart_ms.is_some())
            });
            if alive.is_empty() {
                let first = self.indices(|slot| slot.service == service)[0];
                self.slots.borrow_mut()[first].restart_ms = Some(now_ms);
            }
        }
    }

    /// Whether every command has been processed, and no transaction is open or has markers on their way.
    fn is_processed(&self) -> bool {
        let is_over = |service, partition| {
            let commands = self
                .broker
                .stable_end((service, Topic::Commands, partition));
            let is_read =
                commands == 0 || self.broker.committed(service, partition) == Some(commands);
            is_read
                && Topic::ALL.into_iter().all(|topic| {
                    let place = (service, topic, partition);
                    self.broker.stable_end(place) == self.broker.ends(place).high
                })
        };
        let partitions = 0..Partition::from(self.plan.partitions);
        self.broker.chores().is_empty()
            && Service::ALL.into_iter().all(|service| {
                let mut partitions = partitions.clone();
                partitions.all(|partition| is_over(service, partition))
            })
    }
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

    pub fn end(&mut self, restart_ms: Option<i64>) {
        self.process = None;
        self.pulse = None;
        self.frozen_until_ms = 0;
        self.restart_ms = restart_ms;
    }
}

/// Every topic with a schema has an id of its own.
fn schemas() -> Schemas {
    let mut ids = Vec::new();
    for service in Service::ALL {
        for topic in Topic::ALL {
            if topic != Topic::Dlq {
                let id = u32::try_from(ids.len()).unwrap_or(0) + 1;
                ids.push((service, topic, id));
            }
        }
    }
    Schemas::fixed(&ids)
}
