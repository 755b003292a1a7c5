//! What the auditor tells.

use audit::{Invariant, Report};
use prometheus::{
    Gauge, GaugeVec, Histogram, IntCounterVec, IntGaugeVec, Registry, exponential_buckets,
};

/// Every metric, defined once.
pub mod names {
    use observability::Metric;

    /// How audits end.
    pub const RUNS: Metric = Metric::counter(
        "ordermesh_audit_runs_total",
        &["result"],
        "Audits: clean, violated, or unchecked when something could not be read.",
    );
    /// How long they take.
    pub const SECONDS: Metric = Metric::histogram(
        "ordermesh_audit_seconds",
        &[],
        "Duration of one audit that was completed.",
    );
    /// What they find.
    pub const VIOLATIONS: Metric = Metric::gauge(
        "ordermesh_audit_violations",
        &["invariant"],
        "Violations of an invariant in the last audit that was completed.",
    );
    /// When one was completed.
    pub const COMPLETED: Metric = Metric::gauge(
        "ordermesh_audit_completed_timestamp_seconds",
        &[],
        "When the last audit was completed, clean or not, in Unix time; the auditor's start before the first.",
    );
    /// When one was clean.
    pub const CLEAN: Metric = Metric::gauge(
        "ordermesh_audit_clean_timestamp_seconds",
        &[],
        "When the last clean audit was completed, in Unix time; absent before the first.",
    );
}

/// All of them, for the list of metrics.
pub const ALL: &[observability::Metric] = &[
    names::RUNS,
    names::SECONDS,
    names::VIOLATIONS,
    names::COMPLETED,
    names::CLEAN,
];

/// Figures of the auditor; what each says stands at its name.
pub struct Metrics {
    runs: IntCounterVec,
    seconds: Histogram,
    violations: IntGaugeVec,
    completed: Gauge,
    /// A family, so that it is absent before the first.
    clean: GaugeVec,
}

impl Metrics {
    /// Registers everything on `registry`; the auditor starts at `now` (Unix seconds).
    ///
    /// # Errors
    ///
    /// When a name is taken there.
    pub fn new(registry: &Registry, now: f64) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            runs: names::RUNS.int_counters(registry)?,
            seconds: names::SECONDS.one_histogram(registry, exponential_buckets(0.25, 2.0, 14)?)?,
            violations: names::VIOLATIONS.int_gauges(registry)?,
            completed: names::COMPLETED
                .gauges_of_fractions(registry)?
                .with_label_values(&[] as &[&str]),
            clean: names::CLEAN.gauges_of_fractions(registry)?,
        };
        for result in ["clean", "violated", "unchecked"] {
            metrics.runs.with_label_values(&[result]);
        }
        metrics.completed.set(now);
        Ok(metrics)
    }

    /// Shows what came out at `now` (Unix seconds), after so many seconds.
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

    /// Counts an audit that could not be made.
    pub fn unchecked(&self) {
        self.runs.with_label_values(&["unchecked"]).inc();
    }
}
