//! Access to the platform for tools and the auditor: public API, log, contracts and database.

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

/// Deadline of a call to the API.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the registry.
const REGISTRY_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for a connection to the database.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses of the log, the schema registry and the read model.
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

/// Address of the public API.
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

    /// A connection that is opened on first use.
    pub fn peer(&self) -> Peer {
        Peer::connect_lazy("the api", std::slice::from_ref(&self.address))
    }

    /// Clients of the services behind the API.
    pub fn connect(&self) -> Clients {
        // Writes are not retried by the peer: only the caller knows whether a call may be repeated.
        let peer = self.peer();
        Clients {
            address: self.address.clone(),
            orders: OrderServiceClient::new(peer.clone()),
            inventory: InventoryServiceClient::new(peer.clone()),
            query: QueryServiceClient::new(peer.retrying()),
        }
    }
}

/// Clients of the services behind the public API. Cheap to clone.
#[derive(Clone)]
pub struct Clients {
    address: Authority,
    /// Orders.
    pub orders: OrderServiceClient<Peer>,
    /// Stock.
    pub inventory: InventoryServiceClient<Peer>,
    /// The read side; its calls are retried after a connection failure.
    pub query: QueryServiceClient<Peer>,
}

impl Clients {
    /// A status as an error on one line, with the address.
    pub fn failed(&self, status: &tonic::Status) -> anyhow::Error {
        anyhow::anyhow!("{}: {}", self.address, retry::describe(status))
    }
}

/// Address of the sandbox.
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

    /// A client whose connection is opened on first use.
    pub fn connect(&self) -> SandboxServiceClient<Peer> {
        let peer = Peer::connect_lazy("the sandbox", std::slice::from_ref(&self.address));
        SandboxServiceClient::new(peer)
    }

    /// A status as an error on one line, with the address.
    pub fn failed(&self, status: &tonic::Status) -> anyhow::Error {
        anyhow::anyhow!("sandbox {}: {}", self.address, retry::describe(status))
    }
}

/// A request with a deadline of 10 s.
pub fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

/// An HTTP client without proxies, for processes on this machine or nearby.
///
/// # Errors
///
/// TLS cannot be initialized, although it is not used.
pub fn http_client(timeout: Duration) -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .timeout(timeout)
        .no_proxy()
        .build()
}

/// The root cause, such as a refused connection. The outer errors only repeat the URL.
pub fn root_cause(error: &reqwest::Error) -> String {
    let mut error: &dyn Error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}

/// Parses `host:port`.
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

/// The address of a listener as seen from this machine: an unspecified address becomes 127.0.0.1.
///
/// # Errors
///
/// None: every socket address is a valid authority.
pub fn reachable(address: SocketAddr) -> anyhow::Result<Authority> {
    let ip = if address.ip().is_unspecified() {
        [127, 0, 0, 1].into()
    } else {
        address.ip()
    };
    Ok(SocketAddr::new(ip, address.port()).to_string().parse()?)
}

/// The cluster that the flags configure.
pub fn cluster(kafka: &config::Kafka) -> Cluster {
    Cluster {
        bootstrap: kafka.bootstrap.clone(),
        prefix: kafka.prefix.clone(),
        partitions: kafka.partitions,
    }
}

/// Registers the schemas of `writes`, and looks up those of `reads`.
///
/// # Errors
///
/// The registry does not answer, or refuses a schema.
pub async fn schemas(
    registry: &config::Registry,
    prefix: &str,
    writes: &[(Service, Topic)],
    reads: &[(Service, Topic)],
) -> anyhow::Result<Schemas> {
    let mut settings = registry::Settings::new(registry.url.clone(), prefix);
    settings.deadline = REGISTRY_TIMEOUT;
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

/// Creates missing topics, and registers the contracts of all topics.
///
/// # Errors
///
/// The broker or the registry does not answer, a topic has another number of partitions, or a contract is incompatible.
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

/// A connection pool for the read model in `schema`.
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
        .acquire_timeout(DATABASE_TIMEOUT)
        .connect_with(options.options([("search_path", schema)]))
        .await
        .context("the database does not answer")
}

/// A token that SIGINT (Ctrl-C) or SIGTERM cancels.
///
/// # Errors
///
/// A signal handler cannot be installed.
pub fn shutdown_signal() -> anyhow::Result<CancellationToken> {
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        token.cancel();
    });
    Ok(shutdown)
}
