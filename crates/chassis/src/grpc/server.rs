//! The gRPC server stack of every service.

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
use super::health::{self, ServiceHealth};
use super::methods::{HEALTH_SERVICE, REFLECTION_SERVICE};
use super::{is_grpc, layers};
use crate::error;
use crate::process::Process;

const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is in use or belongs to another host.
    #[error("cannot listen on {address} for {server}")]
    Bind {
        /// The server.
        server: &'static str,
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Two servers of one process have the same name.
    #[error("cannot register the metrics of {server}")]
    Metrics {
        /// The server.
        server: &'static str,
        /// The error of the metrics registry.
        source: prometheus::Error,
    },
    /// The contracts cannot be served by reflection.
    #[error("cannot describe the services of {server}")]
    Reflection {
        /// The server.
        server: &'static str,
        /// The error of the reflection service.
        source: tonic_reflection::server::Error,
    },
}

/// The limits of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest request, in bytes.
    pub request_bytes: usize,
    /// Concurrent calls over all connections; further calls are refused with RESOURCE_EXHAUSTED.
    pub in_flight: usize,
    /// Concurrent calls on one connection; further calls wait at the client.
    pub streams_per_connection: u32,
    /// Timeout of calls without a deadline.
    pub default_deadline: Duration,
    /// Time for the calls in flight when the process shuts down. Workers keep running for the same time to answer
    /// them; a call that waits longer would get no answer here.
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

/// A server with an open port: connections wait until [`Self::serve`].
///
/// Besides the added services, it has reflection (v1) and health: per service and for the whole server, from the
/// readiness of the process and, for forwarded services, of the peer.
pub struct Server {
    name: &'static str,
    listener: TcpListener,
    address: SocketAddr,
    limits: Limits,
    router: Router,
    services: Vec<ServiceHealth>,
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
    /// Opens the port of the server `name`, which is its name in logs and metrics and unique in its process.
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

    /// The bound address; its port is never 0.
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
        self.services.push(ServiceHealth::local(S::NAME));
        self.router = Routes::from(self.router)
            .add_service(service)
            .into_axum_router();
        self
    }

    /// Adds a gRPC service that `routes` serve.
    #[must_use]
    pub fn add_routes(mut self, service: &str, routes: Router) -> Self {
        self.services.push(ServiceHealth::local(service));
        self.router = self.router.merge(routes);
        self
    }

    /// Adds a gRPC service that `routes` forward to `peer`; its health is that of the peer.
    #[must_use]
    pub fn add_forwarded(mut self, service: &str, routes: Router, peer: &Peer) -> Self {
        self.services.push(ServiceHealth::forwarded(service, peer));
        self.router = self.router.merge(routes);
        self
    }

    /// Adds plain HTTP routes inside the layers and accepts HTTP/1.1. `edge` wraps everything outside the layers: it
    /// translates the gRPC answers of layers and routes into plain HTTP answers.
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

    /// Serves until the process shuts down, then finishes the calls in flight; streams end at once.
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
        // Clients that use reflection need these to decode the details of errors.
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
