//! The engine's metrics. Labels are services, kinds, classes and partitions, never ids.

use contracts::{Body as _, Contract, Service, Topic};
use observability::Metric;
use prometheus::{GaugeVec, Histogram, HistogramVec, IntCounterVec, IntGaugeVec, Registry};

use crate::effects::TargetMetrics;
use crate::worker::Invariant;

/// Every metric, defined once.
pub mod names {
    use observability::Metric;

    /// Commands that were decided.
    pub const COMMANDS: Metric = Metric::counter(
        "ordermesh_engine_commands_total",
        &["service", "kind", "outcome"],
        "Commands by kind and outcome (accepted, no_change, rejected).",
    );
    /// Events that were decided.
    pub const EVENTS: Metric = Metric::counter(
        "ordermesh_engine_events_total",
        &["service", "kind"],
        "Events by kind.",
    );
    /// Records that can never be processed.
    pub const DEAD_LETTERS: Metric = Metric::counter(
        "ordermesh_engine_dead_letters_total",
        &["service", "class"],
        "Dead letters by class of the error.",
    );
    /// Latency from append to commit.
    pub const COMMAND_WAIT_SECONDS: Metric = Metric::histogram(
        "ordermesh_engine_command_wait_seconds",
        &["service"],
        "Time from a command's append to the commit of its decision.",
    );
    /// Inputs of a window.
    pub const BATCH_INPUTS: Metric = Metric::histogram(
        "ordermesh_engine_batch_inputs",
        &["service"],
        "Inputs per transaction.",
    );
    /// Duration of a transaction.
    pub const TRANSACTION_SECONDS: Metric = Metric::histogram(
        "ordermesh_engine_transaction_seconds",
        &["service"],
        "Duration of a transaction, begin to commit.",
    );
    /// Transactions that did not commit.
    pub const FAILED_TRANSACTIONS: Metric = Metric::counter(
        "ordermesh_engine_failed_transactions_total",
        &["service", "result"],
        "Transactions that did not commit, by result (aborted, unclear, fenced).",
    );
    /// Recreated producers.
    pub const PRODUCERS_RECREATED: Metric = Metric::counter(
        "ordermesh_engine_producers_recreated_total",
        &["service"],
        "Transactional producers recreated after an unclear end.",
    );
    /// Recreated consumers.
    pub const CONSUMERS_RECREATED: Metric = Metric::counter(
        "ordermesh_engine_consumers_recreated_total",
        &["service"],
        "Consumers recreated because they lost their place in the group and no other process took it.",
    );
    /// Violated invariants.
    pub const INVARIANT_VIOLATIONS: Metric = Metric::counter(
        "ordermesh_engine_invariant_violations_total",
        &["service", "invariant"],
        "Transactions of a partition that were not written because they violate an invariant: a defect of the engine.",
    );
    /// Waiting commands.
    pub const LAG_RECORDS: Metric = Metric::gauge(
        "ordermesh_engine_lag_records",
        &["service", "partition"],
        "Offsets between the committed position and the last stable offset; only partitions owned here.",
    );
    /// Age of the oldest waiting command.
    pub const LAG_SECONDS: Metric = Metric::gauge(
        "ordermesh_engine_lag_seconds",
        &["service", "partition"],
        "Age of the oldest command that has not been processed, 0 when there is none; only partitions owned here.",
    );
    /// Duration of a take-over.
    pub const RESTORE_SECONDS: Metric = Metric::histogram(
        "ordermesh_engine_restore_seconds",
        &["service"],
        "Time to take one partition over.",
    );
    /// Records read by take-overs.
    pub const RESTORED_RECORDS: Metric = Metric::counter(
        "ordermesh_engine_restored_records_total",
        &["service", "topic"],
        "Records read by take-overs: states, and the events behind them or, in a full replay, all events.",
    );
    /// Age of unfinished take-overs.
    pub const RESTORING_SECONDS: Metric = Metric::gauge(
        "ordermesh_engine_restoring_seconds",
        &["service"],
        "For how long some partition has been waiting to be taken over; 0 when none is.",
    );
    /// Full replays.
    pub const FULL_REPLAYS: Metric = Metric::counter(
        "ordermesh_engine_full_replays_total",
        &["service", "cause"],
        "Take-overs that replayed every event, by what was wrong with the states (damaged, missing, outdated).",
    );
    /// Processed partitions.
    pub const PARTITIONS: Metric = Metric::gauge(
        "ordermesh_engine_partitions",
        &["service"],
        "Partitions processed now.",
    );
    /// Blocked partitions.
    pub const BLOCKED_PARTITIONS: Metric = Metric::gauge(
        "ordermesh_engine_blocked_partitions",
        &["service"],
        "Partitions paused behind a record that cannot be decoded yet, or because they violate an invariant.",
    );
    /// Stalled partitions.
    pub const STANDING_PARTITIONS: Metric = Metric::gauge(
        "ordermesh_engine_standing_partitions",
        &["service"],
        "Partitions whose records wait although nothing is known that keeps them.",
    );
    /// Aggregates in memory.
    pub const AGGREGATES: Metric = Metric::gauge(
        "ordermesh_engine_aggregates",
        &["service"],
        "Aggregates in memory.",
    );
    /// Tries of effects.
    pub const EFFECTS: Metric = Metric::counter(
        "ordermesh_engine_effects_total",
        &["service", "target", "result"],
        "Tries of effects by target and result (answered, not_yet, unknown, timed_out).",
    );
    /// Tries per effect.
    pub const EFFECT_ATTEMPTS: Metric = Metric::histogram(
        "ordermesh_engine_effect_attempts",
        &["service", "target"],
        "Tries that an effect took in this process until its partner gave a definite answer.",
    );
    /// Duration of a try.
    pub const EFFECT_SECONDS: Metric = Metric::histogram(
        "ordermesh_engine_effect_seconds",
        &["service", "target"],
        "Duration of one try of an effect, the wait for its turn left out.",
    );
    /// Unanswered effects.
    pub const EFFECTS_OUTSTANDING: Metric = Metric::gauge(
        "ordermesh_engine_effects_outstanding",
        &["service"],
        "Effects that wait for an answer now.",
    );
    /// Age of the oldest unanswered effect.
    pub const EFFECTS_OLDEST_SECONDS: Metric = Metric::gauge(
        "ordermesh_engine_effects_oldest_seconds",
        &["service", "target"],
        "Age of the oldest effect that waits for an answer; 0 when none does.",
    );
    /// State of a breaker.
    pub const BREAKER_STATE: Metric = Metric::gauge(
        "ordermesh_engine_breaker_state",
        &["service", "target"],
        "What the breaker lets through: 0 everything, 1 one probe, 2 nothing.",
    );
    /// Fired timers.
    pub const TIMERS_FIRED: Metric = Metric::counter(
        "ordermesh_engine_timers_fired_total",
        &["service"],
        "Timers that came due.",
    );
    /// Waiting timers.
    pub const TIMERS_WAITING: Metric = Metric::gauge(
        "ordermesh_engine_timers_waiting",
        &["service"],
        "Timers that are not due yet.",
    );
}

