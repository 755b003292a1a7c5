//! The span and the metrics of a call to a peer.

use std::sync::Arc;
use std::time::Instant;

use http::uri::Authority;
use observability::{TraceParent, TracedHistograms, names};
use prometheus::{IntCounterVec, Registry};
use tonic::Code;
use tracing::Span;
use tracing::field::Empty;

use super::methods;
use crate::error::code_name;
use crate::metrics::{RPC_BUCKETS, RPC_CLIENT_CALLS, RPC_CLIENT_SECONDS};

/// The metrics of all calls that a process makes.
#[derive(Debug)]
pub(crate) struct CallMetrics {
    calls: IntCounterVec,
    seconds: TracedHistograms,
}

impl CallMetrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            calls: RPC_CLIENT_CALLS.int_counters(registry)?,
            seconds: RPC_CLIENT_SECONDS.traced_histograms(registry, RPC_BUCKETS.to_vec())?,
        })
    }
}

/// A call that has not ended; counted when it is dropped.
pub(super) struct ClientCall {
    peer: &'static str,
    method: &'static str,
    start: Instant,
    span: Span,
    parent: Option<TraceParent>,
    metrics: Option<Arc<CallMetrics>>,
    /// Set when the head of the answer has a code, otherwise at the end of the answer.
    code: Option<Code>,
}

impl ClientCall {
    pub(super) fn begin(peer: &'static str, path: &str, metrics: Option<Arc<CallMetrics>>) -> Self {
        let method = methods::find(path);
        // Only within a recorded trace: traces begin at servers.
        let recorded = TraceParent::current().filter(|parent| parent.is_sampled());
        let span = match (method, recorded) {
            (Some(method), Some(_)) => tracing::info_span!(
                target: names::TRACE_TARGET,
                "call",
                { names::SPAN_NAME } = method.span_name(),
                { names::SPAN_KIND } = "client",
                { names::SPAN_STATUS } = Empty,
                { names::RPC_SYSTEM } = "grpc",
                { names::RPC_SERVICE } = method.service,
                { names::RPC_METHOD } = method.name,
                { names::RPC_CODE } = Empty,
                { names::SERVER_ADDRESS } = Empty,
                { names::SERVER_PORT } = Empty,
            ),
            _ => Span::none(),
        };
        Self {
            peer,
            method: method.map_or("unknown", |method| &method.path),
            start: Instant::now(),
            span,
            parent: recorded,
            metrics,
            code: None,
        }
    }

    /// The span of the call; disabled outside a recorded trace.
    pub(super) const fn span(&self) -> &Span {
        &self.span
    }

    /// Sets the code in the head of the answer: an answer without a body has it there.
    pub(super) fn set_head_code(&mut self, code: Option<Code>) {
        self.code = code;
    }

    /// The answer has ended, with the code of its trailers.
    pub(super) fn end(&mut self, code: Option<Code>) {
        self.code = code.or(self.code).or(Some(Code::Unknown));
    }
}

impl Drop for ClientCall {
    fn drop(&mut self) {
        let code = self.code.unwrap_or(Code::Cancelled);
        self.span.record(names::RPC_CODE, code as i64);
        if code != Code::Ok {
            self.span.record(names::SPAN_STATUS, "error");
        }
        let Some(metrics) = &self.metrics else { return };
        metrics
            .calls
            .with_label_values(&[self.peer, self.method, code_name(code)])
            .inc();
        let seconds = self.start.elapsed().as_secs_f64();
        let labels = [self.peer, self.method];
        metrics.seconds.observe(&labels, seconds, self.parent);
    }
}

/// Records the replica that is called; a later one overwrites an earlier one.
pub(super) fn record_server(span: &Span, address: &Authority) {
    span.record(names::SERVER_ADDRESS, address.host());
    if let Some(port) = address.port_u16() {
        span.record(names::SERVER_PORT, port);
    }
}
