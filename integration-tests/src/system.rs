//! The whole system as its user runs it: processes of the binary, controlled and observed from outside.

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
use serde_json::Value;

use crate::eventually::{DEADLINE, eventually, within};
use crate::servers::{self, Addresses, SharedServers};
use crate::signals;

/// Names of the services, in start order.
pub const SERVICES: [&str; 7] = [
    "sandbox",
    "query",
    "orders",
    "inventory",
    "payments",
    "shipping",
    "gateway",
];

/// Upper limit of the time until nothing is in flight any more, repeated refunds and back-offs included.
const REST_DEADLINE: Duration = Duration::from_secs(90);

/// Below the ephemeral ports: one of those may be taken again before a process listens on it.
const PORTS: Range<u16> = 22_000..32_000;

/// A system with topics, a database, ports and a folder of its own. Its processes are killed when it is dropped.
pub struct System {
    _servers: Option<SharedServers>,
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

    /// A system of a test with exclusive access to the servers.
    pub fn exclusive(_servers: &servers::ExclusiveServers) -> Self {
        Self::make(None, &Addresses::of_environment(), None)
    }

    /// A system on other servers, with its database in a tablespace if one is given.
    pub fn on_servers(servers: &Addresses, tablespace: Option<&str>) -> Self {
        Self::make(None, servers, tablespace)
    }

    fn make(shared: Option<SharedServers>, servers: &Addresses, tablespace: Option<&str>) -> Self {
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
            runtime: tokio::runtime::Runtime::new().expect("threads can be started"),
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

    /// Adds or replaces an environment variable of the processes started from now on.
    pub fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.environment.insert(name, value.into());
    }

    /// The value of an environment variable of the processes.
    pub fn variable(&self, name: &str) -> &str {
        &self.environment[name]
    }

    /// Runs a command of the binary to its end and returns its standard output.
    ///
    /// # Panics
    ///
    /// When the command fails.
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

    /// Runs a command of the binary to its end, whatever its exit code.
    pub fn try_run(&self, arguments: &[&str]) -> Output {
        self.command(arguments)
            .output()
            .expect("the binary can be run")
    }

    /// Runs a command whose standard output is closed.
    pub fn run_unread(&self, arguments: &[&str]) -> ExitStatus {
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the binary can be run");
        drop(child.stdout.take());
        child.wait().expect("it is a child")
    }

    /// Starts a command of the binary that runs beside the test.
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

    /// Starts a process that serves `service` (or `all`), under that name.
    pub fn start(&mut self, service: &str) {
        self.start_as(service, service, &[]);
    }

    /// Starts a process of a service under another name.
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
    /// When the process ends, or is not ready in time.
    pub fn wait_until_ready(&mut self, name: &str) {
        let deadline = Instant::now() + DEADLINE;
        let admin = self.process(name).admin;
        let mut report = String::new();
        eventually(&format!("{name} is ready"), || {
            if let Some(status) = self.process(name).child.try_wait().expect("a child") {
                panic!("{name} ended ({status}):\n{}", self.log_tail(name));
            }
            let (ready, body) = get(admin, "/health/ready");
            report = body;
            if !ready && Instant::now() + Duration::from_secs(1) > deadline {
                panic!("{name} is not ready: {report}\n{}", self.log_tail(name));
            }
            ready.then_some(())
        });
    }

    /// Starts a process and waits until it is ready.
    pub fn start_until_ready(&mut self, service: &str) {
        self.start(service);
        self.wait_until_ready(service);
    }

    /// Kills a process (SIGKILL).
    pub fn kill(&mut self, name: &str) {
        let mut process = self.processes.remove(name).expect("it runs");
        process.child.kill().expect("it can be killed");
        process.child.wait().expect("a child");
    }

    /// Terminates a process (SIGTERM) and waits for its exit.
    pub fn terminate(&mut self, name: &str) -> ExitStatus {
        self.signal(name, "-TERM");
        self.wait_for_exit(name)
    }

    /// Suspends a process, as a machine without memory does.
    pub fn freeze(&self, name: &str) {
        self.signal(name, signals::STOP);
    }

    /// Resumes a suspended process.
    pub fn thaw(&self, name: &str) {
        self.signal(name, signals::CONTINUE);
    }

