//! Metrics of the schema registry client.

use observability::Metric;
use prometheus::{HistogramVec, IntCounterVec, IntGauge, Registry};

/// Calls to the schema registry.
pub const CALLS: Metric = Metric::counter(
    "ordermesh_registry_calls_total",
    &["operation", "result"],
    "Calls to the schema registry, by operation and result (ok, not_found, refused, unreachable).",
);
/// Duration of calls to the schema registry.
pub const CALL_SECONDS: Metric = Metric::histogram(
    "ordermesh_registry_call_seconds",
    &["operation"],
    "How long calls to the schema registry take.",
);
/// Schema ids that wait for an answer of the registry.
pub const PENDING: Metric = Metric::gauge(
    "ordermesh_registry_pending_schema_ids",
    &[],
    "Schema ids of records that wait for the registry's answer; a partition is paused behind each.",
);

/// All metrics of this crate.
pub const ALL: &[Metric] = &[CALLS, CALL_SECONDS, PENDING];

/// Metrics of the schema registry client.
#[derive(Clone, Debug)]
pub struct Metrics {
    calls: IntCounterVec,
    call_seconds: HistogramVec,
    pub(crate) pending: IntGauge,
}

impl Metrics {
    /// Registers the metrics.
    ///
    /// # Errors
    ///
    /// They are registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let seconds = prometheus::exponential_buckets(0.001, 2.0, 14)?;
        Ok(Self {
            calls: CALLS.int_counters(registry)?,
            call_seconds: CALL_SECONDS.histograms(registry, seconds)?,
            pending: PENDING.int_gauge(registry)?,
        })
    }

    /// Records a call that has ended; its duration is in seconds.
    pub(crate) fn record_call(&self, operation: &str, result: &str, seconds: f64) {
        self.calls.with_label_values(&[operation, result]).inc();
        self.call_seconds
            .with_label_values(&[operation])
            .observe(seconds);
    }
}
