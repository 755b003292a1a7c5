//! Faults on real processes: a whole system under load, on a stack of its own with proxies in between. Something breaks,
//! is repaired, and afterwards everything that was written is held against everything else.

pub mod faults;
pub mod load;
mod progress;
pub mod proxy;
pub mod stack;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use contracts::Service;
use contracts::orders::v1::OrderStatus;

use self::load::{Load, Mix};
use self::progress::Offsets;
use self::proxy::{Caught, Protocol, Proxy, Step};
pub use self::stack::KAFKA_CLIENTS;
use self::stack::Stack;
use crate::eventually::{eventually, within};
use crate::system::{System, free_port};

/// Services of which two processes run.
pub const REPLICATED: [&str; 6] = [
    "query",
    "orders",
    "inventory",
    "payments",
    "shipping",
    "gateway",
];
/// The services that process commands.
pub const PROCESSORS: [&str; 4] = ["orders", "inventory", "payments", "shipping"];
/// Partitions of every topic.
const PARTITIONS: u32 = 4;
/// A broker that is well has answered a look by then.
const PROMPT: Duration = Duration::from_millis(500);
/// Longest way back to rest: breakers and back-offs are over by then.
const REST: Duration = Duration::from_secs(180);

/// How much of a fault there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// As much as a test has time for.
    Short,
    /// As much as one of several faults in a row is given.
    Long,
    /// All there is of one fault.
    Whole,
}

impl Scale {
    /// One or the other; what has no more than a long form has it as a whole.
    pub fn of<T>(self, short: T, long: T) -> T {
        match self {
            Self::Short => short,
            Self::Long | Self::Whole => long,
        }
    }

    /// So many seconds.
    pub fn seconds(self, short: u64, long: u64) -> Duration {
        Duration::from_secs(self.of(short, long))
    }
}

/// How long it took until everything went on.
#[derive(Clone, Copy, Debug)]
pub struct Recovery {
    /// All in all.
    pub took: Duration,
    /// Of it: the broker did not answer those who came to it without a proxy.
    pub silence: Duration,
}

/// A system under load, and everything that can happen to it.
pub struct ChaosRig {
    /// How much of each fault there is.
    pub form: Scale,
    /// What is random in the faults.
    pub random: fastrand::Rng,
    /// Clients at work.
    pub load: Load,
    /// Its processes.
    pub system: System,
    /// Between the gateways and orders, by process.
    pub to_orders: BTreeMap<String, Proxy>,
    /// Between those who have effects and the sandbox.
    pub to_sandbox: Proxy,
    /// What it stands on.
    pub stack: Arc<Stack>,
    offsets: Offsets,
    replicas: BTreeMap<String, Replica>,
    journal: String,
    recoveries: RefCell<Vec<Duration>>,
    // After the system: whoever comes next needs the machine.
    _turn: MutexGuard<'static, ()>,
}

/// How a process is started.
struct Replica {
    service: &'static str,
    variables: Vec<(&'static str, String)>,
}

/// What is laid down before the first process starts.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Draws everything that is random.
    pub seed: u64,
    /// How much of each fault there is.
    pub form: Scale,
    /// What clients do.
    pub mix: Mix,
    /// Orders begun each second.
    pub rate: u32,
    /// Orders in all; as many as there is time for when `None`.
    pub orders: Option<u64>,
    /// Of a hundred charges, declined.
    pub declined_percent: u8,
}

