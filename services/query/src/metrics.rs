//! What the projector tells about itself.

use contracts::Service;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    exponential_buckets,
};

const EVENTS: &str = "ordermesh_query_events_total";
const BATCH_EVENTS: &str = "ordermesh_query_batch_events";
const WRITE_SECONDS: &str = "ordermesh_query_write_seconds";
const POSITION: &str = "ordermesh_query_position";
const LAG: &str = "ordermesh_query_lag_records";
const WAITING_PARTITIONS: &str = "ordermesh_query_waiting_partitions";
const DATABASE_FAILURES: &str = "ordermesh_query_database_failures_total";
const FENCED: &str = "ordermesh_query_fenced_total";

/// What becomes of an event.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// Applied to its row.
    Applied,
    /// Skipped: the row contains it.
    Repeated,
    /// Set aside with its key.
    Parked,
}

impl Fate {
    const fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Repeated => "repeated",
            Self::Parked => "parked",
        }
    }
}

/// The projector's metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Events by service and fate: applied, repeated, parked.
    events: IntCounterVec,
    /// Events per SQL transaction.
    pub batch_events: Histogram,
    /// Duration of an SQL transaction, in seconds.
    pub write_seconds: Histogram,
    /// First offset that is not applied, by service and partition; only partitions owned here.
    position: IntGaugeVec,
    /// Offsets between the position and the last stable offset, by service and partition; only partitions owned here.
    lag: IntGaugeVec,
    /// Partitions that wait for the registry, or for an upgrade of this program.
    pub waiting_partitions: IntGauge,
    /// Failures of the projector's connection to the database.
    pub database_failures: IntCounter,
    /// Batches dropped because somebody else had moved a position.
    pub fenced: IntCounter,
}

impl Metrics {
    /// Registers the metrics.
    ///
    /// # Errors
    ///
    /// One of them is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            events: IntCounterVec::new(
                Opts::new(EVENTS, "events by service and what became of them"),
                &["service", "fate"],
            )?,
            batch_events: Histogram::with_opts(
                HistogramOpts::new(BATCH_EVENTS, "events per SQL transaction")
                    .buckets(exponential_buckets(1.0, 4.0, 7)?),
            )?,
            write_seconds: Histogram::with_opts(
                HistogramOpts::new(WRITE_SECONDS, "duration of an SQL transaction in seconds")
                    .buckets(exponential_buckets(0.001, 2.0, 13)?),
            )?,
            position: IntGaugeVec::new(
                Opts::new(POSITION, "first offset that is not applied"),
                &["service", "partition"],
            )?,
            lag: IntGaugeVec::new(
                Opts::new(LAG, "offsets between position and last stable offset"),
                &["service", "partition"],
            )?,
            waiting_partitions: IntGauge::new(
                WAITING_PARTITIONS,
                "partitions that wait for the registry or for an upgrade",
            )?,
            database_failures: IntCounter::new(
                DATABASE_FAILURES,
                "failures of the projector's database connection",
            )?,
            fenced: IntCounter::new(
                FENCED,
                "batches dropped because a position had been moved by somebody else",
            )?,
        };
        registry.register(Box::new(metrics.events.clone()))?;
        registry.register(Box::new(metrics.batch_events.clone()))?;
        registry.register(Box::new(metrics.write_seconds.clone()))?;
        registry.register(Box::new(metrics.position.clone()))?;
        registry.register(Box::new(metrics.lag.clone()))?;
        registry.register(Box::new(metrics.waiting_partitions.clone()))?;
        registry.register(Box::new(metrics.database_failures.clone()))?;
        registry.register(Box::new(metrics.fenced.clone()))?;
        Ok(metrics)
    }

    /// Counts events.
    pub fn events(&self, service: Service, fate: Fate, count: u64) {
        if count > 0 {
            self.events
                .with_label_values(&[service.name(), fate.name()])
                .inc_by(count);
        }
    }

    /// Shows how far a partition is applied.
    pub fn position(&self, service: Service, partition: i32, position: i64) {
        self.position
            .with_label_values(&[service.name(), &partition.to_string()])
            .set(position);
    }

    /// Shows how far a partition lies behind.
    pub fn lag(&self, service: Service, partition: i32, lag: i64) {
        self.lag
            .with_label_values(&[service.name(), &partition.to_string()])
            .set(lag);
    }

    /// Forgets the partitions: others may own them from now on.
    pub fn disown(&self) {
        self.position.reset();
        self.lag.reset();
        self.waiting_partitions.set(0);
    }
}
