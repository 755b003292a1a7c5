//! The span of a command that is being written.

use contracts::{Service, Topic};
use observability::{TraceParent, names};
use tracing::Span;

use crate::log::Header;

/// The span of a command from its send until it is durable, or dropped.
pub struct SendSpan {
    /// Disabled unless the trace is sampled.
    _span: Span,
    carried: Option<TraceParent>,
}

impl SendSpan {
    /// Continues `trace`; unless it is sampled, there is neither a span nor a header.
    pub fn begin(
        service: Service,
        kind: &'static str,
        aggregate_id: &str,
        trace: Option<TraceParent>,
    ) -> Self {
        let Some(trace) = trace.and_then(TraceParent::sampled) else {
            return Self {
                _span: Span::none(),
                carried: None,
            };
        };
        let span = tracing::info_span!(
            target: names::TRACE_TARGET,
            parent: None,
            "send",
            { names::SPAN_NAME } = format!("send {kind}"),
            { names::SPAN_KIND } = "producer",
            { names::MESSAGING_SYSTEM } = "kafka",
            { names::MESSAGING_OPERATION } = "send",
            { names::MESSAGING_DESTINATION } = Topic::Commands.of(service, ""),
            { names::MESSAGING_KEY } = aggregate_id,
        );
        trace.adopt(&span);
        Self {
            carried: TraceParent::of(&span).or(Some(trace)),
            _span: span,
        }
    }

    /// Continues the trace of the current span.
    pub fn of_call(service: Service, kind: &'static str, aggregate_id: &str) -> Self {
        Self::begin(service, kind, aggregate_id, TraceParent::current())
    }

    /// The trace header for the record.
    pub fn header(&self) -> Option<Header> {
        self.carried.map(TraceParent::record_header)
    }
}
