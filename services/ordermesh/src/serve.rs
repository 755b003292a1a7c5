//! `ordermesh serve`: puts services together and runs them in this process.

mod calls;
mod status;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chassis::admin::Admin;
use chassis::grpc::{Peer, Server};
use chassis::{Component, Process, config};
use clap::{Args as ClapArgs, ValueEnum};
use contracts::inventory::v1::inventory_service_server::InventoryServiceServer;
use contracts::orders::v1::order_service_server::OrderServiceServer;
use contracts::{Contract, Service, Topic};
use engine::effects::{Limits, Perform};
use engine::worker::Settings;
use engine::{Caller, Cluster, Codec, Command, Decider, Metrics, Processor, Sender};
use gateway::Gateway;
use inventory::StockRules;
use observability::Outage;
use payments::Provider;
use query::Query;
use registry::Schemas;
use sandbox::Sandbox;
use shipping::{Carrier, Deadlines, ShipmentRules};
use tokio::runtime::Handle;

use self::calls::Calls;
use self::status::{follow, follow_health};
use crate::platform::{self, Stack};
use crate::{audit, lag};

/// How long a process may take to finish what it has begun.
const DRAIN: Duration = Duration::from_secs(15);
/// How long one try of start-up waits for the registry before readiness says so.
const REGISTRY_TRY: Duration = Duration::from_secs(5);
/// For one answer of the payment provider or the carrier.
const PARTNER_DEADLINE: Duration = Duration::from_secs(5);
/// How long one tracking call waits for a parcel.
const TRACKING_WAIT: Duration = Duration::from_secs(20);

/// What can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Role {
    /// Everything in one process, but for the auditor
    All,
    /// Orders: API and processor
    Orders,
    /// Inventory: API and processor
    Inventory,
    /// Payments: processor
    Payments,
    /// Shipping: processor
    Shipping,
    /// The read side: projector and API
    Query,
    /// The public port
    Gateway,
    /// The payment provider's and the carrier's stand-in
    Sandbox,
    /// The lag exporter: how far every group lies behind, as the broker tells it
    Lag,
    /// The auditor: reads everything again and again, and holds it against every invariant
    Auditor,
}

impl Role {
    /// What `all` stands for. Reading everything again is left to a process of its own.
    const ALL: [Self; 8] = [
        Self::Orders,
        Self::Inventory,
        Self::Payments,
        Self::Shipping,
        Self::Query,
        Self::Gateway,
        Self::Sandbox,
        Self::Lag,
    ];

    const fn service(self) -> Option<Service> {
        match self {
            Self::Orders => Some(Service::Orders),
            Self::Inventory => Some(Service::Inventory),
            Self::Payments => Some(Service::Payments),
            Self::Shipping => Some(Service::Shipping),
            Self::All | Self::Query | Self::Gateway | Self::Sandbox | Self::Lag | Self::Auditor => {
                None
            }
        }
    }
}

/// Which services, and how they find each other.
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = "\
Two processes of one service share its partitions: give each its own --instance, --admin and listen address.

Examples:
  ordermesh serve all
  ordermesh serve orders gateway --instance orders-1
  ordermesh serve sandbox --sandbox-decline-percent 3")]
pub struct Args {
    /// What to serve
    #[arg(required = true, value_name = "SERVICE")]
    roles: Vec<Role>,
    #[command(flatten)]
    stack: Stack,
    #[command(flatten)]
    instance: config::Instance,
    #[command(flatten)]
    admin: config::Admin,
    #[command(flatten)]
    public: config::Public,
    #[command(flatten)]
    listen: config::Listen,
    #[command(flatten)]
    peers: config::Peers,
    #[command(flatten)]
    order_times: orders::Config,
    #[command(flatten)]
    payment_times: payments::Config,
    #[command(flatten)]
    sandbox: sandbox::Config,
    #[command(flatten)]
    lag: lag::Config,
    #[command(flatten)]
    audit: audit::Config,
}

impl Args {
    /// What this process is called in traces: its service, or the platform when there are several.
    pub fn service_name(&self) -> String {
        match self.roles[..] {
            [role] if role != Role::All => value_name(role),
            _ => "ordermesh".to_owned(),
        }
    }

    /// What this process is called among its like.
    pub fn instance_name(&self) -> String {
        self.instance.name(self.admin.address)
    }
}

/// The word for a role on the command line.
fn value_name(role: Role) -> String {
    let value = role.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Serves until a signal or a fault.
///
/// # Errors
///
/// What kept the process from starting: a port in use, missing topics, contracts that do not fit. A broker or a registry
/// that is not there is waited for.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let process = Process::new();
    start(&args, &process).await?;
    Ok(process.run(DRAIN).await)
}

