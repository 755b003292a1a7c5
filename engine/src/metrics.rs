//! The engine's figures. Labels are services, kinds and classes, never ids.

use contracts::Service;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry,
};

use crate::effects::TargetFigures;

/// Names, in one place.
pub mod names {
    /// See [`super::Metrics::commands`].
    pub const COMMANDS: &str = "ordermesh_engine_commands_total";
    /// See [`super::Metrics::events`].
    pub const EVENTS: &str = "ordermesh_engine_events_total";
    /// See [`super::Metrics::dead_letters`].
    pub const DEAD_LETTERS: &str = "ordermesh_engine_dead_letters_total";
    /// See [`super::Metrics::batch_inputs`].
    pub const BATCH_INPUTS: &str = "ordermesh_engine_batch_inputs";
    /// See [`super::Metrics::transaction_seconds`].
    pub const TRANSACTION_SECONDS: &str = "ordermesh_engine_transaction_seconds";
    /// See [`super::Metrics::failed_transactions`].
    pub const FAILED_TRANSACTIONS: &str = "ordermesh_engine_failed_transactions_total";
    /// See [`super::Metrics::restore_seconds`].
    pub const RESTORE_SECONDS: &str = "ordermesh_engine_restore_seconds";
    /// See [`super::Metrics::full_replays`].
    pub const FULL_REPLAYS: &str = "ordermesh_engine_full_replays_total";
    /// See [`super::Metrics::partitions`].
    pub const PARTITIONS: &str = "ordermesh_engine_partitions";
    /// See [`super::Metrics::effects`].
    pub const EFFECTS: &str = "ordermesh_engine_effects_total";
    /// See [`super::Metrics::effects_outstanding`].
    pub const EFFECTS_OUTSTANDING: &str = "ordermesh_engine_effects_outstanding";
    /// See [`super::Metrics::targets`].
    pub const EFFECTS_OLDEST_SECONDS: &str = "ordermesh_engine_effects_oldest_seconds";
    /// See [`super::Metrics::targets`].
    pub const BREAKER_STATE: &str = "ordermesh_engine_breaker_state";
    /// See [`super::Metrics::timers_fired`].
    pub const TIMERS_FIRED: &str = "ordermesh_engine_timers_fired_total";
}

/// Figures of every worker of a process.
#[derive(Clone)]
pub struct Metrics {
    /// Commands by service, kind and outcome (accepted, no_change, rejected).
    pub commands: IntCounterVec,
    /// Events by service and kind.
    pub events: IntCounterVec,
    /// Dead letters by service and class of the error.
    pub dead_letters: IntCounterVec,
    /// Inputs per transaction, by service.
    pub batch_inputs: HistogramVec,
    /// Duration of a transaction from begin to commit in seconds, by service.
    pub transaction_seconds: HistogramVec,
    /// Transactions that were aborted, ended unclear or were fenced, by service and result.
    pub failed_transactions: IntCounterVec,
    /// Time to take one partition over in seconds, by service.
    pub restore_seconds: HistogramVec,
    /// Take-overs that had to replay every event because the states were damaged, by service.
    pub full_replays: IntCounterVec,
    /// Partitions that are processed now, by service.
    pub partitions: IntGaugeVec,
    /// Tries of effects by service, target and result (answered, not_yet, unknown, timed_out).
    pub effects: IntCounterVec,
    /// Effects that wait for an answer now, by service.
    pub effects_outstanding: IntGaugeVec,
    /// By service and target: the age in seconds of the oldest effect that waits for an answer now (0 when none does),
    /// and the breaker's state (0 closed, 1 half-open, 2 open).
    pub targets: TargetFigures,
    /// Timers that came due, by service.
    pub timers_fired: IntCounterVec,
}

impl Metrics {
    /// Registers everything on `registry`.
    ///
    /// # Errors
    ///
    /// When a name is taken there.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| {
            let options = HistogramOpts::new(name, help).buckets(buckets);
            let histogram = HistogramVec::new(options, &["service"])?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        let seconds = || prometheus::exponential_buckets(0.001, 2.0, 15);
        let targets = TargetFigures::new()?;
        registry.register(Box::new(targets.clone()))?;
        Ok(Self {
            commands: counter(
                names::COMMANDS,
                "Commands by kind and outcome.",
                &["service", "kind", "outcome"],
            )?,
            events: counter(names::EVENTS, "Events by kind.", &["service", "kind"])?,
            dead_letters: counter(
                names::DEAD_LETTERS,
                "Dead letters by class of the error.",
                &["service", "class"],
            )?,
            batch_inputs: histogram(
                names::BATCH_INPUTS,
                "Inputs per transaction.",
                prometheus::exponential_buckets(1.0, 2.0, 12)?,
            )?,
            transaction_seconds: histogram(
                names::TRANSACTION_SECONDS,
                "Duration of a transaction, begin to commit.",
                seconds()?,
            )?,
            failed_transactions: counter(
                names::FAILED_TRANSACTIONS,
                "Transactions that did not commit, by result.",
                &["service", "result"],
            )?,
            restore_seconds: histogram(
                names::RESTORE_SECONDS,
                "Time to take one partition over.",
                seconds()?,
            )?,
            full_replays: counter(
                names::FULL_REPLAYS,
                "Take-overs that replayed every event because the states were damaged.",
                &["service"],
            )?,
            partitions: gauge(names::PARTITIONS, "Partitions processed now.", &["service"])?,
            effects: counter(
                names::EFFECTS,
                "Tries of effects by target and result.",
                &["service", "target", "result"],
            )?,
            effects_outstanding: gauge(
                names::EFFECTS_OUTSTANDING,
                "Effects that wait for an answer now.",
                &["service"],
            )?,
            targets,
            timers_fired: counter(names::TIMERS_FIRED, "Timers that came due.", &["service"])?,
        })
    }

    /// Of one service.
    pub fn restore(&self, service: Service) -> Histogram {
        self.restore_seconds.with_label_values(&[service.name()])
    }
}
