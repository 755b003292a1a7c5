//! Spans on their way to the collector: a bounded number of them, each counted once.
//!
//! Nobody who makes a span ever waits. The batch processor of the SDK bounds what waits in its queue, not what its
//! exporter holds, and tells neither; so what is let in is counted here, and counted out when the collector has
//! answered.

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

/// Spans that go in one request.
const BATCH: usize = 512;

/// How much is held for a collector that is slow, and how long an answer is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Spans that wait, those that the exporter holds included. A span is about a kilobyte.
    pub spans: usize,
    /// For one batch, repetitions included.
    pub timeout: Duration,
    /// Between batches that are not full.
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

/// Lets in as many spans as may wait.
#[derive(Debug)]
pub(crate) struct Bounded {
    batches: BatchSpanProcessor,
    waiting: Arc<AtomicUsize>,
    bound: usize,
    spans: Spans,
}

impl Bounded {
    pub fn new(exporter: impl SpanExporter + 'static, limits: Limits, spans: Spans) -> Self {
        let waiting = Arc::new(AtomicUsize::new(0));
        let exporter = Counted {
            exporter,
            waiting: Arc::clone(&waiting),
            spans: spans.clone(),
            refused: AtomicBool::new(false),
        };
        // Its own queue never fills up before the bound is reached here.
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

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        let let_in = self
            .waiting
            .try_update(Ordering::AcqRel, Ordering::Acquire, |waiting| {
                (waiting < self.bound).then_some(waiting + 1)
            });
        if let_in.is_ok() {
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

/// Counts what the collector has answered.
#[derive(Debug)]
struct Counted<E> {
    exporter: E,
    waiting: Arc<AtomicUsize>,
    spans: Spans,
    /// The last batch was not taken: it is said once, not for each.
    refused: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let result = self.exporter.export(batch).await;
        match &result {
            Ok(()) => {
                self.spans.exported.inc_by(count as u64);
                if self.refused.swap(false, Ordering::Relaxed) {
                    tracing::info!("the collector takes spans again");
                }
            }
            Err(error) => {
                self.spans.failed.inc_by(count as u64);
                if !self.refused.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "the collector does not take spans");
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
