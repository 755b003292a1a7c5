//! How services reach each other.

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

use super::client_call::{self, CallMetrics, Outgoing};
use super::code;
use super::deadline::{Deadline, set_timeout, timeout};
use super::replica::{Replica, find, is_unconnected, is_unprocessed};
use super::response_body::Answer;
use crate::error;
use crate::process::{Process, chain};

/// For calls that come without a deadline.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Retries: a fifth of the calls of the last ten seconds, and ten a second for those who call seldom.
const BUDGET_WINDOW: Duration = Duration::from_secs(10);
const BUDGET_PER_SECOND: u32 = 10;
const BUDGET_SHARE: f32 = 0.2;

/// Another service, as a transport for generated clients and for raw requests. Cheap to clone.
///
/// Calls go round the replicas, over connections that are made when they are needed. Every answer is a gRPC answer: a
/// peer that is down, or breaks off, is UNAVAILABLE with a retry delay, a deadline that passes is DEADLINE_EXCEEDED. The deadline is
/// that of the request being served ([`Deadline`] among the extensions), else the one of the call, else a default,
/// which bounds only the wait for the head of the answer: a stream that nobody bounds lasts. Requests are unary: they
/// are read whole before they are sent.
///
/// Of several replicas each is asked to tell its health as it changes, from the first call on. One that does not
/// serve, such as one that is about to end, gets no call while another serves; one that does not say counts as
/// healthy. A replica that cannot be connected to, or that closes its connection before it looks at the call, costs no
/// call while another can take it. A call that may have been looked at is sent again only by a
/// [retrying](Self::retrying) peer.
///
/// Within a recorded trace each call has a client span, up to the end of its answer, and the server continues from it.
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
    /// Which replicas serve, as far as they say.
    serving: watch::Sender<Vec<bool>>,
    /// Whether any replica serves.
    any_serving: watch::Sender<bool>,
    /// The tasks that follow the replicas' health; they end with the peer.
    watchers: OnceLock<Vec<AbortOnDropHandle<()>>>,
    /// Counts calls, so that each takes the next replica.
    turn: AtomicUsize,
    budget: TpsBudget,
}

impl Peer {
    /// A peer at `addresses`, one per replica; `name` is what clients are told when it is unavailable. Call it within
    /// a tokio runtime.
    pub fn connect_lazy(name: &'static str, addresses: &[Authority]) -> Self {
        let inner = Inner {
            name,
            replicas: addresses.iter().map(Replica::connect_lazy).collect(),
            serving: watch::Sender::new(vec![true; addresses.len()]),
            any_serving: watch::Sender::new(true),
            watchers: OnceLock::new(),
            turn: AtomicUsize::new(0),
            budget: TpsBudget::new(BUDGET_WINDOW, BUDGET_PER_SECOND, BUDGET_SHARE),
        };
        Self {
            inner: Arc::new(inner),
            idempotent: false,
            metrics: None,
        }
    }

    /// The same peer, whose calls are counted and timed among those of `process`.
    #[must_use]
    pub fn measured_by(&self, process: &Process) -> Self {
        Self {
            metrics: Some(process.calls()),
            ..self.clone()
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

    /// Whether any replica serves, as far as they say; followed from now on.
    pub fn serving(&self) -> watch::Receiver<bool> {
        self.inner.watch_health();
        self.inner.any_serving.subscribe()
    }

    async fn exchange(self, request: Request<Body>) -> Response<Body> {
        let name = self.inner.name;
        let path = request.uri().path();
        let mut call = Outgoing::begin(name, path, self.metrics.clone());
        let span = call.span().clone();
        match self.send(request, &span).instrument(span.clone()).await {
            Ok(response) => {
                call.head(code(response.headers()));
                response.map(|body| Answer::wrap(body, name, call))
            }
            Err(status) => {
                call.end(Some(status.code()));
                status.into_http()
            }
        }
    }

    async fn send(&self, request: Request<Body>, span: &Span) -> Result<Response<Body>, Status> {
        let (mut head, body) = request.into_parts();
        let asked = timeout(&head.headers)
            .map_err(|malformed| Status::invalid_argument(malformed.to_string()))?;
        let served = head.extensions.get::<Deadline>().copied();
        let deadline = match (served, asked) {
            (Some(deadline), None) => deadline,
            (Some(deadline), Some(_)) if deadline.is_asked() => deadline,
            (_, Some(asked)) => Deadline::within(asked),
            (None, None) => Deadline::by_default(DEFAULT_TIMEOUT),
        };
        TraceParent::inject_headers(&mut head.headers);
        let body = body.collect().await?.to_bytes();

        self.inner.budget.deposit();
        let first = self.inner.attempt(&mut head, &body, deadline, span).await;
        let failed = match &first {
            Ok(response) => code(response.headers()),
            Err(status) => Some(status.code()),
        };
        if self.idempotent && failed == Some(Code::Unavailable) && self.inner.budget.withdraw() {
            return self.inner.attempt(&mut head, &body, deadline, span).await;
        }
        first
    }
}

impl Inner {
    /// Sends a call to the first replica that takes it.
    async fn attempt(
        &self,
        head: &mut Parts,
        body: &Bytes,
        deadline: Deadline,
        span: &Span,
    ) -> Result<Response<Body>, Status> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        for replica in self.in_turn(turn) {
            let left = deadline.left()?;
            // What nobody asked for is not passed on: at the server it would bound a stream to its end.
            if deadline.is_asked() {
                set_timeout(&mut head.headers, left);
            }
            client_call::ask(span, replica.address());
            let call = replica.call(turn / self.replicas.len(), copy(head, body.clone()));
            match timeout_at(deadline.instant(), call).await {
                Ok(Ok(response)) => return Ok(response),
                Err(_elapsed) => return Err(error::deadline()),
                Ok(Err(error)) if find::<TimeoutExpired>(&error).is_some() => {
                    return Err(error::deadline());
                }
                Ok(Err(error)) => {
                    tracing::debug!(peer = self.name, error = %chain(&error), "a call did not get through");
                    if is_unconnected(&error) {
                        replica.rest();
                    } else if !is_unprocessed(&error) {
                        break;
                    }
                }
            }
        }
        Err(error::unavailable(self.name, error::RETRY_AFTER))
    }

    /// All replicas, beginning with the one whose turn it is; those that say that they do not serve come after the
    /// others, and last those that were down a moment ago.
    fn in_turn(&self, turn: usize) -> Vec<&Replica> {
        let count = self.replicas.len();
        let mut order: Vec<_> = (turn..turn + count).map(|turn| turn % count).collect();
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

    /// Begins to follow the replicas' health, once.
    fn watch_health(&self) {
        self.watchers.get_or_init(|| {
            let watch = |(index, replica): (usize, &Replica)| {
                let (serving, any_serving) = (self.serving.clone(), self.any_serving.clone());
                let name = self.name;
                let tell = move |serves: bool| {
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
                AbortOnDropHandle::new(tokio::spawn(replica.watch(tell)))
            };
            self.replicas.iter().enumerate().map(watch).collect()
        });
    }
}

/// Whatever carries a generated client's calls: a [`Peer`], or a service in the same process.
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
        // Each attempt waits for the channel by itself.
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
