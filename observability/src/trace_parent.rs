//! The W3C trace context of one span, in the headers of calls and records.

use http::{HeaderMap, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::metrics;
use crate::names::{self, TRACEPARENT};

/// The trace context of one span.
///
/// A small value that can be passed where a span cannot: between threads, through a window, in a record. Calls always
/// carry it, so that a decision *not* to record is followed too. Records carry it only when it is sampled: the reader
/// of a record without one creates no span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    trace: TraceId,
    span: SpanId,
    sampled: bool,
}

impl TraceParent {
    /// The context of the current span of a trace; `None` outside a trace.
    pub fn current() -> Option<Self> {
        Context::map_current(|context| Self::new(context.span().span_context()))
    }

    /// The context of a span; `None` when it belongs to no trace.
    pub fn of(span: &Span) -> Option<Self> {
        if span.is_disabled() {
            return None;
        }
        let context = span.context();
        let span = context.span();
        Self::new(span.span_context())
    }

    /// Parses the value of a `traceparent` header; a malformed one is counted.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let parent = std::str::from_utf8(value).ok().and_then(Self::extract);
        if parent.is_none() {
            metrics::count_bad_parent();
        }
        parent
    }

    /// Reads the headers of an HTTP request, or gRPC metadata (`metadata.as_ref()`).
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        Self::parse(headers.get(TRACEPARENT)?.as_bytes())
    }

    /// Reads the headers of a Kafka record.
    pub fn from_record<'a>(headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Option<Self> {
        headers
            .into_iter()
            .find(|(name, _)| *name == TRACEPARENT)
            .and_then(|(_, value)| Self::parse(value))
    }

    /// The id of the trace, in hexadecimal digits.
    pub fn trace_id(self) -> String {
        self.trace.to_string()
    }

    /// Whether the trace is recorded.
    pub const fn is_sampled(self) -> bool {
        self.sampled
    }

    /// The value of a `traceparent` header.
    pub fn header(self) -> String {
        format!(
            "00-{}-{}-{:02x}",
            self.trace,
            self.span,
            u8::from(self.sampled)
        )
    }

    /// Makes this the parent of a new span that has not been entered.
    pub fn adopt(self, span: &Span) {
        if span.is_disabled() {
            return;
        }
        let context = Context::new().with_remote_span_context(self.context());
        if let Err(error) = span.set_parent(context) {
            tracing::debug!(%error, "the parent of a span cannot be set");
        }
    }

    /// Links a new span to this context, for work that belongs to several traces.
    pub fn link(self, span: &Span) {
        span.add_link(self.context());
    }

    /// This context if it is sampled.
    pub fn sampled(self) -> Option<Self> {
        self.sampled.then_some(self)
    }

    /// The header of a Kafka record; use it only for a sampled context.
    pub fn record_header(self) -> (String, Vec<u8>) {
        (TRACEPARENT.to_owned(), self.header().into_bytes())
    }

    /// Adds the context of the current span, if any, to the headers of a call.
    pub fn inject_headers(headers: &mut HeaderMap) {
        if let Some(parent) = Self::current() {
            let value =
                HeaderValue::try_from(parent.header()).expect("hexadecimal digits and dashes");
            headers.insert(TRACEPARENT, value);
        }
    }

    fn context(self) -> SpanContext {
        let flags = if self.sampled {
            TraceFlags::SAMPLED
        } else {
            TraceFlags::default()
        };
        SpanContext::new(self.trace, self.span, flags, true, TraceState::default())
    }

    fn extract(value: &str) -> Option<Self> {
        let context = TraceContextPropagator::new()
            .extract_with_context(&Context::new(), &SingleHeader(value));
        Self::new(context.span().span_context())
    }

    fn new(context: &SpanContext) -> Option<Self> {
        context.is_valid().then(|| Self {
            trace: context.trace_id(),
            span: context.span_id(),
            sampled: context.is_sampled(),
        })
    }
}

/// Records the order id on the current span, if the span has that field; log lines within the span have it too.
pub fn record_order_id(order_id: &str) {
    Span::current().record(names::ORDER_ID, order_id);
}

/// Marks a span as failed, with the class of its error.
pub fn mark_failed(span: &Span, class: &'static str) {
    span.record(names::SPAN_STATUS, "error");
    span.record(names::ERROR_TYPE, class);
}

struct SingleHeader<'a>(&'a str);

impl Extractor for SingleHeader<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    fn with_roots_sampled<T>(roots: bool, run: impl FnOnce() -> T) -> T {
        let root = if roots {
            Sampler::AlwaysOn
        } else {
            Sampler::AlwaysOff
        };
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(root)))
            .build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), run)
    }

    /// The trace headers of a record created in the current span.
    fn record() -> Vec<(String, Vec<u8>)> {
        let parent = TraceParent::current().and_then(TraceParent::sampled);
        parent.map(TraceParent::record_header).into_iter().collect()
    }

    #[test]
    fn a_header_round_trips() {
        for header in [SAMPLED, UNSAMPLED] {
            let parent = TraceParent::parse(header.as_bytes()).expect("it is well formed");
            assert_eq!(parent.header(), header);
            assert_eq!(parent.is_sampled(), header == SAMPLED);
        }
    }

    #[test]
    fn malformed_headers_are_rejected_and_counted() {
        let zero_trace = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        let before = metrics::bad_parents();
        for header in ["", "00", "00-xyz-b7ad6b7169203331-01", zero_trace, "00-é"] {
            assert_eq!(TraceParent::parse(header.as_bytes()), None, "{header}");
        }
        assert_eq!(TraceParent::parse(&[0xff, 0xfe]), None);
        assert_eq!(TraceParent::from_headers(&HeaderMap::new()), None);
        assert_eq!(
            metrics::bad_parents() - before,
            6,
            "a missing header is not malformed"
        );
    }

    #[test]
    fn outside_a_trace_there_are_no_headers() {
        let mut headers = HeaderMap::new();
        TraceParent::inject_headers(&mut headers);
        let record = record();
        assert!(headers.is_empty() && record.is_empty());
    }

    #[test]
    fn a_span_continues_the_trace_of_its_parent() {
        with_roots_sampled(false, || {
            let parent = TraceParent::parse(SAMPLED.as_bytes()).expect("it is well formed");
            let span = tracing::info_span!("work");
            parent.adopt(&span);
            let _entered = span.enter();

            let record = record();
            let headers = record
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_slice()));
            let child = TraceParent::from_record(headers).expect("the parent is sampled");
            assert_eq!(child.trace, parent.trace);
            assert_ne!(child.span, parent.span);
        });
    }

    #[test]
    fn an_unsampled_context_is_sent_with_calls_but_not_with_records() {
        with_roots_sampled(true, || {
            let span = tracing::info_span!("work");
            TraceParent::parse(UNSAMPLED.as_bytes())
                .expect("it is well formed")
                .adopt(&span);
            let _entered = span.enter();

            let mut headers = HeaderMap::new();
            TraceParent::inject_headers(&mut headers);
            let child = TraceParent::from_headers(&headers).expect("calls always carry it");
            assert!(!child.is_sampled());

            let record = record();
            assert!(record.is_empty());
        });
    }
}
