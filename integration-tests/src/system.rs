//! The whole system as its user runs it: processes of the binary, killed and watched from outside.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use chassis::grpc::Peer;
use contracts::inventory::v1::AdjustStockRequest;
use contracts::inventory::v1::inventory_service_client::InventoryServiceClient;
use contracts::orders::v1::order_service_client::OrderServiceClient;
use contracts::orders::v1::{
    Address, CancelOrderRequest, CancelOrderResponse, Contact, OrderLine, OrderStatus,
    PlaceOrderRequest, PlaceOrderResponse,
};
use contracts::query::v1::query_service_client::QueryServiceClient;
use contracts::query::v1::{GetOrderRequest, GetStockRequest, GetStockResponse, OrderView};
use contracts::sandbox::v1::sandbox_service_client::SandboxServiceClient;
use contracts::sandbox::v1::{Behaviour, LedgerPayment, ListPaymentsRequest, SetBehaviourRequest};
use futures::StreamExt as _;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

use crate::eventually::{DEADLINE, eventually};
use crate::servers::{self, Shared, env};

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

/// Partners that do as they are asked.
pub const FAULTLESS: Behaviour = Behaviour {
    decline_percent: 0,
    refuse_percent: 0,
    seed: 0,
    delivery_ms: 50,
    refund_refuse_percent: 0,
    provider: None,
    carrier: None,
};

/// A system with topics, a database, ports and a folder of its own. Dropping it kills what still runs.
pub struct System {
    _servers: Option<Shared>,
    binary: PathBuf,
    folder: PathBuf,
    environment: BTreeMap<&'static str, String>,
    /// The public port.
    pub public: SocketAddr,
    sandbox: SocketAddr,
    processes: BTreeMap<String, Running>,
    runtime: tokio::runtime::Runtime,
}

struct Running {
    child: Child,
    admin: SocketAddr,
}

impl System {
    /// A system beside those of other tests.
    pub fn new() -> Self {
        let shared = servers::shared();
        Self::make(Some(shared))
    }

    /// A system of a test that has the servers for itself.
    pub fn alone(_servers: &servers::Alone) -> Self {
        Self::make(None)
    }