/// All metrics, for the list of metrics.
pub const ALL: &[Metric] = &[
    names::COMMANDS,
    names::EVENTS,
    names::DEAD_LETTERS,
    names::COMMAND_WAIT_SECONDS,
    names::BATCH_INPUTS,
    names::TRANSACTION_SECONDS,
    names::FAILED_TRANSACTIONS,
    names::PRODUCERS_RECREATED,
    names::CONSUMERS_RECREATED,
    names::INVARIANT_VIOLATIONS,
    names::LAG_RECORDS,
    names::LAG_SECONDS,
    names::RESTORE_SECONDS,
    names::RESTORED_RECORDS,
    names::RESTORING_SECONDS,
    names::FULL_REPLAYS,
    names::PARTITIONS,
    names::BLOCKED_PARTITIONS,
    names::STANDING_PARTITIONS,
    names::AGGREGATES,
    names::EFFECTS,
    names::EFFECT_ATTEMPTS,
    names::EFFECT_SECONDS,
    names::EFFECTS_OUTSTANDING,
    names::EFFECTS_OLDEST_SECONDS,
    names::BREAKER_STATE,
    names::TIMERS_FIRED,
    names::TIMERS_WAITING,
];

/// Metrics of all workers of a process, described at their names.
#[derive(Clone)]
pub struct Metrics {
    /// [`names::COMMANDS`]
    pub commands: IntCounterVec,
    /// [`names::EVENTS`]
    pub events: IntCounterVec,
    /// [`names::DEAD_LETTERS`]
    pub dead_letters: IntCounterVec,
    /// [`names::COMMAND_WAIT_SECONDS`]
    pub command_wait_seconds: HistogramVec,
    /// [`names::BATCH_INPUTS`]
    pub batch_inputs: HistogramVec,
    /// [`names::TRANSACTION_SECONDS`]
    pub transaction_seconds: HistogramVec,
    /// [`names::FAILED_TRANSACTIONS`]
    pub failed_transactions: IntCounterVec,
    /// [`names::PRODUCERS_RECREATED`]
    pub producers_recreated: IntCounterVec,
    /// [`names::CONSUMERS_RECREATED`]
    pub consumers_recreated: IntCounterVec,
    /// [`names::INVARIANT_VIOLATIONS`]
    pub invariant_violations: IntCounterVec,
    /// [`names::LAG_RECORDS`]
    pub lag_records: IntGaugeVec,
    /// [`names::LAG_SECONDS`]
    pub lag_seconds: GaugeVec,
    /// [`names::RESTORE_SECONDS`]
    pub restore_seconds: HistogramVec,
    /// [`names::RESTORED_RECORDS`]
    pub restored_records: IntCounterVec,
    /// [`names::RESTORING_SECONDS`]
    pub restoring_seconds: GaugeVec,
    /// [`names::FULL_REPLAYS`]
    pub full_replays: IntCounterVec,
    /// [`names::PARTITIONS`]
    pub partitions: IntGaugeVec,
    /// [`names::BLOCKED_PARTITIONS`]
    pub blocked_partitions: IntGaugeVec,
    /// [`names::STANDING_PARTITIONS`]
    pub standing_partitions: IntGaugeVec,
    /// [`names::AGGREGATES`]
    pub aggregates: IntGaugeVec,
    /// [`names::EFFECTS`]
    pub effects: IntCounterVec,
    /// [`names::EFFECT_ATTEMPTS`]
    pub effect_attempts: HistogramVec,
    /// [`names::EFFECT_SECONDS`]
    pub effect_seconds: HistogramVec,
    /// [`names::EFFECTS_OUTSTANDING`]
    pub effects_outstanding: IntGaugeVec,
    /// [`names::EFFECTS_OLDEST_SECONDS`] and [`names::BREAKER_STATE`]
    pub targets: TargetMetrics,
    /// [`names::TIMERS_FIRED`]
    pub timers_fired: IntCounterVec,
    /// [`names::TIMERS_WAITING`]
    pub timers_waiting: IntGaugeVec,
}

