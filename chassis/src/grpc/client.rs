//! How services reach each other.

use std::convert::Infallible;
use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use observability::TraceParent;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, ConnectError, Status, TimeoutExpired};
use tower::retry::budget::{Budget as _, TpsBudget};
use tower::{Service, ServiceExt as _};

use super::deadline::{Deadline, set_timeout, timeout};
use crate::error;
use crate::names::GRPC_STATUS;
use crate::process::chain;

/// Connections to each replica: one HTTP/2 connection is one lock.
const CONNECTIONS: usize = 4;
/// A replica that could not be connected to is the last choice for this long.
const REST: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// For calls that come without a deadline.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Retries: a fifth of the calls of the last ten seconds, and ten a second for those who call seldom.
const BUDGET_WINDOW: Duration = Duration::from_secs(10);
const BUDGET_PER_SECOND: u32 = 10;
const BUDGET_SHARE: f32 = 0.2;

/// Another service, as a transport for generated clients and for raw requests. Cheap to clone.
///
/// Calls go round the replicas, over connections that are made when they are needed. Every answer is a gRPC answer: a
/// peer that is down is UNAVAILABLE with a retry delay, a deadline that passes is DEADLINE_EXCEEDED. The deadline is
/// that of the request being served ([`Deadline`] among the extensions), else the one of the call, else a default.
/// Requests are unary: they are read whole before they are sent.
///
/// A replica that cannot be connected to costs no call while another can: the call has not left yet, and goes there.
/// One that has left is sent again only by a [retrying](Self::retrying) peer.
#[derive(Clone, Debug)]
pub struct Peer {
    inner: Arc<Inner>,
    idempotent: bool,
}

#[derive(Debug)]
struct Inner {
    name: &'static str,
    replicas: Vec<Replica>,
    /// Counts calls, so that each takes the next replica.
    turn: AtomicUsize,
    budget: TpsBudget,
}

/// One address. tonic's own balancer is not used: it prefers connections that have nothing to do, and those that fail
/// at once have nothing to do.
#[derive(Debug)]
struct Replica {
    connections: Vec<Channel>,
    down_until: Mutex<Option<Instant>>,
}

impl Peer {
    /// A peer at `addresses`, one per replica; `name` is what clients are told when it is unavailable. Call it within
    /// a tokio runtime.
    pub fn connect_lazy(name: &'static str, addresses: &[Authority]) -> Self {
        let inner = Inner {
            name,
            replicas: addresses.iter().map(Replica::connect_lazy).collect(),
            turn: AtomicUsize::new(0),
            budget: TpsBudget::new(BUDGET_WINDOW, BUDGET_PER_SECOND, BUDGET_SHARE),
        };
        Self {
            inner: Arc::new(inner),
            idempotent: false,
        }
    }

    /// The same peer for calls that may be repeated: one that ended UNAVAILABLE is sent again once, within a budget.
    #[must_use]
    pub fn retrying(&self) -> Self {
        Self {
            idempotent: true,
            ..self.clone()
        }
    }

    async fn exchange(self, request: Request<Body>) -> Response<Body> {
        match self.send(request).await {
            Ok(response) => response,
            Err(status) => status.into_http(),
        }
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (mut head, body) = request.into_parts();
        let asked = timeout(&head.headers)
            .map_err(|malformed| Status::invalid_argument(malformed.to_string()))?;
        let deadline = match head.extensions.get::<Deadline>() {
            Some(deadline) => deadline.instant(),
            None => Instant::now() + asked.unwrap_or(DEFAULT_TIMEOUT),
        };
        TraceParent::inject_headers(&mut head.headers);
        let body = body.collect().await?.to_bytes();

        self.inner.budget.deposit();
        let first = self.inner.attempt(&mut head, &body, deadline).await;
        let failed = match &first {
            Ok(response) => code(response.headers()),
            Err(status) => Some(status.code()),
        };
        if self.idempotent && failed == Some(Code::Unavailable) && self.inner.budget.withdraw() {
            return self.inner.attempt(&mut head, &body, deadline).await;
        }
        first
    }
}

impl Inner {
    /// Sends a call to the first replica that can be reached.
    async fn attempt(
        &self,
        head: &mut Parts,
        body: &Bytes,
        deadline: Instant,
    ) -> Result<Response<Body>, Status> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        for replica in self.in_turn(turn) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(error::deadline());
            }
            set_timeout(&mut head.headers, left);
            match replica
                .call(turn / self.replicas.len(), copy(head, body.clone()))
                .await
            {
                Ok(response) => return Ok(response),
                Err(error) if is::<TimeoutExpired>(&error) => return Err(error::deadline()),
                Err(error) => {
                    tracing::debug!(peer = self.name, error = %chain(&error), "a call did not get through");
                    if !is::<ConnectError>(&error) {
                        break;
                    }
                    replica.rest();
                }
            }
        }
        Err(error::unavailable(self.name, error::RETRY_AFTER))
    }

    /// All replicas, beginning with the one whose turn it is; those that were down a moment ago come last.
    fn in_turn(&self, turn: usize) -> Vec<&Replica> {
        let count = self.replicas.len();
        let mut order: Vec<_> = (turn..turn + count)
            .map(|turn| &self.replicas[turn % count])
            .collect();
        if count > 1 {
            order.sort_by_key(|replica| replica.is_down());
        }
        order
    }
}

impl Replica {
    fn connect_lazy(address: &Authority) -> Self {
        let endpoint = endpoint(address);
        let connections = (0..CONNECTIONS).map(|_| endpoint.connect_lazy()).collect();
        Self {
            connections,
            down_until: Mutex::new(None),
        }
    }

    async fn call(
        &self,
        turn: usize,
        request: Request<Body>,
    ) -> Result<Response<Body>, tonic::transport::Error> {
        let mut connection = self.connections[turn % CONNECTIONS].clone();
        connection.ready().await?.call(request).await
    }

    fn rest(&self) {
        *self
            .down_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + REST);
    }

    fn is_down(&self) -> bool {
        let down_until = *self
            .down_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        down_until.is_some_and(|until| Instant::now() < until)
    }
}

impl Service<Request<Body>> for Peer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Each attempt waits for the channel by itself.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let peer = self.clone();
        Box::pin(async move { Ok(peer.exchange(request).await) })
    }
}

fn endpoint(address: &Authority) -> Endpoint {
    let uri = http::Uri::builder()
        .scheme("http")
        .authority(address.clone())
        .path_and_query("/")
        .build();
    Endpoint::from(uri.expect("scheme, authority and path make a URI"))
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
}

fn copy(head: &Parts, body: Bytes) -> Request<Body> {
    let mut request = Request::new(Body::new(Full::new(body)));
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = head.uri.clone();
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = head.headers.clone();
    request
}

/// The code of an answer without a body; a successful one has its code in the trailers.
fn code(headers: &HeaderMap) -> Option<Code> {
    headers
        .get(GRPC_STATUS)
        .map(|code| Code::from_bytes(code.as_bytes()))
}

/// Whether an `E` stands in the chain of causes.
fn is<E: Error + 'static>(error: &tonic::transport::Error) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<E>() {
            return true;
        }
        cause = error.source();
    }
    false
}
