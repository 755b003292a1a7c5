//! Log lines that say which trace and which order they belong to.

use std::fmt::{self, Write as _};

use opentelemetry::Context as TraceContext;
use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::names;

/// Hands events on, and keeps the order of each span. A layer that also heard of spans would write all their fields
/// down, for lines that mostly never come.
pub(crate) struct Lines<L>(pub L);

impl<S, L> Layer<S> for Lines<L>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    L: Layer<S>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        // Most spans have no such field.
        if attributes.fields().field(names::ORDER_ID).is_some() {
            let mut order = Order::default();
            attributes.record(&mut order);
            order.keep(id, &context);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let mut order = Order::default();
        values.record(&mut order);
        order.keep(id, &context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        self.0.on_event(event, context);
    }
}

/// The order that a span is about.
#[derive(Default)]
struct Order(Option<String>);

impl Order {
    fn keep<S: for<'s> LookupSpan<'s> + Subscriber>(self, id: &Id, context: &Context<'_, S>) {
        if let (Some(_), Some(span)) = (&self.0, context.span(id)) {
            span.extensions_mut().replace(self);
        }
    }
}

impl Visit for Order {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == names::ORDER_ID {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == names::ORDER_ID {
            self.0 = Some(format!("{value:?}"));
        }
    }
}

/// How a line looks: what is added to it has the same look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Pretty,
    Json,
}

/// A format whose lines end with the trace (when it is recorded), the span and the order.
pub(crate) struct Marked<F> {
    pub format: F,
    pub look: Look,
}

impl<S, N, F> FormatEvent<S, N> for Marked<F>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let order = order_of(context, event);
        // Thread-local, and as cheap as it gets: entering a span of a trace makes it the current one.
        let trace = TraceContext::map_current(|trace| {
            let span = trace.span();
            Some(span.span_context())
                .filter(|span| span.is_sampled())
                .cloned()
        });
        if order.is_none() && trace.is_none() {
            return self.format.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.format
            .format_event(context, Writer::new(&mut line), event)?;
        self.look
            .mark(&mut line, trace.as_ref(), order.as_deref())?;
        writer.write_str(&line)
    }
}

impl Look {
    /// Adds the marks before the end of a line.
    fn mark(
        self,
        line: &mut String,
        trace: Option<&SpanContext>,
        order: Option<&str>,
    ) -> fmt::Result {
        let end = match self {
            Self::Pretty => "\n",
            Self::Json => "}\n",
        };
        line.truncate(line.trim_end_matches('\n').len());
        if self == Self::Json && line.ends_with('}') {
            line.pop();
        }
        let mut add = |name: &str, value: &str| match self {
            Self::Pretty => write!(line, " {name}={value}"),
            Self::Json => write!(line, ",\"{name}\":{}", serde_json::Value::from(value)),
        };
        if let Some(trace) = trace {
            add("trace_id", &trace.trace_id().to_string())?;
            add("span_id", &trace.span_id().to_string())?;
        }
        if let Some(order) = order {
            add(names::ORDER_ID, order)?;
        }
        line.push_str(end);
        Ok(())
    }
}

/// The order of the innermost span that has one; `None` when the event names an order itself.
fn order_of<S, N>(context: &FmtContext<'_, S, N>, event: &Event<'_>) -> Option<String>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    if event.fields().any(|field| field.name() == names::ORDER_ID) {
        return None;
    }
    context
        .event_scope()?
        .find_map(|span| span.extensions().get::<Order>()?.0.clone())
}