async fn start(args: &Args, process: &Process) -> anyhow::Result<()> {
    let roles: BTreeSet<Role> = if args.roles.contains(&Role::All) {
        Role::ALL.into()
    } else {
        args.roles.iter().copied().collect()
    };
    let ports = Ports::bind(args, &roles).await?;
    let peers = ports.peers(args);
    // The first part that is ready must not speak for those that are not known yet.
    let parts = process.readiness().component("parts");
    ports.admin.serve(process);

    if roles.contains(&Role::Lag) {
        lag::serve(process, platform::cluster(&args.stack.kafka), args.lag)?;
    }
    if roles.contains(&Role::Auditor) {
        serve_auditor(args, process, &peers)?;
    }
    let services: Vec<Service> = roles.iter().filter_map(|role| role.service()).collect();
    let mut platform = None;
    if !services.is_empty() || roles.contains(&Role::Query) {
        platform = Some(Platform::connect(args, process, &parts, &services, &roles).await?);
    }
    if let Some(server) = ports.sandbox {
        serve_sandbox(args, process, server)?;
    }
    if let Some(platform) = &platform {
        platform.serve(args, ports.orders, ports.inventory, &services, &peers)?;
        if let Some(server) = ports.query {
            platform.serve_query(args, server)?;
        }
    }
    if roles.contains(&Role::Gateway) {
        let gateway = Gateway::bind(args.public.address, &peers, process).await?;
        // Without the others orders can still be placed; their commands wait in the log.
        let mut remote = Vec::new();
        if !roles.contains(&Role::Orders) {
            remote.push(gateway::ORDERS);
        }
        gateway.serve(process, &remote)?;
    }
    parts.ready();
    Ok(())
}

/// Every port of this process, open before anything runs.
struct Ports {
    admin: Admin,
    orders: Option<Server>,
    inventory: Option<Server>,
    query: Option<Server>,
    sandbox: Option<Server>,
}

impl Ports {
    async fn bind(args: &Args, roles: &BTreeSet<Role>) -> anyhow::Result<Self> {
        let server = async |role: Role, name: &'static str, address: SocketAddr| {
            anyhow::Ok(if roles.contains(&role) {
                Some(Server::bind(name, address).await?)
            } else {
                None
            })
        };
        Ok(Self {
            admin: Admin::bind(args.admin.address).await?,
            orders: server(Role::Orders, "orders", args.listen.orders).await?,
            inventory: server(Role::Inventory, "inventory", args.listen.inventory).await?,
            query: server(Role::Query, "query", args.listen.query).await?,
            sandbox: server(Role::Sandbox, "sandbox", args.listen.sandbox).await?,
        })
    }

    /// What runs in this process is reached where it was bound; the rest where the configuration says.
    fn peers(&self, args: &Args) -> config::Peers {
        let local = config::Peers::local(&config::Listen {
            orders: bound(self.orders.as_ref(), args.listen.orders),
            inventory: bound(self.inventory.as_ref(), args.listen.inventory),
            query: bound(self.query.as_ref(), args.listen.query),
            sandbox: bound(self.sandbox.as_ref(), args.listen.sandbox),
        });
        let configured = args.peers.clone();
        config::Peers {
            orders: if self.orders.is_some() {
                local.orders
            } else {
                configured.orders
            },
            inventory: if self.inventory.is_some() {
                local.inventory
            } else {
                configured.inventory
            },
            query: if self.query.is_some() {
                local.query
            } else {
                configured.query
            },
            sandbox: if self.sandbox.is_some() {
                local.sandbox
            } else {
                configured.sandbox
            },
        }
    }
}

fn bound(server: Option<&Server>, configured: SocketAddr) -> SocketAddr {
    server.map_or(configured, Server::local_addr)
}

fn serve_sandbox(args: &Args, process: &Process, server: Server) -> anyhow::Result<()> {
    let component = process.readiness().component("sandbox");
    let sandbox = Sandbox::open(args.sandbox.clone()).context("sandbox")?;
    server
        .add_service(sandbox.provider())
        .add_service(sandbox.carrier())
        .add_service(sandbox.control())
        .serve(process)?;
    component.ready();
    let shutdown = process.shutdown();
    process.spawn("sandbox ledgers", async move {
        shutdown.cancelled().await;
        sandbox.close().await;
    });
    Ok(())
}

