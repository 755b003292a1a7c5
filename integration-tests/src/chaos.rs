//! Faults on real processes: a whole system under load, on a stack of its own with proxies in between. A fault is
//! injected and repaired; afterwards an audit checks everything that was written.

pub mod faults;
mod layout;
pub mod load;
mod progress;
pub mod proxy;
pub mod stack;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use contracts::Service;
use contracts::orders::v1::OrderStatus;
use parking_lot::{Mutex, MutexGuard};

use self::layout::{Layout, sandbox_proxy};
use self::load::{Load, WorkloadMix};
use self::progress::Offsets;
use self::proxy::{InterceptedMessage, Proxy, Step};
pub use self::stack::KAFKA_CLIENTS;
use self::stack::Stack;
use crate::eventually::{eventually, within};
use crate::system::{System, free_port};

/// Services that run as two processes.
pub const REPLICATED: [&str; 6] = [
    "query",
    "orders",
    "inventory",
    "payments",
    "shipping",
    "gateway",
];
/// Services that process commands.
pub const PROCESSORS: [&str; 4] = ["orders", "inventory", "payments", "shipping"];
/// Partitions of every topic.
const PARTITIONS: u32 = 4;
/// A healthy broker answers a lookup within this time.
const PROMPT_ANSWER: Duration = Duration::from_millis(500);
/// Upper limit of the time until nothing is in flight; breakers and back-offs have ended by then.
const QUIESCENCE_DEADLINE: Duration = Duration::from_secs(180);

/// How extensive a fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Short enough for a test run.
    Short,
    /// For one of several consecutive faults.
    Long,
    /// Every variant of a single fault.
    Full,
}

impl Scale {
    /// Selects a value. The full scale uses the long one.
    pub fn select<T>(self, short: T, long: T) -> T {
        match self {
            Self::Short => short,
            Self::Long | Self::Full => long,
        }
    }

    /// Selects a duration in seconds.
    pub fn seconds(self, short: u64, long: u64) -> Duration {
        Duration::from_secs(self.select(short, long))
    }
}

/// Duration of a recovery.
#[derive(Clone, Copy, Debug)]
pub struct Recovery {
    /// Time until every partition made progress.
    pub elapsed: Duration,
    /// Time in which the broker did not answer a client without a proxy; included in `elapsed`.
    pub unresponsive: Duration,
}

/// A system under load, with everything needed to inject faults.
pub struct ChaosRig {
    /// How extensive each fault is.
    pub scale: Scale,
    /// Randomness of the faults.
    pub random: fastrand::Rng,
    /// The running load.
    pub load: Load,
    /// The processes.
    pub system: System,
    /// Proxies between the gateways and the orders processes, by process.
    pub to_orders: BTreeMap<String, Proxy>,
    /// Proxy between payments, shipping and the sandbox.
    pub to_sandbox: Proxy,
    /// The servers and their proxies.
    pub stack: Arc<Stack>,
    offsets: Offsets,
    replicas: BTreeMap<String, Replica>,
    journal: String,
    recoveries: RefCell<Vec<Duration>>,
    // Released after the system has stopped: the next rig needs the whole machine.
    _turn: MutexGuard<'static, ()>,
}

/// How a process is started.
struct Replica {
    service: &'static str,
    variables: Vec<(&'static str, String)>,
}

/// Parameters of a run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Determines everything that is random.
    pub seed: u64,
    /// How extensive each fault is.
    pub scale: Scale,
    /// What the clients do.
    pub mix: WorkloadMix,
    /// Orders per second.
    pub rate: u32,
    /// Number of orders; unlimited when `None`.
    pub orders: Option<u64>,
    /// Percentage of charges that are declined.
    pub declined_percent: u8,
}

