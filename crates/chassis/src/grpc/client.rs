//! The gRPC client stack: calls from service to service.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::request::Parts;
use http::uri::Authority;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use observability::TraceParent;
use tokio::sync::watch;
use tokio::time::timeout_at;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::{Code, Status, TimeoutExpired};
use tower::Service;
use tower::retry::budget::{Budget as _, TpsBudget};
use tower::util::BoxCloneSyncService;
use tracing::{Instrument as _, Span};

use super::client_call::{self, CallMetrics, ClientCall};
use super::code;
use super::deadline::{Deadline, set_timeout, timeout};
use super::replica::{Replica, find, is_unconnected, is_unprocessed};
use super::response_body::ResponseBody;
use crate::error;
use crate::process::{Process, chain};

/// Timeout of calls without a deadline.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Retry budget: a fifth of the calls of the last ten seconds, plus ten a second for callers with few calls.
const BUDGET_WINDOW: Duration = Duration::from_secs(10);
const BUDGET_PER_SECOND: u32 = 10;
const BUDGET_SHARE: f32 = 0.2;

/// Another service, as a transport for generated clients and for raw requests. Cheap to clone.
///
/// Calls are distributed round-robin over the replicas, over connections that are opened on demand. Every answer is a
/// gRPC answer: a peer that is down or breaks off is UNAVAILABLE with a retry delay, a deadline that passes is
/// DEADLINE_EXCEEDED. The deadline is that of the request being served ([`Deadline`] among the extensions), otherwise
/// that of the call, otherwise a default. The default bounds only the wait for the head of the answer, so a stream
/// without a deadline is not cut. Requests are unary: the body is read completely before it is sent.
///
/// With several replicas, the peer subscribes to the health of each from the first call on. A replica that does not
/// serve, for example because it is shutting down, gets no call while another serves; one without a health service
/// counts as healthy. When a replica cannot be connected to, or closes its connection before it processes the call,
/// the call goes to another replica. A call that may have been processed is sent again only by a
/// [retrying](Self::retrying) peer.
///
/// Within a recorded trace each call has a client span until the end of its answer; the server span is its child.
#[derive(Clone, Debug)]
pub struct Peer {
    inner: Arc<Inner>,
    idempotent: bool,
    metrics: Option<Arc<CallMetrics>>,
}

#[derive(Debug)]
struct Inner {
    name: &'static str,
    replicas: Vec<Replica>,
    /// Which replicas serve, as they last reported.
    serving: watch::Sender<Vec<bool>>,
    /// Whether any replica serves.
    any_serving: watch::Sender<bool>,
    /// The tasks that watch the health of the replicas; they end with the peer.
    watchers: OnceLock<Vec<AbortOnDropHandle<()>>>,
    /// Counts calls, for the round-robin over the replicas.
    next_call: AtomicUsize,
    budget: TpsBudget,
}

impl Peer {
    /// A peer at `addresses`, one per replica; `name` appears in the status when it is unavailable. Must be called
    /// within a tokio runtime.
    pub fn connect_lazy(name: &'static str, addresses: &[Authority]) -> Self {
        let inner = Inner {
            name,
            replicas: addresses.iter().map(Replica::connect_lazy).collect(),
            serving: watch::Sender::new(vec![true; addresses.len()]),
            any_serving: watch::Sender::new(true),
            watchers: OnceLock::new(),
            next_call: AtomicUsize::new(0),
            budget: TpsBudget::new(BUDGET_WINDOW, BUDGET_PER_SECOND, BUDGET_SHARE),
        };
        Self {
            inner: Arc::new(inner),
            idempotent: false,
            metrics: None,
        }
    }

    /// The same peer, with its calls in the metrics of `process`.
    #[must_use]
    pub fn measured_by(&self, process: &Process) -> Self {
        Self {
            metrics: Some(process.calls()),
            ..self.clone()
        }
    }

    /// The same peer for idempotent calls: a call that ended UNAVAILABLE is sent again once, within a budget.
    #[must_use]
    pub fn retrying(&self) -> Self {
        Self {
            idempotent: true,
            ..self.clone()
        }
    }

    /// Whether any replica serves, as they last reported; starts the health subscriptions.
    pub fn serving(&self) -> watch::Receiver<bool> {
        self.inner.watch_health();
        self.inner.any_serving.subscribe()
    }

    async fn exchange(self, request: Request<Body>) -> Response<Body> {
        let name = self.inner.name;
        let path = request.uri().path();
        let mut call = ClientCall::begin(name, path, self.metrics.clone());
        let span = call.span().clone();
        match self.send(request, &span).instrument(span.clone()).await {
            Ok(response) => {
                call.set_head_code(code(response.headers()));
                response.map(|body| ResponseBody::wrap(body, name, call))
            }
            Err(status) => {
                call.end(Some(status.code()));
                status.into_http()
            }
        }
    }