impl ChaosRig {
    /// Starts everything, and the load.
    ///
    /// # Panics
    ///
    /// When something does not start.
    pub fn new(plan: Plan) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let stack = Stack::shared(plan.seed, plan.form);
        // One at a time: each needs the whole machine, and stops parts that all stand on.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        println!("seed {}", plan.seed);
        stack.heal();
        let tablespace = stack.tablespace();
        let mut system = System::on(&stack.direct, tablespace);
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
            system.ready(name);
        }
        let journal = system.path("journal");
        let load = Load::begin(&system, &gateways, &journal, &plan);
        let ground = Self {
            form: plan.form,
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
        ground.load.goes_on(20);
        ground
    }

    /// Every process.
    pub fn names(&self) -> Vec<String> {
        self.replicas.keys().cloned().collect()
    }

    /// Those that process commands.
    pub fn processors(&self) -> Vec<String> {
        let mut names = self.names();
        names.retain(|name| PROCESSORS.contains(&self.service_of(name)));
        names
    }

    /// What a process serves.
    pub fn service_of(&self, name: &str) -> &'static str {
        self.replicas[name].service
    }

    /// One of a service's two processes.
    pub fn one_of(&mut self, service: &str) -> String {
        format!("{service}-{}", self.random.u8(1..=2))
    }

    /// The other one.
    pub fn other(&self, name: &str) -> String {
        let (service, number) = name.rsplit_once('-').expect("it is one of two");
        format!("{service}-{}", if number == "1" { 2 } else { 1 })
    }

    /// Starts a process as it was before.
    pub fn start(&mut self, name: &str) {
        let replica = &self.replicas[name];
        self.system
            .start_as(name, replica.service, &replica.variables);
    }

    /// Starts one more process of a service, beside the two.
    pub fn start_more(
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

    /// A counter or a gauge of a service, summed over its labels, on one process; 0 when it is not there.
    pub fn figure(&self, name: &str, sample: &str) -> f64 {
        let metrics = self.system.metrics(name);
        let lines = metrics.lines().filter(|line| line.starts_with(sample));
        lines
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }

    /// The same over several processes.
    pub fn sum(&self, names: &[String], sample: &str) -> f64 {
        names.iter().map(|name| self.figure(name, sample)).sum()
    }

    /// Partitions that a process works on.
    pub fn partitions(&self, name: &str) -> u32 {
        let service = name.split('-').next().unwrap_or_default();
        let sample = format!("ordermesh_engine_partitions{{service=\"{service}\"}}");
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let partitions = self.figure(name, &sample) as u32;
        partitions
    }

    /// Waits until the partitions of a service are spread like this.
    pub fn spread(&self, names: &[&str], partitions: &[u32]) {
        eventually(&format!("{names:?} have {partitions:?} partitions"), || {
            let shares: Vec<_> = names.iter().map(|name| self.partitions(name)).collect();
            (shares == partitions).then_some(())
        });
    }

    /// Holds a processor's next transaction where its records and offsets are with the broker, and its end is not.
    pub fn ends_transaction(&self, name: &str) -> Caught {
        let service = self.service_of(name);
        let proxy = &self.stack.kafka[service];
        let member = format!(
            "{}{service}.{name}",
            self.system.variable("ORDERMESH_PREFIX")
        );
        proxy.catch(Step::EndsTransaction(member)).seen()
    }

    /// How long a fault lasts; nothing is waited for.
    #[allow(
        clippy::disallowed_methods,
        reason = "the length of a fault is part of it"
    )]
    pub fn lasts(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    /// Waits until every partition of a service has been worked on anew, and says how long that took; and how much of
    /// it the broker itself, asked without a proxy, let pass without an answer.
    pub fn progress(&self, what: &str, service: &str) -> Recovery {
        let began = Instant::now();
        let services: Vec<_> = Service::ALL
            .into_iter()
            .filter(|known| !PROCESSORS.contains(&service) || known.name() == service)
            .collect();
        let before = self.offsets.committed(&services);
        let positions = self.positions();
        let mut silence = Duration::ZERO;
        within(
            REST,
            &format!("progress of {service} after: {what}"),
            || {
                let asked = Instant::now();
                let now = self.offsets.committed(&services);
                silence += asked.elapsed().saturating_sub(PROMPT);
                let worked = before.iter().zip(&now).all(|(before, now)| now > before);
                let projected = service != "query" || {
                    let now = self.positions();
                    positions
                        .iter()
                        .all(|(source, before)| now.get(source) > Some(before))
                };
                (worked && projected).then_some(())
            },
        );
        let took = began.elapsed();
        println!("recovery: {what}: next progress of every partition after {took:.1?}");
        if !silence.is_zero() {
            println!("          for {silence:.1?} of it the broker itself did not answer");
        }
        self.recoveries.borrow_mut().push(took);
        Recovery { took, silence }
    }

    /// How long it took until everything went on, since this was asked last.
    pub fn recovered(&self) -> String {
        let mut recoveries = self.recoveries.take();
        recoveries.sort_unstable();
        match (recoveries.first(), recoveries.last()) {
            (Some(least), Some(most)) => format!("next progress after {least:.1?} to {most:.1?}"),
            _ => "nothing was measured".to_owned(),
        }
    }

    /// Offsets that a group has not processed.
    pub fn backlog(&self, service: Service) -> i64 {
        self.offsets.backlog(service)
    }

    /// Offsets of a service's events.
    #[allow(clippy::cast_precision_loss)]
    pub fn events(&self, service: Service) -> f64 {
        self.offsets.events(service) as f64
    }

    /// How far each partition of the events is in the read model; nothing while the database is away.
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

    /// Rows of the read model, their columns separated by `|`; none when the database does not answer.
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

    /// Ends the load, waits until nothing lies behind and nothing is under way, and audits all that was written.
    ///
    /// # Panics
    ///
    /// When there is no rest, or the audit finds something.
    pub fn rest(&mut self) {
        self.load.drain();
        let began = Instant::now();
        let open = format!(
            "SELECT count(*) FROM read_v1.orders WHERE status NOT IN ({}, {}, {})",
            OrderStatus::Delivered as i32,
            OrderStatus::Cancelled as i32,
            OrderStatus::Rejected as i32
        );
        let mut left = String::new();
        within(REST, "every order is final, and no lag is left", || {
            left = self.query(&open).join(" ");
            let behind = self.offsets.behind(&self.positions());
            (left == "0" && behind.is_empty()).then_some(())
        });
        let rested = began.elapsed();
        self.system.audit(&self.journal);
        println!(
            "{}; at rest after {rested:.1?}; audited in {:.1?}",
            self.load.summary(),
            began.elapsed().saturating_sub(rested)
        );
    }
}

