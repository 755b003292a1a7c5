//! The span of one try of an effect.

use observability::{TraceParent, mark_failed, names};
use tracing::Span;
use tracing::field::Empty;

use super::Attempt;

/// Span of a running try; spans of its call are children. A dropped one was abandoned: its aggregate no longer waits
/// for it.
pub struct AttemptSpan {
    span: Span,
    outcome: &'static str,
}

impl AttemptSpan {
    /// Continues `trace`; nothing is recorded unless it is sampled.
    pub fn begin(
        trace: Option<TraceParent>,
        target: &'static str,
        key: &str,
        attempt: Attempt,
    ) -> Self {
        let Some(trace) = trace.and_then(TraceParent::sampled) else {
            return Self::of(Span::none());
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
        Self::of(span)
    }

    fn of(span: Span) -> Self {
        Self {
            span,
            outcome: "abandoned",
        }
    }

    /// The span for the call.
    pub fn span(&self) -> Span {
        self.span.clone()
    }

    /// Ends the try with its result; returns the context for its answer.
    pub fn end(mut self, result: &'static str) -> Option<TraceParent> {
        self.outcome = result;
        if matches!(result, "unknown" | "timed_out") {
            mark_failed(&self.span, result);
        }
        TraceParent::of(&self.span)
    }
}

impl Drop for AttemptSpan {
    fn drop(&mut self) {
        self.span.record(names::OUTCOME, self.outcome);
    }
}
