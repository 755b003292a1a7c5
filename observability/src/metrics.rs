//! The metrics of telemetry itself. They are global, because a process has one subscriber.

use std::sync::LazyLock;

use prometheus::{IntCounter, IntCounterVec, Registry};

use crate::Metric;

/// Spans by export result.
pub const TRACE_SPANS: Metric = Metric::counter(
    "ordermesh_trace_spans_total",
    &["result"],
    "Spans of recorded traces, by what became of them (exported, failed, dropped).",
);
/// Trace contexts that could not be parsed.
pub const TRACE_BAD_PARENTS: Metric = Metric::counter(
    "ordermesh_trace_bad_parents_total",
    &[],
    "Trace contexts of calls and records that could not be read, and were ignored.",
);

/// All metrics of this crate.
pub const ALL: &[Metric] = &[TRACE_SPANS, TRACE_BAD_PARENTS];

static SPANS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    IntCounterVec::new(TRACE_SPANS.opts(), TRACE_SPANS.labels).expect("the definition is valid")
});
static BAD_PARENTS: LazyLock<IntCounter> = LazyLock::new(|| {
    IntCounter::with_opts(TRACE_BAD_PARENTS.opts()).expect("the definition is valid")
});

/// Registers the metrics of telemetry.
///
/// # Errors
///
/// They are registered already.
pub fn register(registry: &Registry) -> Result<(), prometheus::Error> {
    // Creates the series of every result, so that they begin at 0.
    let _ = Spans::of_process();
    registry.register(Box::new(SPANS.clone()))?;
    registry.register(Box::new(BAD_PARENTS.clone()))
}

pub(crate) fn count_bad_parent() {
    BAD_PARENTS.inc();
}

#[cfg(test)]
pub(crate) fn bad_parents() -> u64 {
    BAD_PARENTS.get()
}

/// Counters of spans by export result.
#[derive(Clone, Debug)]
pub(crate) struct Spans {
    /// The collector accepted them.
    pub exported: IntCounter,
    /// The collector did not accept them.
    pub failed: IntCounter,
    /// Dropped because too many spans were in memory.
    pub dropped: IntCounter,
}

impl Spans {
    pub fn of_process() -> Self {
        Self::of(&SPANS)
    }

    fn of(spans: &IntCounterVec) -> Self {
        let with = |result| spans.with_label_values(&[result]);
        Self {
            exported: with("exported"),
            failed: with("failed"),
            dropped: with("dropped"),
        }
    }

    #[cfg(test)]
    pub fn unregistered() -> Self {
        let spans = IntCounterVec::new(TRACE_SPANS.opts(), TRACE_SPANS.labels);
        Self::of(&spans.expect("the definition is valid"))
    }
}
