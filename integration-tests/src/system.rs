//! The whole system as its user runs it: processes of the binary, killed and watched from outside.

mod calls;

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

pub use calls::{FAULTLESS, OUTAGE, PROVIDER_OUTAGE, order_of};

use crate::eventually::{DEADLINE, eventually};
use crate::servers::{self, Addresses, Shared};
use crate::signals;

/// What every service of a system is called, in the order in which they are started.
pub const SERVICES: [&str; 7] = [
    "sandbox",
    "query",
    "orders",
    "inventory",
    "payments",
    "shipping",
    "gateway",
];

/// Below the ports that outgoing connections take: one of those may be taken again before a process listens on it.
const PORTS: Range<u16> = 22_000..32_000;

/// A system with topics, a database, ports and a folder of its own. Dropping it kills what still runs.
pub struct System {
    _servers: Option<Shared>,
    binary: PathBuf,
    folder: PathBuf,
    environment: BTreeMap<&'static str, String>,
    /// The public port.
    pub public: SocketAddr,
    sandbox: SocketAddr,
    processes: BTreeMap<String, RunningProcess>,
    runtime: tokio::runtime::Runtime,
}

struct RunningProcess {
    child: Child,
    admin: SocketAddr,
}

impl System {
    /// A system beside those of other tests.
    pub fn new() -> Self {
        let shared = servers::shared();
        Self::make(Some(shared), &Addresses::of_environment(), None)
    }

    /// A system of a test that has the servers for itself.
    pub fn alone(_servers: &servers::Alone) -> Self {
        Self::make(None, &Addresses::of_environment(), None)
    }

    /// A system on servers that nobody else uses; its database in a tablespace, when one is named.
    pub fn on(servers: &Addresses, tablespace: Option<&str>) -> Self {
        Self::make(None, servers, tablespace)
    }

    fn make(shared: Option<Shared>, servers: &Addresses, tablespace: Option<&str>) -> Self {
        let name = format!("t{}", fastrand::u32(..));
        println!("system {name}");
        let folder = std::env::temp_dir().join(format!("ordermesh-{name}"));
        std::fs::create_dir_all(&folder).expect("a folder for the test");
        let database = make_database(&servers.database, &name, tablespace);
        let public = free_port();
        let sandbox = free_port();
        let environment = BTreeMap::from([
            ("ORDERMESH_KAFKA", servers.kafka.clone()),
            ("ORDERMESH_REGISTRY", servers.registry.clone()),
            ("ORDERMESH_DATABASE", database),
            ("ORDERMESH_PREFIX", format!("{name}.")),
            ("ORDERMESH_PUBLIC", public.to_string()),
            ("ORDERMESH_SANDBOX_LISTEN", sandbox.to_string()),
            ("ORDERMESH_SANDBOX", sandbox.to_string()),
            (
                "ORDERMESH_SANDBOX_LEDGER",
                folder.join("ledger").display().to_string(),
            ),
            ("ORDERMESH_SANDBOX_DELIVERY_MS", "50".into()),
        ]);
        let mut system = Self {
            _servers: shared,
            binary: binary(),
            folder,
            environment,
            public,
            sandbox,
            processes: BTreeMap::new(),
            runtime: tokio::runtime::Runtime::new().expect("threads"),
        };
        for (listen, peer) in [
            ("ORDERMESH_ORDERS_LISTEN", "ORDERMESH_ORDERS"),
            ("ORDERMESH_INVENTORY_LISTEN", "ORDERMESH_INVENTORY"),
            ("ORDERMESH_QUERY_LISTEN", "ORDERMESH_QUERY"),
        ] {
            let address = free_port().to_string();
            system.environment.insert(listen, address.clone());
            system.environment.insert(peer, address);
        }
        system.run(&["topics", "apply"]);
        system
    }

