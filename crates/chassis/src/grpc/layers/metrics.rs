//! Counts calls and measures their duration.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use axum::body::HttpBody as _;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use observability::{Metric, TraceParent, TracedHistograms};
use prometheus::{HistogramOpts, IntCounterVec, IntGauge, Registry};
use tonic::Code;

use super::guarded_body::{Guard, GuardedBody};
use super::label;
use crate::error::code_name;
use crate::grpc::code;
use crate::metrics::{RPC_BUCKETS, RPC_CALLS, RPC_IN_FLIGHT, RPC_SECONDS};
use crate::names;

/// The metrics of one server.
pub(super) struct Metrics {
    /// Finished calls, by method and code. A call whose client disconnected before the end counts as `CANCELLED`.
    calls: IntCounterVec,
    /// Seconds from the request's head to the end of its answer, by method.
    seconds: TracedHistograms,
    /// Calls being served.
    in_flight: IntGauge,
}

impl Metrics {
    pub(super) fn register(server: &str, registry: &Registry) -> Result<Self, prometheus::Error> {
        let labelled = |metric: Metric| metric.opts().const_label(names::LABEL_SERVER, server);
        let seconds = HistogramOpts::from(labelled(RPC_SECONDS)).buckets(RPC_BUCKETS.to_vec());
        let labels = [names::LABEL_METHOD, names::LABEL_CODE];
        let metrics = Self {
            calls: IntCounterVec::new(labelled(RPC_CALLS), &labels)?,
            seconds: TracedHistograms::register(seconds, &[names::LABEL_METHOD], registry)?,
            in_flight: IntGauge::with_opts(labelled(RPC_IN_FLIGHT))?,
        };
        registry.register(Box::new(metrics.calls.clone()))?;
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
    // An answer without a body has its code in the headers.
    call.code = code(response.headers()).or_else(|| plain_code(response.status()));
    if response.body().is_end_stream() {
        call.end(None);
    }
    response.map(|body| GuardedBody::wrap(body, call))
}

/// A call that is being served; counted when it is dropped.
struct Call {
    metrics: Arc<Metrics>,
    method: Cow<'static, str>,
    start: Instant,
    parent: Option<TraceParent>,
    code: Option<Code>,
}

impl Call {
    fn begin(metrics: Arc<Metrics>, method: Cow<'static, str>) -> Self {
        metrics.in_flight.inc();
        Self {
            metrics,
            method,
            start: Instant::now(),
            parent: TraceParent::current(),
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
        let seconds = self.start.elapsed().as_secs_f64();
        self.metrics
            .seconds
            .observe(&[&*self.method], seconds, self.parent);
    }
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