    async fn send(&self, request: Request<Body>, span: &Span) -> Result<Response<Body>, Status> {
        let (mut head, body) = request.into_parts();
        let requested = timeout(&head.headers)
            .map_err(|malformed| Status::invalid_argument(malformed.to_string()))?;
        let served = head.extensions.get::<Deadline>().copied();
        let deadline = match (served, requested) {
            (Some(deadline), None) => deadline,
            (Some(deadline), Some(_)) if deadline.is_explicit() => deadline,
            (_, Some(requested)) => Deadline::within(requested),
            (None, None) => Deadline::by_default(DEFAULT_TIMEOUT),
        };
        TraceParent::inject_headers(&mut head.headers);
        let body = body.collect().await?.to_bytes();

        self.inner.budget.deposit();
        let first = self
            .inner
            .try_replicas(&mut head, &body, deadline, span)
            .await;
        let first_code = match &first {
            Ok(response) => code(response.headers()),
            Err(status) => Some(status.code()),
        };
        if self.idempotent && first_code == Some(Code::Unavailable) && self.inner.budget.withdraw()
        {
            return self
                .inner
                .try_replicas(&mut head, &body, deadline, span)
                .await;
        }
        first
    }
}

impl Inner {
    /// Sends a call to the replicas in order until one accepts it.
    async fn try_replicas(
        &self,
        head: &mut Parts,
        body: &Bytes,
        deadline: Deadline,
        span: &Span,
    ) -> Result<Response<Body>, Status> {
        let call_number = self.next_call.fetch_add(1, Ordering::Relaxed);
        for replica in self.candidates(call_number) {
            let left = deadline.left()?;
            // The default is not sent: the server would apply it to the whole stream.
            if deadline.is_explicit() {
                set_timeout(&mut head.headers, left);
            }
            client_call::record_server(span, replica.address());
            let round = call_number / self.replicas.len();
            let call = replica.call(round, copy(head, body.clone()));
            match timeout_at(deadline.instant(), call).await {
                Ok(Ok(response)) => return Ok(response),
                Err(_elapsed) => return Err(error::deadline()),
                Ok(Err(error)) if find::<TimeoutExpired>(&error).is_some() => {
                    return Err(error::deadline());
                }
                Ok(Err(error)) => {
                    tracing::debug!(peer = self.name, error = %chain(&error), "a call failed before an answer");
                    if is_unconnected(&error) {
                        replica.mark_down();
                    } else if !is_unprocessed(&error) {
                        break;
                    }
                }
            }
        }
        Err(error::unavailable(self.name, error::RETRY_AFTER))
    }

    /// All replicas in round-robin order. Those that report that they do not serve come after the others, those that
    /// are marked as down come last.
    fn candidates(&self, call_number: usize) -> Vec<&Replica> {
        let count = self.replicas.len();
        let mut order: Vec<_> = (call_number..call_number + count)
            .map(|number| number % count)
            .collect();
        if count > 1 {
            self.watch_health();
            let serving = self.serving.borrow();
            order.sort_by_key(|&index| (self.replicas[index].is_down(), !serving[index]));
        }
        order
            .into_iter()
            .map(|index| &self.replicas[index])
            .collect()
    }

    /// Subscribes to the health of the replicas, once.
    fn watch_health(&self) {
        self.watchers.get_or_init(|| {
            let watch = |(index, replica): (usize, &Replica)| {
                let (serving, any_serving) = (self.serving.clone(), self.any_serving.clone());
                let name = self.name;
                let report = move |serves: bool| {
                    let changed = serving.send_if_modified(|serving| {
                        std::mem::replace(&mut serving[index], serves) != serves
                    });
                    if changed {
                        tracing::debug!(peer = name, replica = index, serves, "health changed");
                        any_serving.send_if_modified(|any| {
                            let now = serving.borrow().contains(&true);
                            std::mem::replace(any, now) != now
                        });
                    }
                };
                AbortOnDropHandle::new(tokio::spawn(replica.watch_health(report)))
            };
            self.replicas.iter().enumerate().map(watch).collect()
        });
    }
}

/// The transport of a generated client: a [`Peer`], or a service in the same process.
pub type Transport = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

impl From<Peer> for Transport {
    fn from(peer: Peer) -> Self {
        Self::new(peer)
    }
}

impl Service<Request<Body>> for Peer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Each try waits for its channel.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let peer = self.clone();
        Box::pin(async move { Ok(peer.exchange(request).await) })
    }
}

fn copy(head: &Parts, body: Bytes) -> Request<Body> {
    let mut request = Request::new(Body::new(Full::new(body)));
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = head.uri.clone();
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = head.headers.clone();
    request
}
