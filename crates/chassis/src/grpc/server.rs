//! The gRPC server that every service is reached through.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;
use std::{fmt, io};

use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse;
use contracts::DESCRIPTOR_SET;
use tokio::net::TcpListener;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tower::Service;

use super::client::Peer;
use super::health::{self, Served};
use super::methods::{HEALTH_SERVICE, REFLECTION_SERVICE};
use super::{is_grpc, layers};
use crate::error;
use crate::process::Process;

const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is in use or not ours.
    #[error("cannot listen on {address} for {server}")]
    Bind {
        /// Whose address it is.
        server: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Two servers of one process have the same name.
    #[error("cannot register the metrics of {server}")]
    Metrics {
        /// The server.
        server: &'static str,
        /// What the registry says.
        source: prometheus::Error,
    },
    /// The contracts cannot be served by reflection.
    #[error("cannot describe the services of {server}")]
    Reflection {
        /// The server.
        server: &'static str,
        /// What is wrong with them.
        source: tonic_reflection::server::Error,
    },
}

/// How much a server takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest request, bytes.
    pub request_bytes: usize,
    /// Most calls at once, over all connections; more are turned away with RESOURCE_EXHAUSTED.
    pub in_flight: usize,
    /// Most calls at once on one connection; more wait at the client.
    pub streams_per_connection: u32,
    /// For calls that come without a deadline.
    pub default_deadline: Duration,
    /// For calls that were begun when the process shuts down. Workers hold out as long to answer them; who waits
    /// longer waits for something that does not happen here any more.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes: 1024 * 1024,
            in_flight: 4096,
            streams_per_connection: 1024,
            default_deadline: Duration::from_secs(10),
            grace: Duration::from_secs(5),
        }
    }
}

/// A server whose port is open, but that does not serve yet: connections wait until [`Self::serve`].
///
/// Besides the services added to it, it has reflection (v1) and health (per service and as a whole, following the
/// readiness of the process, and that of the peer which serves it).
pub struct Server {
    name: &'static str,
    listener: TcpListener,
    address: SocketAddr,
    limits: Limits,
    router: Router,
    services: Vec<Served>,
    rest: Option<RestEdge>,
}

type RestEdge = Box<dyn FnOnce(Router) -> Router + Send>;

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Server")
            .field("name", &self.name)
            .field("address", &self.address)
            .field("services", &self.services)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Opens the port of the server `name`, which stands in logs and metrics and is unique in its process.
    ///
    /// # Errors
    ///
    /// [`Error::Bind`].
    pub async fn bind(name: &'static str, address: SocketAddr) -> Result<Self, Error> {
        let bind = async {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, address) = bind.await.map_err(|source| Error::Bind {
            server: name,
            address,
            source,
        })?;
        Ok(Self {
            name,
            listener,
            address,
            limits: Limits::default(),
            router: Router::new().fallback(unknown),
            services: Vec::new(),
            rest: None,
        })
    }

    /// The address that was bound: the port is never 0.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Replaces the default limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Adds a generated gRPC service.
    #[must_use]
    pub fn add_service<S>(mut self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        self.services.push(Served::here(S::NAME));
        self.router = Routes::from(self.router)
            .add_service(service)
            .into_axum_router();
        self
    }

    /// Adds a gRPC service that is served by routes of its own.
    #[must_use]
    pub fn add_routes(mut self, service: &str, routes: Router) -> Self {
        self.services.push(Served::here(service));
        self.router = self.router.merge(routes);
        self
    }

    /// Adds a gRPC service that `routes` forward to `peer`: it is as healthy as the peer is.
    #[must_use]
    pub fn add_forwarded(mut self, service: &str, routes: Router, peer: &Peer) -> Self {
        self.services.push(Served::by(service, peer));
        self.router = self.router.merge(routes);
        self
    }

    /// Adds plain HTTP routes, over HTTP/1.1 too, inside the stack. `edge` wraps everything, outside the stack: it
    /// turns the gRPC answers of the stack and the routes into what a caller of plain HTTP understands.
    #[must_use]
    pub fn add_rest(
        mut self,
        routes: Router,
        edge: impl FnOnce(Router) -> Router + Send + 'static,
    ) -> Self {
        self.router = self.router.merge(routes);
        self.rest = Some(Box::new(edge));
        self
    }

    /// Serves until the process shuts down, then finishes the calls that were begun; streams end at once.
    ///
    /// # Errors
    ///
    /// [`Error::Metrics`], [`Error::Reflection`].
    pub fn serve(mut self, process: &Process) -> Result<(), Error> {
        let (reporter, health) = tonic_health::server::health_reporter();
        let names = self.services.iter().map(|service| &service.name);
        let reflection = reflection(names).map_err(|source| Error::Reflection {
            server: self.name,
            source,
        })?;
        let routes = Routes::from(self.router)
            .add_service(health)
            .add_service(reflection);
        let stacked = layers::stack(routes.into_axum_router(), self.name, &self.limits, process)
            .map_err(|source| Error::Metrics {
                server: self.name,
                source,
            })?;
        let http1 = self.rest.is_some();
        let router = match self.rest.take() {
            Some(edge) => edge(stacked),
            None => stacked,
        };

        let mut server = tonic::transport::Server::builder()
            .accept_http1(http1)
            .max_concurrent_streams(self.limits.streams_per_connection)
            .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT));
        let incoming = TcpIncoming::from(self.listener).with_nodelay(Some(true));
        let shutdown = process.shutdown();
        tracing::info!(server = self.name, address = %self.address, "serving");
        process.spawn(format!("{} server", self.name), async move {
            server
                .add_routes(Routes::from(router).prepare())
                .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned())
                .await
        });
        process.spawn(
            format!("{} health", self.name),
            health::follow(process.clone(), reporter, self.services),
        );
        Ok(())
    }
}

fn reflection<'a>(
    services: impl Iterator<Item = &'a String>,
) -> Result<
    tonic_reflection::server::v1::ServerReflectionServer<
        impl tonic_reflection::server::v1::ServerReflection,
    >,
    tonic_reflection::server::Error,
> {
    let builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // So that clients that know us by reflection can read the details of errors.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .with_service_name(HEALTH_SERVICE)
        .with_service_name(REFLECTION_SERVICE);
    services
        .fold(builder, |builder, service| {
            builder.with_service_name(service)
        })
        .build_v1()
}

/// The answer to a call that no route matches.
async fn unknown(request: Request) -> axum::response::Response {
    let status = if is_grpc(request.headers()) {
        Status::unimplemented("no such method")
    } else {
        error::not_found("resource")
    };
    status.into_http()
}
