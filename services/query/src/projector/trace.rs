//! The spans of a batch.
//!
//! An event whose record carries a sampled context gets a span, a child of that context, which ends with the SQL
//! transaction. The batch gets a trace of its own that links to the spans of its events, because it belongs to several
//! traces. Without sampled events there are no spans; the only cost is the check for a header.

use contracts::{Service, Topic};
use observability::{TraceParent, mark_failed, names};
use tracing::Span;
use tracing::field::Empty;

use super::log::FetchedRecord;

/// The spans of the events in the open batch. They end when the value is dropped.
#[derive(Debug, Default)]
pub struct Spans(Vec<Span>);

impl Spans {
    /// Starts the span of an event, if it is traced.
    pub fn start_event(&mut self, record: &FetchedRecord, kind: &'static str, aggregate_id: &str) {
        let Some(parent) = record.trace.as_deref() else {
            return;
        };
        let (service, partition) = record.source;
        let span = tracing::info_span!(
            target: names::TRACE_TARGET,
            parent: None,
            "project",
            { names::SPAN_NAME } = format!("project {kind}"),
            { names::SPAN_KIND } = "consumer",
            { names::MESSAGING_SYSTEM } = "kafka",
            { names::MESSAGING_OPERATION } = "process",
            { names::MESSAGING_DESTINATION } = Topic::Events.of(service, ""),
            { names::MESSAGING_PARTITION } = partition,
            { names::MESSAGING_OFFSET } = record.offset,
            { names::MESSAGING_KEY } = aggregate_id,
            { names::ORDER_ID } = order_id(service, aggregate_id),
            { names::DB_SYSTEM } = POSTGRESQL,
            { names::SPAN_STATUS } = Empty,
            { names::ERROR_TYPE } = Empty,
        );
        if !span.is_disabled() {
            parent.adopt(&span);
            self.0.push(span);
        }
    }

    /// Starts the spans of the transaction that writes these events; none when no event is traced.
    pub fn start_transaction(self, events: usize) -> TransactionSpans {
        if self.0.is_empty() {
            return TransactionSpans(Vec::new());
        }
        let batch = tracing::info_span!(
            target: names::TRACE_TARGET,
            parent: None,
            "project batch",
            { names::MESSAGING_SYSTEM } = "kafka",
            { names::MESSAGING_OPERATION } = "process",
            { names::MESSAGING_BATCH } = events,
            { names::SPAN_STATUS } = Empty,
            { names::ERROR_TYPE } = Empty,
        );
        for context in self.0.iter().filter_map(TraceParent::of) {
            context.link(&batch);
        }
        let sql = tracing::info_span!(
            target: names::TRACE_TARGET,
            parent: &batch,
            "sql transaction",
            { names::SPAN_KIND } = "client",
            { names::DB_SYSTEM } = POSTGRESQL,
            { names::DB_NAMESPACE } = crate::schema::NAME,
            { names::SPAN_STATUS } = Empty,
            { names::ERROR_TYPE } = Empty,
        );
        let mut spans = self.0;
        spans.extend([sql, batch]);
        TransactionSpans(spans)
    }
}

const POSTGRESQL: &str = "postgresql";

/// The spans that end with the SQL transaction.
#[derive(Debug)]
#[must_use = "the spans end with it"]
pub struct TransactionSpans(Vec<Span>);

impl TransactionSpans {
    /// Marks the spans as failed: the transaction was not committed.
    pub fn fail(self, class: &'static str) {
        for span in &self.0 {
            mark_failed(span, class);
        }
    }
}

