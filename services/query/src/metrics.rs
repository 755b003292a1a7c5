//! Metrics of the read side. Labels are services, partitions, statuses and currencies, never ids.

use std::future::Future;
use std::time::Duration;

use contracts::Service;
use iso_currency::Currency;
use observability::{Metric, TracedHistograms};
use prometheus::{
    GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    exponential_buckets,
};
use sqlx::PgPool;
use sqlx::types::time::OffsetDateTime;

use crate::fold::{MILESTONES, Milestone};

/// Events that are older when they are applied are not timed: the read model is being rebuilt.
const MAX_TIMED_AGE: Duration = Duration::from_secs(3600);

/// Every metric, defined once.
pub mod names {
    use observability::Metric;

    /// Events by disposition.
    pub const EVENTS: Metric = Metric::counter(
        "ordermesh_query_events_total",
        &["service", "fate"],
        "Events by what became of them (applied, repeated, parked).",
    );
    /// Size of a batch.
    pub const BATCH_EVENTS: Metric = Metric::histogram(
        "ordermesh_query_batch_events",
        &[],
        "Events per SQL transaction.",
    );
    /// Duration of a batch.
    pub const WRITE_SECONDS: Metric = Metric::histogram(
        "ordermesh_query_write_seconds",
        &[],
        "Duration of an SQL transaction of the projector.",
    );
    /// Position of each partition.
    pub const POSITION: Metric = Metric::gauge(
        "ordermesh_query_position",
        &["service", "partition"],
        "First offset that is not applied; only partitions owned here.",
    );
    /// Lag in records.
    pub const LAG_RECORDS: Metric = Metric::gauge(
        "ordermesh_query_lag_records",
        &["service", "partition"],
        "Offsets between the position and the last stable offset; only partitions owned here.",
    );
    /// Lag in seconds.
    pub const LAG_SECONDS: Metric = Metric::gauge(
        "ordermesh_query_lag_seconds",
        &["service", "partition"],
        "Age of the oldest event that is not applied, 0 when there is none; only partitions owned here. At most a \
         round of measuring (a quarter of a second for each partition) too high.",
    );
    /// Paused partitions.
    pub const WAITING_PARTITIONS: Metric = Metric::gauge(
        "ordermesh_query_waiting_partitions",
        &[],
        "Partitions that wait for the registry or for an upgrade of the program.",
    );
    /// Failures of the database.
    pub const DATABASE_FAILURES: Metric = Metric::counter(
        "ordermesh_query_database_failures_total",
        &[],
        "Failures of the projector's database connection.",
    );
    /// Batches that were fenced by another projector.
    pub const FENCED: Metric = Metric::counter(
        "ordermesh_query_fenced_total",
        &[],
        "Batches dropped because a position had been moved by another projector.",
    );
    /// Time from creation to a milestone.
    pub const ORDER_SECONDS: Metric = Metric::histogram(
        "ordermesh_query_order_seconds",
        &["until"],
        "Time in the log from an order's creation until it was confirmed, shipped, delivered, cancelled or rejected. \
         What is more than an hour old when it is applied is left out.",
    );
    /// Time until an event is visible to readers.
    pub const VISIBLE_SECONDS: Metric = Metric::histogram(
        "ordermesh_query_visible_seconds",
        &["service"],
        "Time from an event to the commit that shows it to readers. What is more than an hour old then is left out.",
    );
    /// Orders by milestone.
    pub const ORDERS: Metric = Metric::counter(
        "ordermesh_query_orders_total",
        &["status"],
        "Orders that reached a status (created, awaiting_payment, confirmed, shipped, delivered, cancelled, rejected), \
         as their events were applied.",
    );
    /// Order value by milestone.
    pub const ORDER_VALUE: Metric = Metric::counter(
        "ordermesh_query_order_value_minor_total",
        &["currency", "status"],
        "Totals of the orders that reached a status, in minor units of their currency (ISO 4217, or other).",
    );
    /// Orders that are not final.
    pub const OPEN_ORDERS: Metric = Metric::gauge(
        "ordermesh_query_open_orders",
        &["status"],
        "Orders in each status that is not final, from the tables every few seconds; absent when they cannot be read.",
    );
    /// Age of the oldest open order.
    pub const OLDEST_OPEN_ORDER_SECONDS: Metric = Metric::gauge(
        "ordermesh_query_oldest_open_order_seconds",
        &["status"],
        "Time since the oldest order in each status that is not final was placed, 0 when there is none; absent when \
         the tables cannot be read.",
    );
    /// Parked keys.
    pub const PARKED_KEYS: Metric = Metric::gauge(
        "ordermesh_query_parked_keys",
        &[],
        "Keys with an event that could not be applied, whose later events wait behind it; absent when the tables \
         cannot be read.",
    );
    /// Failed collections of the three gauges above.
    pub const LOOK_FAILURES: Metric = Metric::counter(
        "ordermesh_query_look_failures_total",
        &[],
        "Looks at the tables for the gauges of open orders and parked keys that failed.",
    );
    /// Connections of the API.
    pub const POOL_CONNECTIONS: Metric = Metric::gauge(
        "ordermesh_query_pool_connections",
        &["state"],
        "Connections of the read API to the database (used, idle).",
    );
    /// Duration of a statement.
    pub const STATEMENT_SECONDS: Metric = Metric::histogram(
        "ordermesh_query_statement_seconds",
        &["statement"],
        "Duration of an SQL statement by its name; those of the read API include the wait for a connection.",
    );
}

