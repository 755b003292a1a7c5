//! Counts and times calls.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use axum::body::HttpBody as _;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};
use tonic::Code;

use super::guarded::{Guard, Guarded};
use super::label;
use crate::error::code_name;
use crate::names;

/// From the loopback's fastest answers to the default deadline, in seconds.
const BUCKETS: [f64; 13] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// The metrics of one server.
pub(super) struct Metrics {
    /// Finished calls, by method and code. A call whose client left before the end counts as `CANCELLED`.
    calls: IntCounterVec,
    /// Seconds from the request's head to the end of its answer, by method.
    seconds: HistogramVec,
    /// Calls being served.
    in_flight: IntGauge,
}

impl Metrics {
    pub(super) fn register(server: &str, registry: &Registry) -> Result<Self, prometheus::Error> {
        let calls =
            Opts::new(names::RPC_CALLS, "Finished calls.").const_label(names::LABEL_SERVER, server);
        let seconds = HistogramOpts::new(
            names::RPC_SECONDS,
            "Seconds from a request's head to the end of its answer.",
        )
        .const_label(names::LABEL_SERVER, server)
        .buckets(BUCKETS.to_vec());
        let in_flight = Opts::new(names::RPC_IN_FLIGHT, "Calls being served.")
            .const_label(names::LABEL_SERVER, server);
        let metrics = Self {
            calls: IntCounterVec::new(calls, &[names::LABEL_METHOD, names::LABEL_CODE])?,
            seconds: HistogramVec::new(seconds, &[names::LABEL_METHOD])?,
            in_flight: IntGauge::with_opts(in_flight)?,
        };
        registry.register(Box::new(metrics.calls.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        registry.register(Box::new(metrics.in_flight.clone()))?;
        Ok(metrics)
    }
}

pub(super) async fn measure(
    State(metrics): State<Arc<Metrics>>,
    request: Request,
    next: Next,
) -> Response {
    let mut call = Call::begin(metrics, label(&request));
    let response = next.run(request).await;
    // An answer without a body carries its code at the head.
    call.code = code(response.headers()).or_else(|| plain_code(response.status()));
    if response.body().is_end_stream() {
        call.end(None);
    }
    response.map(|body| Guarded::wrap(body, call))
}

/// A call that is being served; counted when it is dropped.
struct Call {
    metrics: Arc<Metrics>,
    method: Cow<'static, str>,
    start: Instant,
    code: Option<Code>,
}

impl Call {
    fn begin(metrics: Arc<Metrics>, method: Cow<'static, str>) -> Self {
        metrics.in_flight.inc();
        Self {
            metrics,
            method,
            start: Instant::now(),
            code: None,
        }
    }
}

impl Guard for Call {
    fn end(&mut self, trailers: Option<&HeaderMap>) {
        self.code = trailers.and_then(code).or(self.code).or(Some(Code::Ok));
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let code = code_name(self.code.unwrap_or(Code::Cancelled));
        self.metrics.in_flight.dec();
        self.metrics
            .calls
            .with_label_values(&[&*self.method, code])
            .inc();
        self.metrics
            .seconds
            .with_label_values(&[&*self.method])
            .observe(self.start.elapsed().as_secs_f64());
    }
}

fn code(headers: &HeaderMap) -> Option<Code> {
    headers
        .get(names::GRPC_STATUS)
        .map(|value| Code::from_bytes(value.as_bytes()))
}

/// The code of an answer that is not gRPC; `None` when it may still succeed.
fn plain_code(status: StatusCode) -> Option<Code> {
    match status.as_u16() {
        404 => Some(Code::NotFound),
        400..500 => Some(Code::InvalidArgument),
        500.. => Some(Code::Internal),
        _ => None,
    }
}