impl ChaosRig {
    /// Starts the processes and the load.
    ///
    /// # Panics
    ///
    /// When a process does not start.
    pub fn new(plan: Plan) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let stack = Stack::shared(plan.seed, plan.scale);
        // One rig at a time: each needs the whole machine and stops shared parts.
        let turn = TURN.lock();
        println!("seed {}", plan.seed);
        stack.heal();
        let tablespace = stack.tablespace();
        let mut system = System::on_servers(&stack.direct, tablespace);
        system.set(
            "ORDERMESH_SANDBOX_DECLINE_PERCENT",
            plan.declined_percent.to_string(),
        );
        let gateways = [system.public, free_port()];
        let (to_orders, to_sandbox) = (BTreeMap::new(), sandbox_proxy(&stack, &system, plan.seed));
        let mut layout = Layout {
            stack: &stack,
            seed: plan.seed,
            to_orders,
            to_sandbox: &to_sandbox,
            gateways,
        };
        let replicas = layout.replicas(&mut system);
        let to_orders = layout.to_orders;
        for (name, replica) in &replicas {
            system.start_as(name, replica.service, &replica.variables);
        }
        for name in replicas.keys() {
            system.wait_until_ready(name);
        }
        let journal = system.path("journal");
        let load = Load::start(&system, &gateways, &journal, &plan);
        let rig = Self {
            scale: plan.scale,
            random: fastrand::Rng::with_seed(plan.seed),
            offsets: Offsets::new(&stack.direct.kafka, system.variable("ORDERMESH_PREFIX")),
            load,
            system,
            to_orders,
            to_sandbox,
            stack,
            replicas,
            journal,
            recoveries: RefCell::default(),
            _turn: turn,
        };
        rig.load.wait_for_orders(20);
        rig
    }

    /// Names of all processes.
    pub fn names(&self) -> Vec<String> {
        self.replicas.keys().cloned().collect()
    }

    /// Names of the processes that process commands.
    pub fn processors(&self) -> Vec<String> {
        let mut names = self.names();
        names.retain(|name| PROCESSORS.contains(&self.service_of(name)));
        names
    }

    /// The service of a process.
    pub fn service_of(&self, name: &str) -> &'static str {
        self.replicas[name].service
    }

    /// A random one of a service's two processes.
    pub fn random_replica(&mut self, service: &str) -> String {
        format!("{service}-{}", self.random.u8(1..=2))
    }

    /// The other process of the same service.
    pub fn other_replica(&self, name: &str) -> String {
        let (service, number) = name.rsplit_once('-').expect("it is one of two");
        format!("{service}-{}", if number == "1" { 2 } else { 1 })
    }

    /// Starts a process with the same settings as before.
    pub fn start(&mut self, name: &str) {
        let replica = &self.replicas[name];
        self.system
            .start_as(name, replica.service, &replica.variables);
    }

    /// Starts an additional process of a service.
    pub fn start_extra(
        &mut self,
        name: &str,
        service: &'static str,
        more: &[(&'static str, String)],
    ) {
        let like = &self.replicas[&format!("{service}-1")];
        let mut variables: Vec<_> = like
            .variables
            .iter()
            .filter(|(name, _)| !name.ends_with("_LISTEN"))
            .cloned()
            .collect();
        for listen in [
            "ORDERMESH_ORDERS_LISTEN",
            "ORDERMESH_INVENTORY_LISTEN",
            "ORDERMESH_QUERY_LISTEN",
        ] {
            variables.push((listen, "127.0.0.1:0".to_owned()));
        }
        variables.extend_from_slice(more);
        self.system.start_as(name, service, &variables);
    }

    /// Sum of a counter or gauge of one process over its labels; 0 when it is missing.
    pub fn metric(&self, name: &str, sample: &str) -> f64 {
        let metrics = self.system.metrics(name);
        let lines = metrics.lines().filter(|line| line.starts_with(sample));
        lines
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }

    /// Like [`ChaosRig::metric`], summed over several processes.
    pub fn sum(&self, names: &[String], sample: &str) -> f64 {
        names.iter().map(|name| self.metric(name, sample)).sum()
    }

    /// Number of partitions that a process owns.
    pub fn partitions(&self, name: &str) -> u32 {
        let service = name.split('-').next().unwrap_or_default();
        let sample = format!("ordermesh_engine_partitions{{service=\"{service}\"}}");
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let partitions = self.metric(name, &sample) as u32;
        partitions
    }

    /// Waits until these processes own these numbers of partitions.
    pub fn wait_for_assignment(&self, names: &[&str], partitions: &[u32]) {
        eventually(&format!("{names:?} have {partitions:?} partitions"), || {
            let shares: Vec<_> = names.iter().map(|name| self.partitions(name)).collect();
            (shares == partitions).then_some(())
        });
    }

    /// Holds a processor's next transaction at the point where the broker has its records and offsets, but not its end.
    pub fn intercept_transaction_end(&self, name: &str) -> InterceptedMessage {
        let service = self.service_of(name);
        let proxy = &self.stack.kafka[service];
        let member = format!(
            "{}{service}.{name}",
            self.system.variable("ORDERMESH_PREFIX")
        );
        proxy.intercept(Step::EndTransaction(member)).wait()
    }

    /// Sleeps for the duration of a fault.
    #[allow(
        clippy::disallowed_methods,
        reason = "the length of a fault is part of it"
    )]
    pub fn hold_fault(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    /// Waits until every partition of a service has made progress. Returns how long that took, and for how long the
    /// broker itself, asked without a proxy, did not answer.
    pub fn wait_for_progress(&self, what: &str, service: &str) -> Recovery {
        let began = Instant::now();
        let services: Vec<_> = Service::ALL
            .into_iter()
            .filter(|known| !PROCESSORS.contains(&service) || known.name() == service)
            .collect();
        let before = self.offsets.committed(&services);
        let positions = self.positions();
        let mut unresponsive = Duration::ZERO;
        within(
            QUIESCENCE_DEADLINE,
            &format!("progress of {service} after: {what}"),
            || {
                let asked = Instant::now();
                let now = self.offsets.committed(&services);
                unresponsive += asked.elapsed().saturating_sub(PROMPT_ANSWER);
                let processed = before.iter().zip(&now).all(|(before, now)| now > before);
                let projected = service != "query" || {
                    let now = self.positions();
                    positions
                        .iter()
                        .all(|(source, before)| now.get(source) > Some(before))
                };
                (processed && projected).then_some(())
            },
        );
        let elapsed = began.elapsed();
        println!("recovery: {what}: next progress of every partition after {elapsed:.1?}");
        if !unresponsive.is_zero() {
            println!("          for {unresponsive:.1?} of it the broker itself did not answer");
        }
        self.recoveries.borrow_mut().push(elapsed);
        Recovery {
            elapsed,
            unresponsive,
        }
    }

    /// Range of the recovery times since the last call of this method.
    pub fn recovery_summary(&self) -> String {
        let mut recoveries = self.recoveries.take();
        recoveries.sort_unstable();
        match (recoveries.first(), recoveries.last()) {
            (Some(least), Some(most)) => format!("next progress after {least:.1?} to {most:.1?}"),
            _ => "nothing was measured".to_owned(),
        }
    }

    /// Number of offsets that a group has not processed.
    pub fn backlog(&self, service: Service) -> i64 {
        self.offsets.backlog(service)
    }

    /// Number of offsets of a service's events.
    #[allow(clippy::cast_precision_loss)]
    pub fn events(&self, service: Service) -> f64 {
        self.offsets.events(service) as f64
    }

    /// Position of the read model in each partition of the events; empty while the database is away.
    fn positions(&self) -> BTreeMap<String, i64> {
        let rows =
            self.query("SELECT topic || ' ' || partition, next_offset FROM read_v1.positions");
        rows.iter()
            .filter_map(|row| {
                let (source, offset) = row.split_once('|')?;
                Some((source.to_owned(), offset.parse().ok()?))
            })
            .collect()
    }

    /// Rows of the read model, their columns separated by `|`; empty when the database does not answer.
    pub fn query(&self, sql: &str) -> Vec<String> {
        let output = Command::new("psql")
            .args(["-q", "-X", "-A", "-t", "-c", sql])
            .arg(self.system.variable("ORDERMESH_DATABASE"))
            .env("PGCONNECT_TIMEOUT", "5")
            .output()
            .expect("psql can be run");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().map(str::to_owned).collect()
    }

    /// Stops the load, waits until no lag is left and every order is final, and audits everything that was written.
    ///
    /// # Panics
    ///
    /// When orders or lag remain, or the audit finds a violation.
    pub fn drain_and_audit(&mut self) {
        self.load.drain();
        let began = Instant::now();
        let open = format!(
            "SELECT count(*) FROM read_v1.orders WHERE status NOT IN ({}, {}, {})",
            OrderStatus::Delivered as i32,
            OrderStatus::Cancelled as i32,
            OrderStatus::Rejected as i32
        );
        let mut left = String::new();
        within(
            QUIESCENCE_DEADLINE,
            "every order is final, and no lag is left",
            || {
                left = self.query(&open).join(" ");
                let lagging = self.offsets.lagging(&self.positions());
                (left == "0" && lagging.is_empty()).then_some(())
            },
        );
        let rested = began.elapsed();
        self.system.audit(&self.journal);
        println!(
            "{}; at rest after {rested:.1?}; audited in {:.1?}",
            self.load.summary(),
            began.elapsed().saturating_sub(rested)
        );
    }
}
