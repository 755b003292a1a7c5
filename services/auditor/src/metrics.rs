//! Metrics of the auditor.

use audit::{Invariant, Report};
use prometheus::{
    Gauge, GaugeVec, Histogram, IntCounterVec, IntGaugeVec, Registry, exponential_buckets,
};

/// The definitions of the metrics.
pub mod names {
    use observability::Metric;

    /// Results of audits.
    pub const RUNS: Metric = Metric::counter(
        "ordermesh_audit_runs_total",
        &["result"],
        "Audits: clean, violated, or unchecked when something could not be read.",
    );
    /// Duration of audits.
    pub const SECONDS: Metric = Metric::histogram(
        "ordermesh_audit_seconds",
        &[],
        "Duration of one audit that was completed.",
    );
    /// Violations by invariant.
    pub const VIOLATIONS: Metric = Metric::gauge(
        "ordermesh_audit_violations",
        &["invariant"],
        "Violations of an invariant in the last audit that was completed.",
    );
    /// Time of the last completed audit.
    pub const COMPLETED: Metric = Metric::gauge(
        "ordermesh_audit_completed_timestamp_seconds",
        &[],
        "When the last audit was completed, clean or not, in Unix time; the auditor's start before the first.",
    );
    /// Time of the last clean audit.
    pub const CLEAN: Metric = Metric::gauge(
        "ordermesh_audit_clean_timestamp_seconds",
        &[],
        "When the last clean audit was completed, in Unix time; absent before the first.",
    );
}

/// All metrics, for the list of metrics.
pub const ALL: &[observability::Metric] = &[
    names::RUNS,
    names::SECONDS,
    names::VIOLATIONS,
    names::COMPLETED,
    names::CLEAN,
];

/// Metrics of the auditor; see [`names`].
pub struct Metrics {
    runs: IntCounterVec,
    seconds: Histogram,
    violations: IntGaugeVec,
    completed: Gauge,
    /// A family, so that it is absent before the first clean audit.
    clean: GaugeVec,
}

impl Metrics {
    /// Registers the metrics on `registry`. The auditor starts at `now` (Unix seconds).
    ///
    /// # Errors
    ///
    /// A name is registered already.
    pub fn new(registry: &Registry, now: f64) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            runs: names::RUNS.int_counters(registry)?,
            seconds: names::SECONDS
                .single_histogram(registry, exponential_buckets(0.25, 2.0, 14)?)?,
            violations: names::VIOLATIONS.int_gauges(registry)?,
            completed: names::COMPLETED
                .float_gauges(registry)?
                .with_label_values(&[] as &[&str]),
            clean: names::CLEAN.float_gauges(registry)?,
        };
        for result in ["clean", "violated", "unchecked"] {
            metrics.runs.with_label_values(&[result]);
        }
        metrics.completed.set(now);
        Ok(metrics)
    }

    /// Records the result of an audit that ended at `now` (Unix seconds) and took `seconds`.
    pub fn completed(&self, report: &Report, now: f64, seconds: f64) {
        for finding in &report.findings {
            self.violated(finding.id, finding.violated);
        }
        let result = if report.is_clean() {
            "clean"
        } else {
            "violated"
        };
        self.runs.with_label_values(&[result]).inc();
        self.seconds.observe(seconds);
        self.completed.set(now);
        if report.is_clean() {
            self.clean.with_label_values(&[] as &[&str]).set(now);
        }
    }

    fn violated(&self, id: Invariant, violated: u64) {
        let violated = i64::try_from(violated).unwrap_or(i64::MAX);
        self.violations.with_label_values(&[id.id()]).set(violated);
    }

    /// Counts an audit that could not be completed.
    pub fn unchecked(&self) {
        self.runs.with_label_values(&["unchecked"]).inc();
    }
}
