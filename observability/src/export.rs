//! Export of spans to the collector, with a bound on the spans in memory and a result for each span.
//!
//! Creating a span never blocks. The batch processor of the SDK bounds its queue but not the spans that its exporter
//! holds, and exposes neither count. So this module counts admitted spans up, and down when the collector has answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor,
};

use crate::metrics::Spans;

/// Spans per request.
const BATCH: usize = 512;

/// Limits for a slow collector.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Spans in memory, including those that the exporter holds. A span is about a kilobyte.
    pub spans: usize,
    /// Timeout of one batch, including retries.
    pub timeout: Duration,
    /// Longest time before a batch that is not full is sent.
    pub delay: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            spans: 8192,
            timeout: Duration::from_secs(5),
            delay: Duration::from_secs(1),
        }
    }
}

/// A batch span processor that drops spans above the limit.
#[derive(Debug)]
pub(crate) struct BoundedSpanProcessor {
    batches: BatchSpanProcessor,
    waiting: Arc<AtomicUsize>,
    bound: usize,
    spans: Spans,
}

impl BoundedSpanProcessor {
    pub fn new(exporter: impl SpanExporter + 'static, limits: Limits, spans: Spans) -> Self {
        let waiting = Arc::new(AtomicUsize::new(0));
        let exporter = CountingExporter {
            exporter,
            waiting: Arc::clone(&waiting),
            spans: spans.clone(),
            refused: AtomicBool::new(false),
        };
        // The queue of the batch processor is never full before the bound is reached here.
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(limits.spans.max(BATCH))
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(limits.delay)
            .build();
        Self {
            batches: BatchSpanProcessor::new(exporter, config),
            waiting,
            bound: limits.spans,
            spans,
        }
    }
}

impl SpanProcessor for BoundedSpanProcessor {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        let admitted = self
            .waiting
            .try_update(Ordering::AcqRel, Ordering::Acquire, |waiting| {
                (waiting < self.bound).then_some(waiting + 1)
            });
        if admitted.is_ok() {
            self.batches.on_end(span);
        } else {
            self.spans.dropped.inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

/// Counts spans by the result of their export.
#[derive(Debug)]
struct CountingExporter<E> {
    exporter: E,
    waiting: Arc<AtomicUsize>,
    spans: Spans,
    /// The last batch failed: only the first of several failures is logged as a warning.
    refused: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for CountingExporter<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let result = self.exporter.export(batch).await;
        match &result {
            Ok(()) => {
                self.spans.exported.inc_by(count as u64);
                if self.refused.swap(false, Ordering::Relaxed) {
                    tracing::info!("the collector accepts spans again");
                }
            }
            Err(error) => {
                self.spans.failed.inc_by(count as u64);
                if !self.refused.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "the collector does not accept spans");
                }
            }
        }
        self.waiting.fetch_sub(count, Ordering::AcqRel);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.exporter.shutdown()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