fn serve_auditor(args: &Args, process: &Process, peers: &config::Peers) -> anyhow::Result<()> {
    let sandbox = peers.sandbox.first().context("no sandbox is configured")?;
    let audited = audit::Audited {
        stack: args.stack.clone(),
        sandbox: platform::Sandbox::at(sandbox.clone()),
        order_times: args.order_times,
        payment_times: args.payment_times,
    };
    audit::serve(process, audited, args.audit)
}

/// What every service of this process shares: the log, the contracts, the figures.
struct Platform {
    process: Process,
    cluster: Arc<Cluster>,
    codec: Codec,
    sender: Sender,
    metrics: Metrics,
    instance: String,
}

impl Platform {
    async fn connect(
        args: &Args,
        process: &Process,
        parts: &Component,
        services: &[Service],
        roles: &BTreeSet<Role>,
    ) -> anyhow::Result<Self> {
        let cluster = Arc::new(platform::cluster(&args.stack.kafka));
        topics(&cluster, parts).await?;
        let schemas = schemas(args, process, parts, services, roles).await?;
        let attended = schemas.clone();
        process.spawn_beside("registry", async move { attended.attend().await });
        let sender = Sender::new(Arc::clone(&cluster))?;
        let (attended, told) = (sender.clone(), sender.clone());
        process.spawn_beside("commands", async move { attended.attend().await });
        if !services.is_empty() {
            let component = process.readiness().component("commands");
            let follow = follow_health(move || told.health(), component);
            process.spawn_beside("commands readiness", follow);
        }
        Ok(Self {
            process: process.clone(),
            sender,
            cluster,
            codec: Codec::new(schemas),
            metrics: Metrics::new(process.registry())?,
            instance: args.instance_name(),
        })
    }

    fn serve(
        &self,
        args: &Args,
        orders_server: Option<Server>,
        inventory_server: Option<Server>,
        services: &[Service],
        peers: &config::Peers,
    ) -> anyhow::Result<()> {
        let mut calls = Calls::default();
        if let Some(server) = orders_server {
            let caller = self.caller(&mut calls);
            let query = Peer::connect_lazy("query", &peers.query).measured_by(&self.process);
            let api = orders::Api::new(caller, &query);
            server
                .add_service(OrderServiceServer::new(api))
                .serve(&self.process)?;
        }
        if let Some(server) = inventory_server {
            let caller = self.caller(&mut calls);
            let api = inventory::Api::new(caller);
            server
                .add_service(InventoryServiceServer::new(api))
                .serve(&self.process)?;
        }
        calls.listen(&self.process)?;

        let partners = Peer::connect_lazy("sandbox", &peers.sandbox).measured_by(&self.process);
        for service in services {
            match service {
                Service::Orders => {
                    let settings = args.order_times.settings();
                    self.process(args.order_times.rules(), NoEffects, settings, &calls)?;
                }
                Service::Inventory => {
                    self.process(
                        StockRules::default(),
                        NoEffects,
                        Settings::default(),
                        &calls,
                    )?;
                }
                Service::Payments => {
                    let rules = args.payment_times.rules();
                    let provider = Provider::new(partners.clone(), PARTNER_DEADLINE);
                    self.process(rules, provider, Settings::default(), &calls)?;
                }
                Service::Shipping => {
                    let deadlines = Deadlines {
                        call: PARTNER_DEADLINE,
                        tracking_wait: TRACKING_WAIT,
                    };
                    let carrier = Carrier::new(partners.clone(), deadlines);
                    self.process(ShipmentRules, carrier, Settings::default(), &calls)?;
                }
            }
        }
        Ok(())
    }

    fn caller<C: Contract>(&self, calls: &mut Calls) -> Caller<C> {
        let caller = Caller::new(
            Arc::clone(&self.cluster),
            self.sender.clone(),
            self.codec.clone(),
        );
        calls.add(&caller);
        caller
    }

    /// Runs a service's worker on a thread of its own.
    fn process<D, P>(
        &self,
        rules: D,
        perform: P,
        settings: Settings,
        calls: &Calls,
    ) -> anyhow::Result<()>
    where
        D: Decider,
        P: Perform<D>,
        Command<D>: Into<contracts::Command>,
    {
        let service = D::Contract::SERVICE;
        let component = self.process.readiness().component(service.name());
        let runtime = Handle::current();
        let processor = Processor {
            rules,
            perform,
            cluster: Arc::clone(&self.cluster),
            codec: self.codec.clone(),
            sender: self.sender.clone(),
            instance: self.instance.clone(),
            metrics: self.metrics.clone(),
            settings,
            limits: Limits {
                deadline: PARTNER_DEADLINE + TRACKING_WAIT,
                ..Limits::default()
            },
        };
        let calls = calls.clone();
        let process = self.process.clone();
        self.process
            .spawn_thread(format!("{service} worker"), move |shutdown| {
                // Tasks are started from this thread.
                let _inside = runtime.enter();
                processor.run(
                    &runtime,
                    || calls.are_over(&shutdown),
                    |status| {
                        // Ends with the process; nothing waits for it.
                        let rounds = status.clone();
                        let follow =
                            follow(move || rounds.rounds(), move || status.ready(), component);
                        process.spawn_beside("worker status", follow);
                    },
                )
            })?;
        Ok(())
    }

