//! The span of one try of an effect.

use observability::{TraceParent, fail, names};
use tracing::Span;
use tracing::field::Empty;

use super::Attempt;

/// A try under way; whatever its call does is a child of its span. One that is dropped was abandoned: its aggregate no
/// longer waits for it.
pub struct Try {
    span: Span,
    outcome: &'static str,
}

impl Try {
    /// Goes on with `trace`; without a sampled one nothing is recorded.
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

    /// For the call.
    pub fn span(&self) -> Span {
        self.span.clone()
    }

    /// Ends it with its result; the context for what comes of it.
    pub fn end(mut self, result: &'static str) -> Option<TraceParent> {
        self.outcome = result;
        if matches!(result, "unknown" | "timed_out") {
            fail(&self.span, result);
        }
        TraceParent::of(&self.span)
    }
}

impl Drop for Try {
    fn drop(&mut self) {
        self.span.record(names::OUTCOME, self.outcome);
    }
}
