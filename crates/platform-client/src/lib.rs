//! How tools and the auditor reach the platform: its public API, its log, its contracts, its database.

pub mod content;
pub mod decoder;
pub mod kafka;
pub mod order_watch;
pub mod retry;
pub mod topic_reader;

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use chassis::config;
use chassis::grpc::Peer;
use clap::Args;
use contracts::inventory::v1::inventory_service_client::InventoryServiceClient;
use contracts::orders::v1::order_service_client::OrderServiceClient;
use contracts::query::v1::query_service_client::QueryServiceClient;
use contracts::sandbox::v1::sandbox_service_client::SandboxServiceClient;
use contracts::{Service, Topic};
use engine::Cluster;
use http::uri::Authority;
use registry::Schemas;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tonic::Request;

/// Longest wait for one answer of the API.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a command waits for a registry that does not answer.
const REGISTRY_PATIENCE: Duration = Duration::from_secs(10);
/// How long a command waits for a connection to the database.
const DATABASE_PATIENCE: Duration = Duration::from_secs(5);

/// Where the log, its contracts and the read model are.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct Stack {
    /// The log.
    #[command(flatten)]
    pub kafka: config::Kafka,
    /// The schema registry.
    #[command(flatten)]
    pub registry: config::Registry,
    /// The database of the read model.
    #[command(flatten)]
    pub database: config::Database,
}

/// Where the public API is reached.
#[derive(Args, Clone, Debug)]
pub struct Api {
    /// Where the public API is reached, host:port
    #[arg(long = "api", id = "api", value_name = "ADDRESS", env = chassis::env::PUBLIC, default_value = "127.0.0.1:8080", value_parser = host_port)]
    address: Authority,
}

impl Api {
    /// The API at `address`.
    pub const fn at(address: Authority) -> Self {
        Self { address }
    }

    /// The address.
    pub const fn address(&self) -> &Authority {
        &self.address
    }

    /// A connection that is made when it is needed.
    pub fn peer(&self) -> Peer {
        Peer::connect_lazy("the api", std::slice::from_ref(&self.address))
    }

    /// The services behind it.
    pub fn connect(&self) -> Clients {
        // Not a retrying peer: whether a call may be repeated is for its command to say.
        let peer = self.peer();
        Clients {
            address: self.address.clone(),
            orders: OrderServiceClient::new(peer.clone()),
            inventory: InventoryServiceClient::new(peer.clone()),
            query: QueryServiceClient::new(peer.retrying()),
        }
    }
}

/// The services behind the public API. Cheap to clone.
#[derive(Clone)]
pub struct Clients {
    address: Authority,
    /// Orders.
    pub orders: OrderServiceClient<Peer>,
    /// Stock.
    pub inventory: InventoryServiceClient<Peer>,
    /// The read side; calls that met a broken connection are repeated.
    pub query: QueryServiceClient<Peer>,
}

impl Clients {
    /// A refusal or a failure on one line, with the address that was asked.
    pub fn failed(&self, status: &tonic::Status) -> anyhow::Error {
        anyhow::anyhow!("{}: {}", self.address, retry::describe(status))
    }
}

/// Where the sandbox is reached.
#[derive(Args, Clone, Debug)]
pub struct Sandbox {
    /// Where the sandbox (payment provider and carrier) is reached, host:port
    #[arg(long = "sandbox", id = "sandbox", value_name = "ADDRESS", env = chassis::env::SANDBOX, default_value = "127.0.0.1:7104", value_parser = host_port)]
    address: Authority,
}

impl Sandbox {
    /// The sandbox at `address`.
    pub const fn at(address: Authority) -> Self {
        Self { address }
    }

    /// Connections that are made when they are needed.
    pub fn connect(&self) -> SandboxServiceClient<Peer> {
        let peer = Peer::connect_lazy("the sandbox", std::slice::from_ref(&self.address));
        SandboxServiceClient::new(peer)
    }