impl Stack {
    /// The tablespace on the small disk.
    fn tablespace(&self) -> Option<&'static str> {
        const NAME: &str = "small";
        let disk = self.disk.as_ref()?;
        let folder = disk.join("data");
        let url = self
            .direct
            .database
            .replace("://ordermesh@", "://postgres@");
        let made = Command::new("psql")
            .args(["-q", "-X", "-A", "-t", "-c"])
            .arg(format!(
                "SELECT spcname FROM pg_tablespace WHERE spcname = '{NAME}'"
            ))
            .arg(&url)
            .output()
            .expect("psql can be run");
        if String::from_utf8_lossy(&made.stdout).trim() == NAME {
            return Some(NAME);
        }
        std::fs::create_dir_all(&folder).ok()?;
        let owned = Command::new("chown").arg("postgres:").arg(&folder).status();
        let sql = format!(
            "CREATE TABLESPACE {NAME} OWNER ordermesh LOCATION '{}'",
            folder.display()
        );
        let made = Command::new("psql")
            .args(["-q", "-X", "-v", "ON_ERROR_STOP=1", "-c", &sql])
            .arg(&url)
            .status();
        (owned.is_ok_and(|status| status.success()) && made.is_ok_and(|status| status.success()))
            .then_some(NAME)
    }
}

fn sandbox_proxy(stack: &Stack, system: &System, seed: u64) -> Proxy {
    let upstream = system.variable("ORDERMESH_SANDBOX").parse();
    let upstream = upstream.expect("the sandbox has an address");
    Proxy::start(
        stack.runtime.handle(),
        free_port(),
        upstream,
        Protocol::Bytes,
        seed,
    )
}

/// Who listens where, and comes to whom by which way.
struct Layout<'a> {
    stack: &'a Stack,
    seed: u64,
    to_orders: BTreeMap<String, Proxy>,
    to_sandbox: &'a Proxy,
    gateways: [SocketAddr; 2],
}

impl Layout<'_> {
    fn replicas(&mut self, system: &mut System) -> BTreeMap<String, Replica> {
        let pair = || [free_port(), free_port()];
        let (orders, inventory, query) = (pair(), pair(), pair());
        for (number, address) in (1..).zip(orders) {
            let runtime = self.stack.runtime.handle();
            let proxy = Proxy::start(runtime, free_port(), address, Protocol::Bytes, self.seed);
            self.to_orders.insert(format!("orders-{number}"), proxy);
        }
        let joined = |addresses: &mut dyn Iterator<Item = SocketAddr>| {
            let addresses: Vec<_> = addresses.map(|address| address.to_string()).collect();
            addresses.join(",")
        };
        let by_proxy = &mut self.to_orders.values().map(|proxy| proxy.address);
        system.set("ORDERMESH_ORDERS", joined(by_proxy));
        system.set("ORDERMESH_INVENTORY", joined(&mut inventory.into_iter()));
        system.set("ORDERMESH_QUERY", joined(&mut query.into_iter()));
        let mut replicas = BTreeMap::new();
        for service in REPLICATED {
            for index in 0..2 {
                let mut variables = Vec::new();
                match service {
                    "orders" => {
                        variables.push(("ORDERMESH_ORDERS_LISTEN", orders[index].to_string()))
                    }
                    "inventory" => {
                        variables
                            .push(("ORDERMESH_INVENTORY_LISTEN", inventory[index].to_string()));
                    }
                    "query" => {
                        variables.push(("ORDERMESH_QUERY_LISTEN", query[index].to_string()));
                        let url = system.variable("ORDERMESH_DATABASE");
                        variables.push(("ORDERMESH_DATABASE", self.stack.proxied_database(url)));
                    }
                    "gateway" => {
                        variables.push(("ORDERMESH_PUBLIC", self.gateways[index].to_string()))
                    }
                    _ => {
                        let sandbox = self.to_sandbox.address.to_string();
                        variables.push(("ORDERMESH_SANDBOX", sandbox));
                    }
                }
                if let Some(proxy) = self.stack.kafka.get(service) {
                    variables.push(("ORDERMESH_KAFKA", proxy.address.to_string()));
                }
                let replica = Replica { service, variables };
                replicas.insert(format!("{service}-{}", index + 1), replica);
            }
        }
        let sandbox = Replica {
            service: "sandbox",
            variables: Vec::new(),
        };
        replicas.insert("sandbox".to_owned(), sandbox);
        replicas
    }
}