/// All metrics, for the generated list.
pub const ALL: &[Metric] = &[
    names::EVENTS,
    names::BATCH_EVENTS,
    names::WRITE_SECONDS,
    names::POSITION,
    names::LAG_RECORDS,
    names::LAG_SECONDS,
    names::WAITING_PARTITIONS,
    names::DATABASE_FAILURES,
    names::FENCED,
    names::ORDER_SECONDS,
    names::VISIBLE_SECONDS,
    names::ORDERS,
    names::ORDER_VALUE,
    names::OPEN_ORDERS,
    names::OLDEST_OPEN_ORDER_SECONDS,
    names::PARKED_KEYS,
    names::LOOK_FAILURES,
    names::POOL_CONNECTIONS,
    names::STATEMENT_SECONDS,
];

/// What the projector did with an event.
#[derive(Clone, Copy, Debug)]
pub(crate) enum EventDisposition {
    /// Applied to its row.
    Applied,
    /// Skipped: its row already includes it.
    Repeated,
    /// Parked with its key.
    Parked,
}

impl EventDisposition {
    const fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Repeated => "repeated",
            Self::Parked => "parked",
        }
    }
}

/// The metrics of the read side. Each is described at its name.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// [`names::EVENTS`]
    events: IntCounterVec,
    /// [`names::BATCH_EVENTS`]
    pub batch_events: Histogram,
    /// [`names::WRITE_SECONDS`]
    pub write_seconds: Histogram,
    /// [`names::POSITION`]
    position: IntGaugeVec,
    /// [`names::LAG_RECORDS`]
    lag_records: IntGaugeVec,
    /// [`names::LAG_SECONDS`]
    lag_seconds: GaugeVec,
    /// [`names::WAITING_PARTITIONS`]
    pub waiting_partitions: IntGauge,
    /// [`names::DATABASE_FAILURES`]
    pub database_failures: IntCounter,
    /// [`names::FENCED`]
    pub fenced: IntCounter,
    /// [`names::ORDER_SECONDS`]
    order_seconds: TracedHistograms,
    /// [`names::VISIBLE_SECONDS`]
    visible_seconds: HistogramVec,
    /// [`names::ORDERS`]
    orders: IntCounterVec,
    /// [`names::ORDER_VALUE`]
    order_value: IntCounterVec,
    /// [`names::OPEN_ORDERS`]
    pub open_orders: IntGaugeVec,
    /// [`names::OLDEST_OPEN_ORDER_SECONDS`]
    pub oldest_open_order_seconds: GaugeVec,
    /// [`names::PARKED_KEYS`]; a family, so that it can be absent.
    pub parked_keys: IntGaugeVec,
    /// [`names::LOOK_FAILURES`]
    pub look_failures: IntCounter,
    /// [`names::STATEMENT_SECONDS`]
    pub statements: Statements,
}

impl Metrics {
    /// Registers the metrics, with those of the API's connections.
    ///
    /// # Errors
    ///
    /// One of them is registered already.
    pub fn new(registry: &Registry, pool: &PgPool) -> Result<Self, prometheus::Error> {
        let pool = pool.clone();
        names::POOL_CONNECTIONS.on_scrape(registry, move |samples| {
            let idle = pool.num_idle() as f64;
            samples.add(&["idle"], idle);
            // The two values are not read atomically.
            samples.add(&["used"], (f64::from(pool.size()) - idle).max(0.0));
        })?;
        let metrics = Self {
            events: names::EVENTS.int_counters(registry)?,
            batch_events: names::BATCH_EVENTS
                .single_histogram(registry, exponential_buckets(1.0, 4.0, 7)?)?,
            write_seconds: names::WRITE_SECONDS
                .single_histogram(registry, exponential_buckets(0.001, 2.0, 13)?)?,
            position: names::POSITION.int_gauges(registry)?,
            lag_records: names::LAG_RECORDS.int_gauges(registry)?,
            lag_seconds: names::LAG_SECONDS.float_gauges(registry)?,
            waiting_partitions: names::WAITING_PARTITIONS.int_gauge(registry)?,
            database_failures: names::DATABASE_FAILURES.int_counter(registry)?,
            fenced: names::FENCED.int_counter(registry)?,
            // From 16 ms to over an hour, because orders wait for timers and parcels. One bound is the objective of one
            // second.
            order_seconds: names::ORDER_SECONDS
                .traced_histograms(registry, exponential_buckets(1.0 / 64.0, 2.0, 19)?)?,
            visible_seconds: names::VISIBLE_SECONDS
                .histograms(registry, exponential_buckets(0.005, 2.0, 16)?)?,
            orders: names::ORDERS.int_counters(registry)?,
            order_value: names::ORDER_VALUE.int_counters(registry)?,
            open_orders: names::OPEN_ORDERS.int_gauges(registry)?,
            oldest_open_order_seconds: names::OLDEST_OPEN_ORDER_SECONDS.float_gauges(registry)?,
            parked_keys: names::PARKED_KEYS.int_gauges(registry)?,
            look_failures: names::LOOK_FAILURES.int_counter(registry)?,
            statements: Statements(
                names::STATEMENT_SECONDS
                    .histograms(registry, exponential_buckets(0.000_25, 2.0, 15)?)?,
            ),
        };
        metrics.init_labels();
        Ok(metrics)
    }

