//! The run of one seed.

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

use crate::audit_run::audit_violations;
use crate::checks;
use crate::partners::Partners;
use crate::plan::Plan;
use crate::process::ProcessContext;
use crate::projectors::Projectors;
use crate::rng::SeededRng;
use crate::safeguard::Safeguard;
use crate::workload::Workload;

pub use slots::Slot;

/// Instance names of a service's processes.
pub const INSTANCES: [&str; 5] = ["a", "b", "c", "d", "e"];
/// Time to come to rest after the last fault, milliseconds.
const REST_TIMEOUT_MS: i64 = 20 * 60_000;

/// The state of a run.
pub struct Simulation {
    pub plan: Plan,
    pub rng: SeededRng,
    pub clock: Clock,
    pub journal: Journal,
    pub broker: Broker,
    pub process_context: ProcessContext,
    pub partners: Partners,
    pub workload: Workload,
    pub projectors: Projectors,
    pub slots: RefCell<Vec<Slot>>,
    /// Partitions whose leader delays markers, and until when (Unix milliseconds).
    pub slow_leaders: RefCell<BTreeMap<TopicPartition, i64>>,
    faults_enabled: Cell<bool>,
    /// Number of nested pauses.
    pause_depth: Cell<usize>,
    /// When the broker becomes available again.
    pub broker_recovers_ms: Cell<i64>,
    /// When the partners become available again; 0 while they are available.
    pub partners_recover_ms: Cell<i64>,
    violations: RefCell<Vec<String>>,
}