impl Metrics {
    /// Registers everything on `registry`.
    ///
    /// # Errors
    ///
    /// A name is already registered.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let seconds = || prometheus::exponential_buckets(0.001, 2.0, 15);
        let targets = TargetMetrics::new()?;
        registry.register(Box::new(targets.clone()))?;
        Ok(Self {
            commands: names::COMMANDS.int_counters(registry)?,
            events: names::EVENTS.int_counters(registry)?,
            dead_letters: names::DEAD_LETTERS.int_counters(registry)?,
            command_wait_seconds: names::COMMAND_WAIT_SECONDS.histograms(registry, seconds()?)?,
            batch_inputs: names::BATCH_INPUTS
                .histograms(registry, prometheus::exponential_buckets(1.0, 2.0, 12)?)?,
            transaction_seconds: names::TRANSACTION_SECONDS.histograms(registry, seconds()?)?,
            failed_transactions: names::FAILED_TRANSACTIONS.int_counters(registry)?,
            producers_recreated: names::PRODUCERS_RECREATED.int_counters(registry)?,
            consumers_recreated: names::CONSUMERS_RECREATED.int_counters(registry)?,
            invariant_violations: names::INVARIANT_VIOLATIONS.int_counters(registry)?,
            lag_records: names::LAG_RECORDS.int_gauges(registry)?,
            lag_seconds: names::LAG_SECONDS.float_gauges(registry)?,
            restore_seconds: names::RESTORE_SECONDS.histograms(registry, seconds()?)?,
            restored_records: names::RESTORED_RECORDS.int_counters(registry)?,
            restoring_seconds: names::RESTORING_SECONDS.float_gauges(registry)?,
            full_replays: names::FULL_REPLAYS.int_counters(registry)?,
            partitions: names::PARTITIONS.int_gauges(registry)?,
            blocked_partitions: names::BLOCKED_PARTITIONS.int_gauges(registry)?,
            standing_partitions: names::STANDING_PARTITIONS.int_gauges(registry)?,
            aggregates: names::AGGREGATES.int_gauges(registry)?,
            effects: names::EFFECTS.int_counters(registry)?,
            effect_attempts: names::EFFECT_ATTEMPTS
                .histograms(registry, prometheus::exponential_buckets(1.0, 2.0, 9)?)?,
            effect_seconds: names::EFFECT_SECONDS.histograms(registry, seconds()?)?,
            effects_outstanding: names::EFFECTS_OUTSTANDING.int_gauges(registry)?,
            targets,
            timers_fired: names::TIMERS_FIRED.int_counters(registry)?,
            timers_waiting: names::TIMERS_WAITING.int_gauges(registry)?,
        })
    }

    /// Initialises the metrics of a service to 0: otherwise the first occurrence would be no increase.
    pub(crate) fn initialise<C: Contract>(&self) {
        let service = C::SERVICE.name();
        for kind in C::Command::KINDS {
            for outcome in ["accepted", "no_change", "rejected"] {
                self.commands.with_label_values(&[service, *kind, outcome]);
            }
        }
        for kind in C::Event::KINDS {
            self.events.with_label_values(&[service, *kind]);
        }
        for result in ["aborted", "unclear", "fenced"] {
            self.failed_transactions
                .with_label_values(&[service, result]);
        }
        for topic in [Topic::State, Topic::Events] {
            self.restored_records
                .with_label_values(&[service, topic.name()]);
        }
        for invariant in Invariant::ALL {
            self.invariant_violations
                .with_label_values(&[service, invariant.name()]);
        }
        for cause in ["damaged", "missing", "outdated"] {
            self.full_replays.with_label_values(&[service, cause]);
        }
        for counters in [
            &self.producers_recreated,
            &self.consumers_recreated,
            &self.timers_fired,
        ] {
            counters.with_label_values(&[service]);
        }
        for gauges in [
            &self.partitions,
            &self.blocked_partitions,
            &self.standing_partitions,
            &self.aggregates,
            &self.effects_outstanding,
            &self.timers_waiting,
        ] {
            gauges.with_label_values(&[service]);
        }
        self.restoring_seconds.with_label_values(&[service]);
    }

    /// Initialises the metrics of a target to 0.
    pub(crate) fn initialise_target(&self, service: &str, target: &str) {
        for result in ["answered", "not_yet", "unknown", "timed_out"] {
            self.effects.with_label_values(&[service, target, result]);
        }
    }

    /// The take-over duration of one service.
    pub fn restore(&self, service: Service) -> Histogram {
        self.restore_seconds.with_label_values(&[service.name()])
    }
}