    /// Creates all counters with the value 0; otherwise the first increment would not count as an increase.
    fn init_labels(&self) {
        for service in Service::ALL {
            for disposition in [
                EventDisposition::Applied,
                EventDisposition::Repeated,
                EventDisposition::Parked,
            ] {
                self.events
                    .with_label_values(&[service.name(), disposition.name()]);
            }
        }
        for status in MILESTONES {
            self.orders.with_label_values(&[status]);
        }
    }

    /// Counts events.
    pub fn events(&self, service: Service, disposition: EventDisposition, count: u64) {
        if count > 0 {
            self.events
                .with_label_values(&[service.name(), disposition.name()])
                .inc_by(count);
        }
    }

    /// Observes the time from each event to the commit that makes it visible.
    pub fn visible(&self, service: Service, times: &[OffsetDateTime], commit: OffsetDateTime) {
        let seconds = self.visible_seconds.with_label_values(&[service.name()]);
        for age in times.iter().map(|time| age(*time, commit)) {
            if age <= MAX_TIMED_AGE {
                seconds.observe(age.as_secs_f64());
            }
        }
    }

    /// Counts milestones, and observes their time since creation.
    pub fn milestones(&self, milestones: &[Milestone], commit: OffsetDateTime) {
        for milestone in milestones {
            self.orders.with_label_values(&[milestone.status]).inc();
            // The field rules accept any three letters.
            let currency = Currency::from_code(&milestone.currency);
            self.order_value
                .with_label_values(&[
                    currency.map_or("other", |known| known.code()),
                    milestone.status,
                ])
                .inc_by(u64::try_from(milestone.total).unwrap_or_default());
            if let Some(took) = milestone.since_created
                && age(milestone.time, commit) <= MAX_TIMED_AGE
            {
                self.order_seconds.observe(
                    &[milestone.status],
                    took.as_secs_f64(),
                    milestone.trace,
                );
            }
        }
    }

    /// Sets the position of a partition.
    pub fn position(&self, service: Service, partition: i32, position: i64) {
        self.position
            .with_label_values(&[service.name(), &partition.to_string()])
            .set(position);
    }

    /// Sets the lag of a partition, in offsets and in seconds.
    pub fn lag(&self, service: Service, partition: i32, records: i64, seconds: f64) {
        let partition = partition.to_string();
        let labels = [service.name(), &partition];
        self.lag_records.with_label_values(&labels).set(records);
        self.lag_seconds.with_label_values(&labels).set(seconds);
    }

    /// Removes the lag of all partitions: stale values would look current.
    pub fn reset_lag(&self) {
        self.lag_records.reset();
        self.lag_seconds.reset();
    }

    /// Removes the values of all partitions: other projectors may own them now.
    pub fn reset_partitions(&self) {
        self.position.reset();
        self.reset_lag();
        self.waiting_partitions.set(0);
    }
}

/// Age of an event; 0 when it is in the future, because the clocks of machines differ.
fn age(time: OffsetDateTime, now: OffsetDateTime) -> Duration {
    (now - time).try_into().unwrap_or_default()
}

/// How long SQL statements take, by name.
#[derive(Clone, Debug)]
pub(crate) struct Statements(HistogramVec);

impl Statements {
    /// Times that are not exported.
    #[cfg(feature = "simulation")]
    pub fn unexported() -> Self {
        let opts = prometheus::HistogramOpts::new("unexported", "Not exported.");
        Self(HistogramVec::new(opts, &["statement"]).expect("the name is good"))
    }

    /// Times a statement. A statement that is cancelled counts with the time until then.
    pub async fn time<T>(&self, name: &'static str, statement: impl Future<Output = T>) -> T {
        let timer = self.0.with_label_values(&[name]).start_timer();
        let result = statement.await;
        timer.observe_duration();
        result
    }
}
