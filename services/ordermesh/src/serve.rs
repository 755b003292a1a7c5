//! `ordermesh serve`: puts services together and runs them in this process.

mod calls;
mod ports;
mod roles;
mod runtime;
mod startup;
mod status;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use chassis::grpc::{Peer, Server};
use chassis::{Process, config};
use clap::{Args as ClapArgs, ValueEnum};
use contracts::Service;
use platform_client::Stack;

use calls::Calls;
use ports::Ports;
use runtime::Runtime;

/// How long a process may take to finish what it has begun.
const DRAIN: Duration = Duration::from_secs(15);

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
    audit: auditor::Config,
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
        roles::lag::start(args, process)?;
    }
    if roles.contains(&Role::Auditor) {
        roles::auditor::start(args, process, &peers)?;
    }
    let services: Vec<Service> = roles.iter().filter_map(|role| role.service()).collect();
    let mut runtime = None;
    if !services.is_empty() || roles.contains(&Role::Query) {
        runtime = Some(Runtime::connect(args, process, &parts, &services, &roles).await?);
    }
    if let Some(server) = ports.sandbox {
        roles::sandbox::start(args, process, server)?;
    }
    if let Some(runtime) = &runtime {
        let calls = serve_apis(runtime, ports.orders, ports.inventory, &peers)?;
        start_workers(runtime, args, &services, &peers, &calls)?;
        if let Some(server) = ports.query {
            roles::query::start(runtime, args, server)?;
        }
    }
    if roles.contains(&Role::Gateway) {
        roles::gateway::start(args, process, &peers, &roles).await?;
    }
    parts.ready();
    Ok(())
}

/// Serves the APIs that send commands; the calls are what waits for outcomes.
fn serve_apis(
    runtime: &Runtime,
    orders: Option<Server>,
    inventory: Option<Server>,
    peers: &config::Peers,
) -> anyhow::Result<Calls> {
    let mut calls = Calls::default();
    if let Some(server) = orders {
        let query = Peer::connect_lazy("query", &peers.query).measured_by(&runtime.process);
        let caller = runtime.caller(&mut calls);
        roles::orders::serve_api(runtime, server, caller, &query)?;
    }
    if let Some(server) = inventory {
        let caller = runtime.caller(&mut calls);
        roles::inventory::serve_api(runtime, server, caller)?;
    }
    calls.listen(&runtime.process)?;
    Ok(calls)
}

/// Starts a worker for each service.
fn start_workers(
    runtime: &Runtime,
    args: &Args,
    services: &[Service],
    peers: &config::Peers,
    calls: &Calls,
) -> anyhow::Result<()> {
    let partners = Peer::connect_lazy("sandbox", &peers.sandbox).measured_by(&runtime.process);
    for service in services {
        match service {
            Service::Orders => roles::orders::start(runtime, args, calls)?,
            Service::Inventory => roles::inventory::start(runtime, calls)?,
            Service::Payments => roles::payments::start(runtime, args, partners.clone(), calls)?,
            Service::Shipping => roles::shipping::start(runtime, partners.clone(), calls)?,
        }
    }
    Ok(())
}