impl Simulation {
    /// A run of a plan; its journal keeps the last `max_lines` lines.
    pub fn new(
        plan: Plan,
        rng: SeededRng,
        disabled_safeguard: Option<Safeguard>,
        max_lines: usize,
    ) -> Rc<Self> {
        let clock = Clock::default();
        let journal = Journal::new(clock.clone(), max_lines);
        let broker = Broker::new(clock.clone(), journal.clone(), plan.partitions);
        let registry = prometheus::Registry::new();
        let process_context = ProcessContext {
            broker: broker.clone(),
            rng: rng.clone(),
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
                disabled: None,
            },
            unknown_send_ppm: plan.unknown_send_ppm,
            disabled_safeguard,
            violations: Arc::default(),
        };
        let partners = Partners::new(plan.behaviour, &clock);
        let mut slots = Vec::new();
        for service in Service::ALL {
            for instance in &INSTANCES[..plan.instances] {
                slots.push(Slot::new(service, instance));
            }
        }
        Rc::new(Self {
            plan,
            rng,
            clock,
            journal,
            broker,
            process_context,
            partners,
            workload: Workload::default(),
            projectors: Projectors::new(schemas(), disabled_safeguard),
            slots: RefCell::new(slots),
            slow_leaders: RefCell::default(),
            faults_enabled: Cell::new(true),
            pause_depth: Cell::new(0),
            broker_recovers_ms: Cell::new(0),
            partners_recover_ms: Cell::new(0),
            violations: RefCell::default(),
        })
    }

    /// Runs the plan with faults, lets the platform come to rest, and returns all violations.
    pub fn run(self: &Rc<Self>) -> Vec<String> {
        self.workload.add_initial_stock(self);
        for _ in 0..self.plan.actions {
            self.random_action();
            if !self.violations.borrow().is_empty() {
                break;
            }
        }
        self.faults_enabled.set(false);
        if self.violations.borrow().is_empty() {
            self.run_to_rest();
        }
        let mut violations = self.collect_violations();
        if violations.is_empty() && self.plan.has_short_horizon() {
            self.repeat_after_eviction();
            violations = self.collect_violations();
        }
        violations
    }

    /// Violations of the run, else of the audit, and those of the log checks.
    fn collect_violations(self: &Rc<Self>) -> Vec<String> {
        let mut violations = self.take_violations();
        if violations.is_empty() {
            violations = audit_violations(self);
        }
        // The content of the log may also show why the platform did not come to rest.
        violations.append(&mut checks::violations(self));
        violations
    }

    /// Violations that were found during the run.
    fn take_violations(&self) -> Vec<String> {
        let mut violations = std::mem::take(&mut *self.violations.borrow_mut());
        violations.append(&mut self.process_context.violations.lock());
        violations
    }

    /// Whether faults are still injected.
    pub fn faults_enabled(&self) -> bool {
        self.faults_enabled.get()
    }

    /// The rule book of orders, with the settings of this run.
    pub fn order_rules(&self) -> OrderRules {
        OrderRules {
            horizon_ms: self.horizon_ms(),
            stock_wait_ms: 40_000,
            payment_wait_ms: 40_000,
            shipping_wait_ms: 60_000,
            delivery_wait_ms: 60_000,
        }
    }

    /// The rule book of stock items.
    pub fn stock_rules(&self) -> StockRules {
        StockRules {
            horizon_ms: self.horizon_ms(),
        }
    }

    /// The rule book of payments.
    pub fn payment_rules(&self) -> PaymentRules {
        PaymentRules {
            refund_wait_ms: 500,
        }
    }

    fn horizon_ms(&self) -> i64 {
        i64::try_from(self.plan.horizon.as_millis()).unwrap_or(i64::MAX)
    }

    /// Ends all faults, and runs until the platform has come to rest.
    fn run_to_rest(self: &Rc<Self>) {
        self.journal.note(format_args!("all faults have ended"));
        let now_ms = self.clock.unix_ms();
        self.broker.set_unavailable(false);
        self.slow_leaders.borrow_mut().clear();
        self.partners_recover_ms.set(0);
        self.partners.sandbox.set_behaviour(Behaviour {
            provider: None,
            carrier: None,
            refund_refuse_percent: 0,
            ..self.plan.behaviour
        });
        for slot in self.slots.borrow_mut().iter_mut() {
            slot.frozen_until_ms = 0;
            slot.restart_ms = slot.restart_ms.map(|_| now_ms);
        }
        let mut next_check_ms = now_ms;
        while self.clock.unix_ms() < now_ms + REST_TIMEOUT_MS {
            let now = self.clock.elapsed();
            let runnable = self.slots_where(|slot| match &slot.probe {
                Some(probe) => probe.waits_until.get() <= now,
                None => slot
                    .restart_ms
                    .is_some_and(|at_ms| at_ms <= self.clock.unix_ms()),
            });
            for index in runnable {
                self.step(index);
            }
            for index in self.slots_where(|slot| slot.process.is_some()) {
                self.run_effects(index);
            }
            self.partners.run_due_work();
            self.perform_broker_action();
            self.restart_services();
            self.projectors.step(self);
            if !self.violations.borrow().is_empty() {
                return;
            }
            if self.clock.unix_ms() >= next_check_ms {
                next_check_ms = self.clock.unix_ms() + 1_000;
                let is_processed = self.is_log_processed() && self.projectors.has_applied_all(self);
                if is_processed && checks::unfinished(self).is_empty() {
                    self.journal.note(format_args!("the platform is at rest"));
                    return;
                }
            }
            self.advance(self.rng.between(5, 100));
        }
        let mut unfinished = checks::unfinished(self);
        unfinished.truncate(5);
        let violation = format!(
            "not at rest within the timeout: processed {}, unfinished {unfinished:?}",
            self.is_log_processed()
        );
        self.violations.borrow_mut().push(violation);
    }

    /// Repeats all requests of customers after every aggregate has been evicted.
    fn repeat_after_eviction(self: &Rc<Self>) {
        self.journal
            .note(format_args!("all requests are repeated after eviction"));
        let retention = self.plan.horizon + self.plan.slack;
        // Eviction follows the times of records: the first repetition advances them, the second one finds the
        // aggregates evicted.
        for _ in 0..2 {
            self.advance(i64::try_from(retention.as_millis()).unwrap_or(0));
            self.workload.repeat_all(self);
            self.run_to_rest();
        }
    }

    /// Restarts a process of every service that has none, as a process supervisor does.
    fn restart_services(&self) {
        let now_ms = self.clock.unix_ms();
        for service in Service::ALL {
            let alive = self.slots_where(|slot| {
                slot.service == service && (slot.probe.is_some() || slot.restart_ms.is_some())
            });
            if alive.is_empty() {
                let first = self.slots_where(|slot| slot.service == service)[0];
                self.slots.borrow_mut()[first].restart_ms = Some(now_ms);
            }
        }
    }

    /// Whether every command is processed, and no transaction is open or has pending markers.
    fn is_log_processed(&self) -> bool {
        let is_complete = |service, partition| {
            let commands = self
                .broker
                .stable_end((service, Topic::Commands, partition));
            let is_read =
                commands == 0 || self.broker.committed(service, partition) == Some(commands);
            is_read
                && Topic::ALL.into_iter().all(|topic| {
                    let tp = (service, topic, partition);
                    self.broker.stable_end(tp) == self.broker.ends(tp).high
                })
        };
        let partitions = 0..Partition::from(self.plan.partitions);
        self.broker.pending_actions().is_empty()
            && Service::ALL.into_iter().all(|service| {
                let mut partitions = partitions.clone();
                partitions.all(|partition| is_complete(service, partition))
            })
    }
}

/// Schema ids: one for each topic that has a schema.
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
