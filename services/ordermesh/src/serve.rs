//! `ordermesh serve`: composes services and runs them in this process.

mod pending_calls;
mod ports;
mod readiness;
mod roles;
mod shared_connections;
mod startup;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use chassis::grpc::{Peer, Server};
use chassis::{Process, config};
use clap::{Args as ClapArgs, ValueEnum};
use contracts::Service;
use platform_client::Stack;

use pending_calls::PendingCalls;
use ports::Ports;
use shared_connections::SharedConnections;

/// Longest time for calls and batches in progress to finish at shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);

/// The roles of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Role {
    /// All roles except the auditor in one process
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
    /// The sandbox of the payment provider and the carrier
    Sandbox,
    /// The lag exporter: the lag of every group, as the broker knows it
    Lag,
    /// The auditor: periodically reads everything and checks every invariant
    Auditor,
}

impl Role {
    /// The roles that `all` includes. The auditor runs in a process of its own.
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

/// Arguments of `ordermesh serve`.
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = "\
Two processes of one service share its partitions: give each its own --instance, --admin and listen address.

Examples:
  ordermesh serve all
  ordermesh serve orders gateway --instance orders-1
  ordermesh serve sandbox --sandbox-decline-percent 3")]
pub struct Args {
    /// The roles to serve
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
    orders: orders::Config,
    #[command(flatten)]
    payments: payments::Config,
    #[command(flatten)]
    sandbox: sandbox::Config,
    #[command(flatten)]
    lag: lag::Config,
    #[command(flatten)]
    auditor: auditor::Config,
}

impl Args {
    /// The service name in traces: the role, or `ordermesh` when there are several.
    pub fn service_name(&self) -> String {
        match self.roles[..] {
            [role] if role != Role::All => value_name(role),
            _ => "ordermesh".to_owned(),
        }
    }

    /// The name of this process among the instances of its service.
    pub fn instance_name(&self) -> String {
        self.instance.name(self.admin.address)
    }
}

/// The name of a role on the command line.
fn value_name(role: Role) -> String {
    let value = role.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Serves until a signal or a failure.
///
/// # Errors
///
/// The process cannot start: a port is in use, topics are missing, or contracts are incompatible. It waits for an
/// unreachable broker or registry.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let process = Process::new();
    start(&args, &process).await?;
    Ok(process.run(DRAIN_TIMEOUT).await)
}

async fn start(args: &Args, process: &Process) -> anyhow::Result<()> {
    let roles: BTreeSet<Role> = if args.roles.contains(&Role::All) {
        Role::ALL.into()
    } else {
        args.roles.iter().copied().collect()
    };
    let ports = Ports::bind(args, &roles).await?;
    let peers = ports.peers(args);
    // Keeps the process not ready until all components are registered.
    let startup = process.readiness().component("parts");
    ports.admin.serve(process);

    if roles.contains(&Role::Lag) {
        roles::lag::start(args, process)?;
    }
    if roles.contains(&Role::Auditor) {
        roles::auditor::start(args, process, &peers)?;
    }
    let services: Vec<Service> = roles.iter().filter_map(|role| role.service()).collect();
    let mut connections = None;
    if !services.is_empty() || roles.contains(&Role::Query) {
        connections =
            Some(SharedConnections::connect(args, process, &startup, &services, &roles).await?);
    }
    if let Some(server) = ports.sandbox {
        roles::sandbox::start(args, process, server)?;
    }
    if let Some(connections) = &connections {
        let pending_calls = serve_apis(connections, ports.orders, ports.inventory, &peers)?;
        start_workers(connections, args, &services, &peers, &pending_calls)?;
        if let Some(server) = ports.query {
            roles::query::start(connections, args, server)?;
        }
    }
    if roles.contains(&Role::Gateway) {
        roles::gateway::start(args, process, &peers, &roles).await?;
    }
    startup.ready();
    Ok(())
}

/// Serves the APIs that send commands. Returns the calls that wait for outcomes.
fn serve_apis(
    connections: &SharedConnections,
    orders: Option<Server>,
    inventory: Option<Server>,
    peers: &config::Peers,
) -> anyhow::Result<PendingCalls> {
    let mut pending_calls = PendingCalls::default();
    if let Some(server) = orders {
        let query = Peer::connect_lazy("query", &peers.query).measured_by(&connections.process);
        let client = connections.command_client(&mut pending_calls);
        roles::orders::serve_api(connections, server, client, &query)?;
    }
    if let Some(server) = inventory {
        let client = connections.command_client(&mut pending_calls);
        roles::inventory::serve_api(connections, server, client)?;
    }
    pending_calls.listen(&connections.process)?;
    Ok(pending_calls)
}

/// Starts a worker for each service.
fn start_workers(
    connections: &SharedConnections,
    args: &Args,
    services: &[Service],
    peers: &config::Peers,
    pending_calls: &PendingCalls,
) -> anyhow::Result<()> {
    let partners = Peer::connect_lazy("sandbox", &peers.sandbox).measured_by(&connections.process);
    for service in services {
        match service {
            Service::Orders => roles::orders::start(connections, args, pending_calls)?,
            Service::Inventory => roles::inventory::start(connections, pending_calls)?,
            Service::Payments => {
                roles::payments::start(connections, args, partners.clone(), pending_calls)?
            }
            Service::Shipping => {
                roles::shipping::start(connections, partners.clone(), pending_calls)?
            }
        }
    }
    Ok(())
}
