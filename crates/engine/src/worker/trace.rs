//! The spans of a window.
//!
//! One command is one span, a child of the context in its record; what the command leads to carries its context on. A
//! record without a sampled context makes no span and costs no more than the look for its header. The transaction is a
//! span of its own, linked to those of its commands, for it belongs to many traces.

use contracts::{Contract, Topic};
use observability::{TraceParent, fail, names};
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
pub struct Spans(Vec<Span>);

impl Spans {
    /// Begins the span of a command; the context that what it leads to carries on.
    pub fn process<D: Decider>(
        &mut self,
        input: &Input,
        kind: &'static str,
    ) -> Option<TraceParent> {
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
            // Nobody records here; others may.
            return Some(parent);
        }
        parent.adopt(&span);
        let carried = TraceParent::of(&span).or(Some(parent));
        self.0.push(span);
        carried
    }

    /// Notes what became of the command that was begun last, if it was traced.
    pub fn decided(&mut self, trace: Option<TraceParent>, outcome: &'static str) {
        if trace.is_some()
            && let Some(span) = self.0.last()
        {
            span.record(names::OUTCOME, outcome);
        }
    }

    /// The record is a dead letter; `trace` is its context if its span has begun.
    pub fn dead<D: Decider>(
        &mut self,
        trace: Option<TraceParent>,
        input: &Input,
        class: &'static str,
    ) {
        if trace
            .or_else(|| self.process::<D>(input, "dead letter"))
            .is_some()
            && let Some(span) = self.0.last()
        {
            fail(span, class);
        }
    }

    /// The span of the transaction, if there is anything to link it to.
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

    /// The window is committed.
    pub fn end(&mut self) {
        self.0.clear();
    }

    /// The window is lost: its commands are decided again, in spans of their own.
    pub fn fail(&mut self, class: &'static str) {
        for span in self.0.drain(..) {
            fail(&span, class);
        }
    }
}