    fn serve_query(&self, args: &Args, server: Server) -> anyhow::Result<()> {
        const QUERY_SERVICE: &str = "ordermesh.query.v1.QueryService";
        let config = query::Config {
            database: args.stack.database.url.clone(),
            kafka: self.cluster.bootstrap.clone(),
            prefix: self.cluster.prefix.clone(),
            partitions: self.cluster.partitions,
        };
        let query = Query::new(
            config,
            self.codec.schemas().clone(),
            self.process.readiness(),
            self.process.registry(),
        )?;
        let routes = query.routes().into_axum_router().reset_fallback();
        server
            .add_routes(QUERY_SERVICE, routes)
            .serve(&self.process)?;
        let overview = query.overlook(self.process.shutdown());
        self.process.spawn("overview", overview);
        let stalls = query.watch_stalls();
        self.process.spawn_beside("projector stalls", stalls);
        self.process
            .spawn_thread("projector", move |shutdown| query.project(&shutdown))?;
        Ok(())
    }
}

/// Orders and stock items ask nothing of the outside world.
struct NoEffects;

impl<D: Decider<Effect = std::convert::Infallible>> Perform<D> for NoEffects {
    fn target(&self, effect: &std::convert::Infallible) -> &'static str {
        match *effect {}
    }

    async fn perform(
        &self,
        _key: &str,
        effect: &std::convert::Infallible,
        _attempt: engine::effects::Attempt,
    ) -> Result<Command<D>, engine::effects::Unknown> {
        match *effect {}
    }
}

/// Waits for the broker, then for nothing: missing topics are for `ordermesh topics apply`.
async fn topics(cluster: &Arc<Cluster>, parts: &Component) -> anyhow::Result<()> {
    let mut outage = Outage::of("broker");
    loop {
        let asked = Arc::clone(cluster);
        let checked = tokio::task::spawn_blocking(move || engine::topics::check(&asked)).await?;
        match checked {
            Err(error @ engine::topics::Error::Broker { .. }) => {
                outage.failed(&error);
                parts.not_ready(format!("waiting for the broker: {error}"));
            }
            result => {
                outage.answered();
                return Ok(result?);
            }
        }
    }
}

/// Registers the contracts; waits for a registry that is not there.
async fn schemas(
    args: &Args,
    process: &Process,
    parts: &Component,
    services: &[Service],
    roles: &BTreeSet<Role>,
) -> anyhow::Result<Schemas> {
    let mut writes = BTreeSet::new();
    let mut reads = BTreeSet::new();
    for service in services {
        for topic in [
            Topic::Commands,
            Topic::Events,
            Topic::State,
            Topic::Outcomes,
        ] {
            writes.insert((*service, topic));
            reads.insert((*service, topic));
        }
        // Orders asks everybody; everybody answers orders.
        let asked: &[Service] = if *service == Service::Orders {
            &Service::ALL
        } else {
            &[Service::Orders]
        };
        writes.extend(asked.iter().map(|asked| (*asked, Topic::Commands)));
    }
    if roles.contains(&Role::Query) {
        reads.extend(Service::ALL.map(|service| (service, Topic::Events)));
    }
    let mut settings = registry::Settings::new(
        args.stack.registry.url.clone(),
        args.stack.kafka.prefix.clone(),
    );
    settings.deadline = REGISTRY_TRY;
    let metrics = registry::Metrics::new(process.registry())?;
    let writes: Vec<_> = writes.into_iter().collect();
    let reads: Vec<_> = reads.into_iter().collect();
    let mut outage = Outage::of("schema registry");
    loop {
        match Schemas::register(&settings, metrics.clone(), &writes, &reads).await {
            Err(error @ registry::Error::Unavailable { .. }) => {
                outage.failed(&error);
                parts.not_ready(format!("waiting for the schema registry: {error}"));
            }
            result => {
                outage.answered();
                return Ok(result?);
            }
        }
    }
}