    /// A refusal or a failure on one line, with the address that was asked.
    pub fn failed(&self, status: &tonic::Status) -> anyhow::Error {
        anyhow::anyhow!("sandbox {}: {}", self.address, retry::describe(status))
    }
}

/// A request that is answered soon or not at all.
pub fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

/// Asks processes on this machine or near it.
///
/// # Errors
///
/// The system has no entropy for TLS, which nobody uses here.
pub fn http(timeout: Duration) -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .timeout(timeout)
        .no_proxy()
        .build()
}

/// What a failure goes back to, such as a refused connection; what stands above it only repeats the address.
pub fn root(error: &reqwest::Error) -> String {
    let mut error: &dyn Error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}

/// A flag's `host:port`.
///
/// # Errors
///
/// Host or port is missing.
pub fn host_port(text: &str) -> Result<Authority, String> {
    text.parse::<Authority>()
        .ok()
        .filter(|authority| !authority.host().is_empty() && authority.port_u16().is_some())
        .ok_or_else(|| "expected host:port".to_owned())
}

/// Where a listener is reached from this machine: what listens everywhere is reached here.
///
/// # Errors
///
/// None that is known: a socket address is an authority.
pub fn reachable(address: SocketAddr) -> anyhow::Result<Authority> {
    let ip = if address.ip().is_unspecified() {
        [127, 0, 0, 1].into()
    } else {
        address.ip()
    };
    Ok(SocketAddr::new(ip, address.port()).to_string().parse()?)
}

/// The log that the flags name.
pub fn cluster(kafka: &config::Kafka) -> Cluster {
    Cluster {
        bootstrap: kafka.bootstrap.clone(),
        prefix: kafka.prefix.clone(),
        partitions: kafka.partitions,
    }
}

/// The schema ids of some topics, those in `writes` registered.
///
/// # Errors
///
/// The registry does not answer, or refuses.
pub async fn schemas(
    registry: &config::Registry,
    prefix: &str,
    writes: &[(Service, Topic)],
    reads: &[(Service, Topic)],
) -> anyhow::Result<Schemas> {
    let mut settings = registry::Settings::new(registry.url.clone(), prefix);
    settings.deadline = REGISTRY_PATIENCE;
    let metrics = registry::Metrics::new(&prometheus::Registry::new())?;
    Schemas::register(&settings, metrics, writes, reads)
        .await
        .with_context(|| format!("schema registry {}", registry.url))
}

/// Every topic of every service.
pub fn all_topics() -> Vec<(Service, Topic)> {
    Service::ALL
        .into_iter()
        .flat_map(|service| Topic::ALL.map(|topic| (service, topic)))
        .collect()
}

/// Creates the topics that are missing, and registers the contracts of all.
///
/// # Errors
///
/// Broker or registry do not answer, a topic has another number of partitions, a contract does not fit.
pub async fn create_topics(
    kafka: &config::Kafka,
    registry: &config::Registry,
    replication: i32,
) -> anyhow::Result<engine::topics::Applied> {
    let applied = engine::topics::apply(&cluster(kafka), replication).await?;
    let topics = all_topics();
    schemas(registry, &kafka.prefix, &topics, &topics).await?;
    Ok(applied)
}

/// Connections to the read model in `schema`.
///
/// # Errors
///
/// The URL is not valid, or the database does not answer.
pub async fn read_model(database: &config::Database, schema: &str) -> anyhow::Result<PgPool> {
    let options: PgConnectOptions = database
        .url
        .parse()
        .context("the database url is not valid")?;
    PgPoolOptions::new()
        .max_connections(2)
        .acquire_timeout(DATABASE_PATIENCE)
        .connect_with(options.options([("search_path", schema)]))
        .await
        .context("the database does not answer")
}

/// Cancelled by Ctrl-C or SIGTERM.
///
/// # Errors
///
/// The system delivers no signals.
pub fn interruption() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let interrupted = stop.clone();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        interrupted.cancel();
    });
    Ok(stop)
}