/// The order id; the id of every aggregate except a stock item is its order id.
fn order_id(service: Service, aggregate_id: &str) -> Option<&str> {
    match service {
        Service::Orders | Service::Payments | Service::Shipping => Some(aggregate_id),
        Service::Inventory => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use opentelemetry::trace::{SpanId, SpanKind, Status, TracerProvider as _};
    use opentelemetry_sdk::error::OTelSdkResult;
    use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
    use parking_lot::Mutex;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const ORDER: &str = "0190d9a2-7d3a-7c1e-8b1a-0123456789ab";

    /// Collects exported spans. The SDK's in-memory exporter is behind a feature that would rebuild every crate.
    #[derive(Clone, Debug, Default)]
    struct CollectingExporter(Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for CollectingExporter {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().extend(batch);
            Ok(())
        }
    }

    /// The spans that `work` exports, by name.
    fn exported_spans(work: impl FnOnce()) -> HashMap<String, SpanData> {
        let exporter = CollectingExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(exporter.clone())
            .build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        let spans = std::mem::take(&mut *exporter.0.lock());
        let by_name = spans.into_iter().map(|span| (span.name.to_string(), span));
        by_name.collect()
    }

    fn record(service: Service, trace: Option<&str>) -> FetchedRecord {
        let trace = trace.and_then(|header| TraceParent::parse(header.as_bytes()));
        FetchedRecord {
            source: (service, 3),
            offset: 7,
            key: Vec::new(),
            value: None,
            time_ms: None,
            trace: trace.map(Box::new),
        }
    }

    fn attribute(span: &SpanData, name: &str) -> Option<String> {
        let found = span
            .attributes
            .iter()
            .find(|attribute| attribute.key.as_str() == name);
        found.map(|attribute| attribute.value.to_string())
    }

    #[test]
    fn a_traced_event_continues_its_trace_and_the_batch_links_to_it() {
        let spans = exported_spans(|| {
            let mut spans = Spans::default();
            spans.start_event(
                &record(Service::Orders, Some(PARENT)),
                "order_created",
                ORDER,
            );
            spans.start_event(&record(Service::Orders, None), "order_confirmed", ORDER);
            drop(spans.start_transaction(2));
        });
        assert_eq!(spans.len(), 3, "{:?}", spans.keys());
        let event = &spans["project order_created"];
        assert_eq!(
            event.span_context.trace_id().to_string(),
            "0af7651916cd43dd8448eb211c80319c"
        );
        assert_eq!(event.parent_span_id.to_string(), "b7ad6b7169203331");
        assert_eq!(event.span_kind, SpanKind::Consumer);
        assert_eq!(event.status, Status::Unset);
        for (name, value) in [
            (names::MESSAGING_DESTINATION, "orders.events"),
            (names::MESSAGING_PARTITION, "3"),
            (names::MESSAGING_OFFSET, "7"),
            (names::ORDER_ID, ORDER),
        ] {
            assert_eq!(attribute(event, name).as_deref(), Some(value), "{name}");
        }

        let batch = &spans["project batch"];
        assert_eq!(batch.parent_span_id, SpanId::INVALID);
        assert_ne!(
            batch.span_context.trace_id(),
            event.span_context.trace_id(),
            "it belongs to many traces"
        );
        let links: Vec<_> = batch.links.iter().map(|link| &link.span_context).collect();
        assert_eq!(links.len(), 1);
        assert_eq!(links[0].span_id(), event.span_context.span_id());
        let sql = &spans["sql transaction"];
        assert_eq!(sql.parent_span_id, batch.span_context.span_id());
        assert_eq!(sql.span_kind, SpanKind::Client);
    }

    #[test]
    fn a_failed_transaction_marks_all_its_spans_as_failed() {
        let spans = exported_spans(|| {
            let mut spans = Spans::default();
            spans.start_event(
                &record(Service::Inventory, Some(PARENT)),
                "stock_reserved",
                "mug",
            );
            spans.start_transaction(1).fail("database");
        });
        assert_eq!(spans.len(), 3);
        for (name, span) in &spans {
            assert!(matches!(span.status, Status::Error { .. }), "{name}");
            assert_eq!(
                attribute(span, names::ERROR_TYPE).as_deref(),
                Some("database")
            );
        }
        let event = &spans["project stock_reserved"];
        assert_eq!(
            attribute(event, names::ORDER_ID),
            None,
            "a product is no order"
        );
    }

    #[test]
    fn a_batch_without_traced_events_has_no_spans() {
        let spans = exported_spans(|| {
            let mut spans = Spans::default();
            spans.start_event(&record(Service::Orders, None), "order_created", ORDER);
            drop(spans.start_transaction(1));
        });
        assert!(spans.is_empty(), "{:?}", spans.keys());
    }
}
