//! What the registry client counts.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

const CALLS: &str = "ordermesh_registry_calls_total";
const PENDING: &str = "ordermesh_registry_pending_schema_ids";

/// Metrics of the schema registry client.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Calls to the schema registry, by operation and result (`ok`, `not_found`, `refused`, `unreachable`).
    pub(crate) calls: IntCounterVec,
    /// Schema ids of records that wait for the registry's answer; a partition is paused behind each.
    pub(crate) pending: IntGauge,
}

impl Metrics {
    /// Registers the metrics.
    ///
    /// # Errors
    ///
    /// They are registered there already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self::unregistered()?;
        registry.register(Box::new(metrics.calls.clone()))?;
        registry.register(Box::new(metrics.pending.clone()))?;
        Ok(metrics)
    }

    pub(crate) fn unregistered() -> Result<Self, prometheus::Error> {
        let calls = Opts::new(
            CALLS,
            "Calls to the schema registry by operation and result.",
        );
        Ok(Self {
            calls: IntCounterVec::new(calls, &["operation", "result"])?,
            pending: IntGauge::new(PENDING, "Schema ids that wait for the registry's answer.")?,
        })
    }
}
