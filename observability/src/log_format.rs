//! Log lines with the ids of their trace, span and order.

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

/// Forwards events to a layer and stores the order id of each span. Spans are not forwarded: the layer would format all
/// their fields, although most spans have no log lines.
pub(crate) struct EventLayer<L>(pub L);

impl<S, L> Layer<S> for EventLayer<L>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    L: Layer<S>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        // Most spans have no order id.
        if attributes.fields().field(names::ORDER_ID).is_some() {
            let mut order_id = OrderId::default();
            attributes.record(&mut order_id);
            order_id.store(id, &context);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let mut order_id = OrderId::default();
        values.record(&mut order_id);
        order_id.store(id, &context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        self.0.on_event(event, context);
    }
}

/// The order id of a span, if any.
#[derive(Default)]
struct OrderId(Option<String>);

impl OrderId {
    fn store<S: for<'s> LookupSpan<'s> + Subscriber>(self, id: &Id, context: &Context<'_, S>) {
        if let (Some(_), Some(span)) = (&self.0, context.span(id)) {
            span.extensions_mut().replace(self);
        }
    }
}

impl Visit for OrderId {
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

/// The syntax of log lines, which the appended ids must follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineStyle {
    Pretty,
    Json,
}

/// A format that appends the ids of the recorded trace, the span and the order to each line.
pub(crate) struct WithIds<F> {
    pub format: F,
    pub style: LineStyle,
}

impl<S, N, F> FormatEvent<S, N> for WithIds<F>
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
        let order_id = order_id_of(context, event);
        // A cheap thread-local: entering a span of a trace makes its context the current one.
        let trace = TraceContext::map_current(|trace| {
            let span = trace.span();
            Some(span.span_context())
                .filter(|span| span.is_sampled())
                .cloned()
        });
        if order_id.is_none() && trace.is_none() {
            return self.format.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.format
            .format_event(context, Writer::new(&mut line), event)?;
        self.style
            .append_ids(&mut line, trace.as_ref(), order_id.as_deref())?;
        writer.write_str(&line)
    }
}

impl LineStyle {
    /// Appends the ids before the end of a line.
    fn append_ids(
        self,
        line: &mut String,
        trace: Option<&SpanContext>,
        order_id: Option<&str>,
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
        if let Some(order_id) = order_id {
            add(names::ORDER_ID, order_id)?;
        }
        line.push_str(end);
        Ok(())
    }
}

/// The order id of the innermost span that has one; `None` when the event has an order id itself.
fn order_id_of<S, N>(context: &FmtContext<'_, S, N>, event: &Event<'_>) -> Option<String>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    if event.fields().any(|field| field.name() == names::ORDER_ID) {
        return None;
    }
    context
        .event_scope()?
        .find_map(|span| span.extensions().get::<OrderId>()?.0.clone())
}
