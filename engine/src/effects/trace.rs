//! The span of one try of an effect.

use observability::{TraceParent, names};
use tracing::Span;
use tracing::field::Empty;

use super::Attempt;

/// A try under way; whatever its call does is a child of its span.
pub struct Try(Span);

impl Try {
    /// Goes on with `trace`; without a sampled one nothing is recorded.
    pub fn begin(
        trace: Option<TraceParent>,
        target: &'static str,
        key: &str,
        attempt: Attempt,
    ) -> Self {
        let Some(trace) = trace.and_then(TraceParent::sampled) else {
            return Self(Span::none());
        };
        let span = tracing::info_span!(
            target: names::TRACE_TARGET,
            parent: None,
            "perform",
            { names::SPAN_NAME } = format!("perform {target}"),
            { names::EFFECT_KEY } = key,
            { names::ATTEMPT } = attempt.number,
            { names::OUTCOME } = Empty,
            { names::SPAN_STATUS } = Empty,
            { names::ERROR_TYPE } = Empty,
        );
        trace.adopt(&span);
        Self(span)
    }

    /// For the call.
    pub fn span(&self) -> Span {
        self.0.clone()
    }

    /// Ends it with its result; the context for what comes of it.
    pub fn end(self, result: &'static str) -> Option<TraceParent> {
        self.0.record(names::OUTCOME, result);
        if matches!(result, "unknown" | "timed_out") {
            self.0.record(names::SPAN_STATUS, "error");
            self.0.record(names::ERROR_TYPE, result);
        }
        TraceParent::of(&self.0)
    }
}
