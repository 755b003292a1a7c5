//! The world of one seed, and its only scheduler.

mod scheduler;
mod slots;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use contracts::sandbox::v1::Behaviour;
use contracts::{Service, Topic};
use engine::log::Partition;
use engine::log::simulated::{Broker, Clock, Journal, TopicPartition};
use engine::worker::Settings;
use engine::{Cluster, Codec, Metrics};
use inventory::StockRules;
use orders::OrderRules;
use payments::PaymentRules;
use registry::Schemas;

use crate::audit_run::audited;
use crate::checks;
use crate::partners::Partners;
use crate::plan::Plan;
use crate::process::Parts;
use crate::projectors::Projectors;
use crate::rng::SeededRng;
use crate::safeguard::Safeguard;
use crate::workload::Workload;

pub use slots::Slot;

/// Names of a service's processes.
pub const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
/// When the world must have come to rest after its troubles, milliseconds.
const REST_MS: i64 = 20 * 60_000;

/// Everything that a run happens to.
pub struct World {
    pub plan: Plan,
    pub dice: SeededRng,
    pub clock: Clock,
    pub journal: Journal,
    pub broker: Broker,
    pub parts: Parts,
    pub partners: Partners,
    pub customers: Workload,
    pub projectors: Projectors,
    pub slots: RefCell<Vec<Slot>>,
    /// Partitions whose leader is slow to write markers, and until when.
    pub slow: RefCell<BTreeMap<TopicPartition, i64>>,
    is_troubled: Cell<bool>,
    depth: Cell<usize>,
    pub broker_back_ms: Cell<i64>,
    pub partners_back_ms: Cell<i64>,
    violations: RefCell<Vec<String>>,
}

impl World {
    /// The world of a plan.
    pub fn new(plan: Plan, dice: SeededRng, without: Option<Safeguard>, keep: usize) -> Rc<Self> {
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
            customers: Workload::default(),
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
        let mut violations = self.looked_at();
        if violations.is_empty() && self.plan.is_forgetful() {
            self.long_after();
            violations = self.looked_at();
        }
        violations
    }

    /// What is wrong with everything that has come to rest, or why it has not.
    fn looked_at(self: &Rc<Self>) -> Vec<String> {
        let mut violations = self.violations();
        if violations.is_empty() {
            violations = audited(self);
        }
        // What stands in the log may also tell why it did not come to rest.
        violations.append(&mut checks::at_rest(self));
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
