//! The spans of a window.
//!
//! One command is one span, a child of the context in its record; the records that it produces carry its context. A
//! record without a sampled context makes no span and costs only the header lookup. The transaction is a separate span,
//! linked to the spans of its commands, because it belongs to many traces.

use contracts::{Contract, Topic};
use observability::{TraceParent, mark_failed, names};
use tracing::Span;
use tracing::field::Empty;

use crate::log::Input;
use crate::{Decider, headers};

/// The context of a record, if it is sampled.
pub fn context_of(input: &Input) -> Option<TraceParent> {
    TraceParent::parse(input.header(headers::TRACEPARENT)?).and_then(TraceParent::sampled)
}

/// The spans of the commands in the open window; they end when the window does.
#[derive(Default)]
pub struct WindowSpans(Vec<Span>);

impl WindowSpans {
    /// Begins the span of a command; returns the context for the records that it produces.
    pub fn begin<D: Decider>(&mut self, input: &Input, kind: &'static str) -> Option<TraceParent> {
        let parent = context_of(input)?;
        let service = D::Contract::SERVICE;
        let span = tracing::info_span!(
            target: names::TRACE_TARGET,
            parent: None,
            "process",
            { names::SPAN_NAME } = format!("process {kind}"),
            { names::SPAN_KIND } = "consumer",
            { names::MESSAGING_SYSTEM } = "kafka",
            { names::MESSAGING_OPERATION } = "process",
            { names::MESSAGING_DESTINATION } = Topic::Commands.of(service, ""),
            { names::MESSAGING_GROUP } = service.name(),
            { names::MESSAGING_PARTITION } = input.partition,
            { names::MESSAGING_OFFSET } = input.offset,
            { names::MESSAGING_KEY } = input.key.as_deref().map(String::from_utf8_lossy).as_deref(),
            { names::OUTCOME } = Empty,
            { names::SPAN_STATUS } = Empty,
            { names::ERROR_TYPE } = Empty,
        );
        if span.is_disabled() {
            // Not recorded here, but downstream services may record.
            return Some(parent);
        }
        parent.adopt(&span);
        let carried = TraceParent::of(&span).or(Some(parent));
        self.0.push(span);
        carried
    }

    /// Records the outcome of the last begun command, if it was traced.
    pub fn decided(&mut self, trace: Option<TraceParent>, outcome: &'static str) {
        if trace.is_some()
            && let Some(span) = self.0.last()
        {
            span.record(names::OUTCOME, outcome);
        }
    }

    /// Marks the record's span as a dead letter; `trace` is its context if its span has begun.
    pub fn dead_letter<D: Decider>(
        &mut self,
        trace: Option<TraceParent>,
        input: &Input,
        class: &'static str,
    ) {
        if trace
            .or_else(|| self.begin::<D>(input, "dead letter"))
            .is_some()
            && let Some(span) = self.0.last()
        {
            mark_failed(span, class);
        }
    }

    /// The span of the transaction, if any command of the window was traced.
    pub fn batch<D: Decider>(&self, inputs: usize) -> Option<Span> {
        if self.0.is_empty() {
            return None;
        }
        let span = tracing::info_span!(
            target: names::TRACE_TARGET,
            parent: None,
            "transaction",
            { names::SPAN_NAME } = format!("transaction {}", D::Contract::SERVICE),
            { names::MESSAGING_SYSTEM } = "kafka",
            { names::MESSAGING_GROUP } = D::Contract::SERVICE.name(),
            { names::MESSAGING_BATCH } = inputs,
            { names::SPAN_STATUS } = Empty,
            { names::ERROR_TYPE } = Empty,
        );
        for context in self.0.iter().filter_map(TraceParent::of) {
            context.link(&span);
        }
        Some(span)
    }

    /// Ends the spans after a commit.
    pub fn end(&mut self) {
        self.0.clear();
    }

    /// Fails the spans of a dropped window: its commands are decided again in new spans.
    pub fn fail(&mut self, class: &'static str) {
        for span in self.0.drain(..) {
            mark_failed(&span, class);
        }
    }
}