    /// Adds or replaces a variable of the processes started from now on.
    pub fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.environment.insert(name, value.into());
    }

    /// The value of a variable of the processes.
    pub fn variable(&self, name: &str) -> &str {
        &self.environment[name]
    }

    /// Runs a command of the binary to its end.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.try_run(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "ordermesh {} failed ({}):\n{text}\n{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    /// Runs a command of the binary to its end, whatever that is.
    pub fn try_run(&self, arguments: &[&str]) -> Output {
        self.command(arguments)
            .output()
            .expect("the binary can be run")
    }

    /// Runs a command whose output nobody reads.
    pub fn run_unread(&self, arguments: &[&str]) -> ExitStatus {
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the binary can be run");
        drop(child.stdout.take());
        child.wait().expect("it is a child")
    }

    /// A command of the binary that goes on beside the test.
    pub fn spawn(&self, name: &str, arguments: &[&str]) -> Child {
        let log = self.log(name);
        self.command(arguments)
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the binary can be run")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .envs(&self.environment)
            .stdin(Stdio::null());
        command.current_dir(&self.folder);
        command
    }

    /// A path in the test's folder.
    pub fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Starts a process that serves `service` (or `all`); it is called by that name from then on.
    pub fn start(&mut self, service: &str) {
        self.start_as(service, service, &[]);
    }

    /// Starts another process of a service under a name of its own.
    pub fn start_as(&mut self, name: &str, service: &str, variables: &[(&str, String)]) {
        let admin = free_port();
        let log = self.log(name);
        let child = self
            .command(&["serve", service])
            .env("ORDERMESH_ADMIN", admin.to_string())
            .env("ORDERMESH_INSTANCE", name)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the binary can be run");
        self.processes
            .insert(name.to_owned(), RunningProcess { child, admin });
    }

    /// Waits until a process is ready.
    ///
    /// # Panics
    ///
    /// When it ends instead, or is not ready in time.
    pub fn ready(&mut self, name: &str) {
        let deadline = Instant::now() + DEADLINE;
        let admin = self.process(name).admin;
        let mut said = String::new();
        eventually(&format!("{name} is ready"), || {
            if let Some(status) = self.process(name).child.try_wait().expect("a child") {
                panic!("{name} ended ({status}):\n{}", self.tail(name));
            }
            let (ready, body) = get(admin, "/health/ready");
            said = body;
            if !ready && Instant::now() + Duration::from_secs(1) > deadline {
                panic!("{name} is not ready: {said}\n{}", self.tail(name));
            }
            ready.then_some(())
        });
    }

    /// Starts a process and waits until it is ready.
    pub fn up(&mut self, service: &str) {
        self.start(service);
        self.ready(service);
    }

    /// Ends a process at once, without its doing.
    pub fn kill(&mut self, name: &str) {
        let mut process = self.processes.remove(name).expect("it runs");
        process.child.kill().expect("it can be killed");
        process.child.wait().expect("a child");
    }

    /// Asks a process to end and waits for it.
    pub fn terminate(&mut self, name: &str) -> ExitStatus {
        self.signal(name, "-TERM");
        self.ended(name)
    }

    /// Holds a process where it stands, as a machine that is out of memory does.
    pub fn freeze(&self, name: &str) {
        self.signal(name, signals::STOP);
    }

    /// Lets a frozen process go on.
    pub fn thaw(&self, name: &str) {
        self.signal(name, signals::CONTINUE);
    }

    fn signal(&self, name: &str, signal: &str) {
        let id = self.processes[name].child.id().to_string();
        assert!(
            signals::send(signal, &[&id]),
            "{name} had ended already:\n{}",
            self.tail(name)
        );
    }

    /// Waits for the end of a process that ends by itself.
    pub fn ended(&mut self, name: &str) -> ExitStatus {
        let mut process = self.processes.remove(name).expect("it runs");
        eventually(&format!("{name} ends"), || {
            process.child.try_wait().expect("a child")
        })
    }

    /// All processes that run, and where they tell their health and metrics.
    pub fn processes(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        let processes = self.processes.iter();
        processes.map(|(name, process)| (name.as_str(), process.admin))
    }

    /// Where a process tells its health and metrics.
    pub fn admin(&self, name: &str) -> SocketAddr {
        self.processes[name].admin
    }

    /// What a process says of itself on its admin port.
    pub fn metrics(&self, name: &str) -> String {
        get(self.processes[name].admin, "/metrics").1
    }

    /// The last lines that a process wrote.
    pub fn tail(&self, name: &str) -> String {
        let text = std::fs::read(self.folder.join(format!("{name}.log"))).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// The last line of a process that contains `words`; nothing when it has not said so.
    pub fn said(&self, name: &str, words: &str) -> String {
        let text = self.log_of(name);
        let line = text.lines().rev().find(|line| line.contains(words));
        line.unwrap_or_default().to_owned()
    }

    /// How many lines of its log have these words.
    pub fn times_said(&self, name: &str, words: &str) -> usize {
        let text = self.log_of(name);
        text.lines().filter(|line| line.contains(words)).count()
    }

    fn log_of(&self, name: &str) -> String {
        let text = std::fs::read(self.folder.join(format!("{name}.log"))).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// What a process says of its readiness.
    pub fn readiness(&self, name: &str) -> String {
        get(self.processes[name].admin, "/health/ready").1
    }

    /// Whether a process says that it is ready.
    pub fn is_ready(&self, name: &str) -> bool {
        get(self.admin(name), "/health/ready").0
    }

    fn log(&self, name: &str) -> File {
        File::options()
            .create(true)
            .append(true)
            .open(self.folder.join(format!("{name}.log")))
            .expect("a log file")
    }

    fn process(&mut self, name: &str) -> &mut RunningProcess {
        self.processes.get_mut(name).expect("it runs")
    }

    /// Holds log, read model and ledger against each other, once everything is at rest.
    pub fn check(&self, journal: Option<&str>) {
        let mut arguments = vec!["check", "--wait", "90"];
        if let Some(journal) = journal {
            arguments.extend(["--journal", journal]);
        }
        println!("{}", self.run(&arguments));
    }

    /// Holds everything that was written against everything else, once it is at rest.
    ///
    /// # Panics
    ///
    /// When something is violated, could not be checked, or is still under way.
    pub fn audit(&self, journal: &str) {
        let report = self.run(&["audit", "--journal", journal]);
        assert!(report.contains("; at rest"), "{report}");
        println!("{report}");
    }

    /// The value of a sample, such as `name{label="value"}`, on a process's admin port.
    pub fn figure(&self, name: &str, sample: &str) -> Option<f64> {
        let metrics = self.metrics(name);
        let mut lines = metrics.lines();
        lines.find_map(|line| line.strip_prefix(sample)?.trim().parse().ok())
    }

    /// A request over HTTP with curl's options; the process goes on beside the test.
    pub fn curl(&self, options: &[&str], url: &str) -> Child {
        Command::new("curl")
            .args(["-s", "-N", "-m", "60"])
            .args(options)
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("curl can be run")
    }
}

impl Default for System {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        for process in self.processes.values_mut() {
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
        if std::thread::panicking() {
            let names: Vec<_> = self.processes.keys().cloned().collect();
            for name in names {
                println!("--- {name}\n{}", self.tail(&name));
            }
        } else {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// Status and body of an HTTP request; `false` and nothing when nobody answers.
fn get(address: SocketAddr, path: &str) -> (bool, String) {
    let url = format!("http://{address}{path}");
    let output = Command::new("curl")
        .args(["-s", "-m", "5", "-w", "\n%{http_code}", &url])
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    let (body, code) = text.rsplit_once('\n').unwrap_or_default();
    (code == "200", body.to_owned())
}

/// A port that nobody listens on now, and that this process gives out once.
///
/// # Panics
///
/// When all are taken.
pub fn free_port() -> SocketAddr {
    static TURN: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(fastrand::u16(..)));
    let mut candidates = PORTS.map(|_| {
        let turn = TURN.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + turn % (PORTS.end - PORTS.start);
        SocketAddr::from(([127, 0, 0, 1], port))
    });
    candidates
        .find(|address| TcpListener::bind(address).is_ok())
        .expect("some port is free")
}

/// The binary that was built beside this test.
///
/// # Panics
///
/// When it was not.
pub fn binary() -> PathBuf {
    let this = std::env::current_exe().expect("this program has a path");
    // target/PROFILE/deps/TEST, or target/PROFILE/PROGRAM.
    let mut folders = this.ancestors().skip(1).take(2);
    let binary = folders.find_map(|folder| {
        let binary = folder.join("ordermesh");
        binary.exists().then_some(binary)
    });
    binary.unwrap_or_else(|| {
        panic!(
            "ordermesh is missing beside {}: run `cargo build -p ordermesh`",
            this.display()
        )
    })
}

fn make_database(server: &str, name: &str, tablespace: Option<&str>) -> String {
    let place = tablespace.map_or_else(String::new, |place| format!(" TABLESPACE {place}"));
    let made = Command::new("psql")
        .args([
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            &format!("CREATE DATABASE {name}{place}"),
            server,
        ])
        .status()
        .expect("psql can be run");
    assert!(made.success(), "database {name} could not be made");
    let (head, _) = server.rsplit_once('/').expect("the URL names a database");
    format!("{head}/{name}")
}