    fn make(shared: Option<Shared>) -> Self {
        let name = format!("t{}", fastrand::u32(..));
        println!("system {name}");
        let folder = std::env::temp_dir().join(format!("ordermesh-{name}"));
        std::fs::create_dir_all(&folder).expect("a folder for the test");
        let database = make_database(&name);
        let public = free_port();
        let sandbox = free_port();
        let environment = BTreeMap::from([
            ("ORDERMESH_KAFKA", servers::variable(env::KAFKA)),
            ("ORDERMESH_REGISTRY", servers::variable(env::REGISTRY)),
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
            .insert(name.to_owned(), Running { child, admin });
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
        self.signal(name, "-STOP");
    }

    /// Lets a frozen process go on.
    pub fn thaw(&self, name: &str) {
        self.signal(name, "-CONT");
    }

    fn signal(&self, name: &str, signal: &str) {
        let id = self.processes[name].child.id().to_string();
        let sent = Command::new("kill")
            .args([signal, &id])
            .status()
            .expect("kill can be run");
        assert!(
            sent.success(),
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

    fn log(&self, name: &str) -> File {
        File::options()
            .create(true)
            .append(true)
            .open(self.folder.join(format!("{name}.log")))
            .expect("a log file")
    }

    fn process(&mut self, name: &str) -> &mut Running {
        self.processes.get_mut(name).expect("it runs")
    }

    /// Runs a call against the public port.
    pub fn block_on<T>(&self, call: impl Future<Output = T>) -> T {
        self.runtime.block_on(call)
    }

    /// The public port as a channel.
    pub fn channel(&self) -> Channel {
        self.connect(self.public)
    }

    fn connect(&self, address: SocketAddr) -> Channel {
        let _inside = self.runtime.enter();
        Endpoint::from_shared(format!("http://{address}"))
            .expect("an address")
            .timeout(Duration::from_secs(15))
            .connect_lazy()
    }

    /// Places an order over gRPC.
    ///
    /// # Errors
    ///
    /// What the API says.
    pub fn place(&self, request: PlaceOrderRequest) -> Result<PlaceOrderResponse, Box<Status>> {
        self.block_on(OrderServiceClient::new(self.channel()).place_order(request))
            .map(tonic::Response::into_inner)
            .map_err(Box::new)
    }

    /// Adds pieces to a product's stock.
    pub fn stock(&self, sku: &str, delta: i64) {
        let request = AdjustStockRequest {
            sku: sku.into(),
            adjustment_id: String::new(),
            delta,
        };
        self.block_on(InventoryServiceClient::new(self.channel()).adjust_stock(request))
            .unwrap_or_else(|status| panic!("{sku} {delta}: {status}"));
    }

    /// Adds pieces to many products' stock at once.
    pub fn stock_all(&self, pieces: BTreeMap<String, i64>) {
        let client = InventoryServiceClient::new(self.channel());
        let calls = futures::stream::iter(pieces).map(|(sku, delta)| {
            let mut client = client.clone();
            async move {
                let request = AdjustStockRequest {
                    sku,
                    adjustment_id: String::new(),
                    delta,
                };
                client.adjust_stock(request).await
            }
        });
        let results: Vec<_> = self.block_on(calls.buffer_unordered(128).collect());
        for result in results {
            result.unwrap_or_else(|status| panic!("stock: {status}"));
        }
    }

    /// The order as the read model has it, at least at `min_version`.
    ///
    /// # Errors
    ///
    /// What the API says.
    pub fn order(&self, order_id: &str, min_version: u64) -> Result<OrderView, Box<Status>> {
        let request = GetOrderRequest {
            order_id: order_id.into(),
            min_version,
            min_position: None,
        };
        self.block_on(QueryServiceClient::new(self.channel()).get_order(request))
            .map(|found| found.into_inner().order.unwrap_or_default())
            .map_err(Box::new)
    }

    /// A product's stock as the read model has it.
    pub fn stock_of(&self, sku: &str) -> GetStockResponse {
        let request = GetStockRequest {
            sku: sku.into(),
            min_version: 0,
        };
        self.block_on(QueryServiceClient::new(self.channel()).get_stock(request))
            .unwrap_or_else(|status| panic!("{sku}: {status}"))
            .into_inner()
    }

    /// Waits until an order has a status.
    pub fn reaches(&self, order_id: &str, status: OrderStatus) -> OrderView {
        eventually(&format!("{order_id} is {}", status.as_str_name()), || {
            self.order(order_id, 0)
                .ok()
                .filter(|order| order.status() == status)
        })
    }

    /// Tells the payment provider and the carrier how to behave.
    pub fn behave(&self, behaviour: Behaviour) {
        let request = SetBehaviourRequest {
            behaviour: Some(behaviour),
        };
        self.block_on(SandboxServiceClient::new(self.connect(self.sandbox)).set_behaviour(request))
            .expect("the sandbox answers");
    }

    /// Holds log, read model and ledger against each other, once everything is at rest.
    pub fn check(&self, journal: Option<&str>) {
        let mut arguments = vec!["check", "--wait", "90"];
        if let Some(journal) = journal {
            arguments.extend(["--journal", journal]);
        }
        println!("{}", self.run(&arguments));
    }

    /// Asks for an order of [`order_of`]'s customer to be cancelled.
    ///
    /// # Errors
    ///
    /// What the API says.
    pub fn cancel(&self, order_id: &str) -> Result<CancelOrderResponse, Box<Status>> {
        self.cancel_as("ada", order_id)
    }

    /// Asks for an order to be cancelled, in the name of a customer.
    ///
    /// # Errors
    ///
    /// What the API says.
    pub fn cancel_as(
        &self,
        customer_id: &str,
        order_id: &str,
    ) -> Result<CancelOrderResponse, Box<Status>> {
        let request = CancelOrderRequest {
            order_id: order_id.into(),
            customer_id: customer_id.into(),
        };
        self.block_on(OrderServiceClient::new(self.channel()).cancel_order(request))
            .map(tonic::Response::into_inner)
            .map_err(Box::new)
    }

    /// The payment provider's ledger, in the order in which it was written.
    pub fn ledger(&self) -> Vec<LedgerPayment> {
        let mut client = SandboxServiceClient::new(self.connect(self.sandbox));
        self.block_on(async {
            let entries = client.list_payments(ListPaymentsRequest {}).await?;
            let entries = entries.into_inner().collect::<Vec<_>>().await;
            entries.into_iter().collect::<Result<Vec<_>, Status>>()
        })
        .unwrap_or_else(|status| panic!("the ledger: {status}"))
    }

    /// The value of a sample, such as `name{label="value"}`, on a process's admin port.
    pub fn figure(&self, name: &str, sample: &str) -> Option<f64> {
        let metrics = self.metrics(name);
        let mut lines = metrics.lines();
        lines.find_map(|line| line.strip_prefix(sample)?.trim().parse().ok())
    }

    /// A port as services reach each other: what fails has one code, whoever notices it first.
    pub fn peer(&self, address: SocketAddr) -> Peer {
        let _inside = self.runtime.enter();
        let address = address.to_string().parse().expect("an address");
        Peer::connect_lazy("the api", &[address])
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

/// An order of these (product, pieces) at 1.50 each, under a fresh id.
pub fn order_of(lines: &[(&str, u32)]) -> PlaceOrderRequest {
    PlaceOrderRequest {
        order_id: Uuid::now_v7().to_string(),
        customer_id: "ada".into(),
        contact: Some(Contact {
            email: "ada@example.org".into(),
            phone: String::new(),
            address: Some(Address {
                name: "Ada".into(),
                street: "1 Byron Lane".into(),
                postal_code: "10115".into(),
                city: "Berlin".into(),
                country: "DE".into(),
            }),
        }),
        lines: lines
            .iter()
            .map(|(sku, quantity)| OrderLine {
                sku: (*sku).into(),
                quantity: *quantity,
                unit_price: 150,
                discount: 0,
                description: String::new(),
            })
            .collect(),
        currency: "EUR".into(),
        wait: 0,
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
    let test = std::env::current_exe().expect("the test has a path");
    let folder = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    let binary = folder.join("ordermesh");
    assert!(
        binary.exists(),
        "{} is missing: run `cargo build -p ordermesh`",
        binary.display()
    );
    binary
}

fn make_database(name: &str) -> String {
    let server = servers::variable(env::DATABASE);
    let made = Command::new("psql")
        .args([
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            &format!("CREATE DATABASE {name}"),
            &server,
        ])
        .status()
        .expect("psql can be run");
    assert!(made.success(), "database {name} could not be made");
    let (head, _) = server.rsplit_once('/').expect("the URL names a database");
    format!("{head}/{name}")
}