    fn signal(&self, name: &str, signal: &str) {
        let id = self.processes[name].child.id().to_string();
        assert!(
            signals::send(signal, &[&id]),
            "{name} had ended already:\n{}",
            self.log_tail(name)
        );
    }

    /// Waits until a process ends by itself.
    pub fn wait_for_exit(&mut self, name: &str) -> ExitStatus {
        let mut process = self.processes.remove(name).expect("it runs");
        eventually(&format!("{name} ends"), || {
            process.child.try_wait().expect("a child")
        })
    }

    /// Names and admin addresses of all running processes.
    pub fn processes(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        let processes = self.processes.iter();
        processes.map(|(name, process)| (name.as_str(), process.admin))
    }

    /// Address of a process's health and metrics.
    pub fn admin(&self, name: &str) -> SocketAddr {
        self.processes[name].admin
    }

    /// The metrics of a process in text form.
    pub fn metrics(&self, name: &str) -> String {
        get(self.processes[name].admin, "/metrics").1
    }

    /// The states of the components of a process, from its admin port.
    pub fn states(&self, name: &str) -> Value {
        let states = get(self.processes[name].admin, "/state").1;
        serde_json::from_str(&states).expect("they are JSON")
    }

    /// The last lines of a process's log.
    pub fn log_tail(&self, name: &str) -> String {
        let text = std::fs::read(self.folder.join(format!("{name}.log"))).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// The last line of a process's log that contains `text`; empty when there is none.
    pub fn last_log_line(&self, name: &str, text: &str) -> String {
        let log = self.log_of(name);
        let line = log.lines().rev().find(|line| line.contains(text));
        line.unwrap_or_default().to_owned()
    }

    /// Number of lines of a process's log that contain `text`.
    pub fn count_log_lines(&self, name: &str, text: &str) -> usize {
        let log = self.log_of(name);
        log.lines().filter(|line| line.contains(text)).count()
    }

    fn log_of(&self, name: &str) -> String {
        let text = std::fs::read(self.folder.join(format!("{name}.log"))).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The readiness report of a process.
    pub fn readiness(&self, name: &str) -> String {
        get(self.processes[name].admin, "/health/ready").1
    }

    /// Whether a process reports that it is ready.
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

    /// Audits until everything is at rest.
    ///
    /// # Panics
    ///
    /// When an invariant is violated or not completely checked, or the system does not come to rest in time.
    pub fn audit_at_rest(&self, journal: Option<&str>) {
        let mut arguments = vec!["audit", "--json"];
        if let Some(journal) = journal {
            arguments.extend(["--journal", journal]);
        }
        let report = within(REST_DEADLINE, "an audit finds everything at rest", || {
            // It fails when something is violated, at rest or not.
            let report: Value = serde_json::from_str(&self.run(&arguments)).expect("it is JSON");
            (report["at_rest"] == true).then_some(report)
        });
        for finding in report["findings"].as_array().expect("it has findings") {
            let (violated, unchecked) = (&finding["violated"], &finding["unchecked"]);
            assert!(violated == 0 && unchecked == 0, "{finding:#}");
        }
    }

    /// Audits everything that was written, once nothing is in flight.
    ///
    /// # Panics
    ///
    /// When an invariant is violated or could not be checked, or the system is not at rest.
    pub fn audit(&self, journal: &str) {
        let report = self.run(&["audit", "--journal", journal]);
        assert!(report.contains("; at rest"), "{report}");
        println!("{report}");
    }

    /// The value of a sample, such as `name{label="value"}`, of a process.
    pub fn metric(&self, name: &str, sample: &str) -> Option<f64> {
        let metrics = self.metrics(name);
        let mut lines = metrics.lines();
        lines.find_map(|line| line.strip_prefix(sample)?.trim().parse().ok())
    }

    /// Starts an HTTP request with curl's options beside the test.
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
                println!("--- {name}\n{}", self.log_tail(&name));
            }
        } else {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// Whether an HTTP request succeeded, and its body; `false` and nothing without an answer.
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

/// A free port. This process returns each port at most once.
///
/// # Panics
///
/// When no port is free.
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

/// Path of the binary that was built beside this test.
///
/// # Panics
///
/// When it is missing.
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
