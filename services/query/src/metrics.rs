//! What the read side tells about itself. Labels are services, partitions, statuses and currencies, never ids.

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

use crate::fold::{STATUSES, Step};

/// What was older when it was applied says nothing about us: a read model that was dropped is being filled again.
const STALE: Duration = Duration::from_secs(3600);

/// Every metric, defined once.
pub mod names {
    use observability::Metric;

    /// What became of events.
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
    /// Cost of a batch.
    pub const WRITE_SECONDS: Metric = Metric::histogram(
        "ordermesh_query_write_seconds",
        &[],
        "Duration of an SQL transaction of the projector.",
    );
    /// How far the log is applied.
    pub const POSITION: Metric = Metric::gauge(
        "ordermesh_query_position",
        &["service", "partition"],
        "First offset that is not applied; only partitions owned here.",
    );
    /// What is missing.
    pub const LAG_RECORDS: Metric = Metric::gauge(
        "ordermesh_query_lag_records",
        &["service", "partition"],
        "Offsets between the position and the last stable offset; only partitions owned here.",
    );
    /// Age of what is missing.
    pub const LAG_SECONDS: Metric = Metric::gauge(
        "ordermesh_query_lag_seconds",
        &["service", "partition"],
        "Age of the oldest event that is not applied, 0 when there is none; only partitions owned here. At most a \
         round of measuring (a quarter of a second for each partition) too high.",
    );
    /// Partitions that stand still.
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
    /// Batches that were lost to another projector.
    pub const FENCED: Metric = Metric::counter(
        "ordermesh_query_fenced_total",
        &[],
        "Batches dropped because a position had been moved by somebody else.",
    );
    /// Length of an order's life.
    pub const ORDER_SECONDS: Metric = Metric::histogram(
        "ordermesh_query_order_seconds",
        &["until"],
        "Time in the log from an order's creation until it was confirmed, shipped, delivered, cancelled or rejected. \
         What is more than an hour old when it is applied is left out.",
    );
    /// From the log to the reader.
    pub const VISIBLE_SECONDS: Metric = Metric::histogram(
        "ordermesh_query_visible_seconds",
        &["service"],
        "Time from an event to the commit that shows it to readers. What is more than an hour old then is left out.",
    );
    /// Orders on their way.
    pub const ORDERS: Metric = Metric::counter(
        "ordermesh_query_orders_total",
        &["status"],
        "Orders that reached a status (created, awaiting_payment, confirmed, shipped, delivered, cancelled, rejected), \
         as their events were applied.",
    );
    /// Their money.
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
    /// Age of the oldest of them.
    pub const OLDEST_OPEN_ORDER_SECONDS: Metric = Metric::gauge(
        "ordermesh_query_oldest_open_order_seconds",
        &["status"],
        "Time since the oldest order in each status that is not final was placed, 0 when there is none; absent when \
         the tables cannot be read.",
    );
    /// Keys that stand still.
    pub const PARKED_KEYS: Metric = Metric::gauge(
        "ordermesh_query_parked_keys",
        &[],
        "Keys with an event that could not be applied, whose later events wait behind it; absent when the tables \
         cannot be read.",
    );
    /// Looks at the tables for the three gauges above.
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
    /// Cost of a statement.
    pub const STATEMENT_SECONDS: Metric = Metric::histogram(
        "ordermesh_query_statement_seconds",
        &["statement"],
        "Duration of an SQL statement by its name; those of the read API include the wait for a connection.",
    );
}

/// All of them, for the list of metrics.
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

/// What becomes of an event.
#[derive(Clone, Copy, Debug)]
pub(crate) enum EventDisposition {
    /// Applied to its row.
    Applied,
    /// Skipped: the row contains it.
    Repeated,
    /// Set aside with its key.
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

/// Figures of the read side; what each says stands at its name.
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
            // The two are not read at one moment.
            samples.add(&["used"], (f64::from(pool.size()) - idle).max(0.0));
        })?;
        let metrics = Self {
            events: names::EVENTS.int_counters(registry)?,
            batch_events: names::BATCH_EVENTS
                .one_histogram(registry, exponential_buckets(1.0, 4.0, 7)?)?,
            write_seconds: names::WRITE_SECONDS
                .one_histogram(registry, exponential_buckets(0.001, 2.0, 13)?)?,
            position: names::POSITION.int_gauges(registry)?,
            lag_records: names::LAG_RECORDS.int_gauges(registry)?,
            lag_seconds: names::LAG_SECONDS.gauges_of_fractions(registry)?,
            waiting_partitions: names::WAITING_PARTITIONS.int_gauge(registry)?,
            database_failures: names::DATABASE_FAILURES.int_counter(registry)?,
            fenced: names::FENCED.int_counter(registry)?,
            // From 16 ms to over an hour: timers and parcels are part of an order's life. One bound is the second that
            // the objective promises.
            order_seconds: names::ORDER_SECONDS
                .traced_histograms(registry, exponential_buckets(1.0 / 64.0, 2.0, 19)?)?,
            visible_seconds: names::VISIBLE_SECONDS
                .histograms(registry, exponential_buckets(0.005, 2.0, 16)?)?,
            orders: names::ORDERS.int_counters(registry)?,
            order_value: names::ORDER_VALUE.int_counters(registry)?,
            open_orders: names::OPEN_ORDERS.int_gauges(registry)?,
            oldest_open_order_seconds: names::OLDEST_OPEN_ORDER_SECONDS
                .gauges_of_fractions(registry)?,
            parked_keys: names::PARKED_KEYS.int_gauges(registry)?,
            look_failures: names::LOOK_FAILURES.int_counter(registry)?,
            statements: Statements(
                names::STATEMENT_SECONDS
                    .histograms(registry, exponential_buckets(0.000_25, 2.0, 15)?)?,
            ),
        };
        metrics.begin();
        Ok(metrics)
    }

    /// What has not happened yet is 0 and not missing, or the first time would be no increase.
    fn begin(&self) {
        for service in Service::ALL {
            for fate in [
                EventDisposition::Applied,
                EventDisposition::Repeated,
                EventDisposition::Parked,
            ] {
                self.events
                    .with_label_values(&[service.name(), fate.name()]);
            }
        }
        for status in STATUSES {
            self.orders.with_label_values(&[status]);
        }
    }

    /// Counts events.
    pub fn events(&self, service: Service, fate: EventDisposition, count: u64) {
        if count > 0 {
            self.events
                .with_label_values(&[service.name(), fate.name()])
                .inc_by(count);
        }
    }

    /// Observes how long events took to be seen, given their times and that of the commit.
    pub fn visible(&self, service: Service, times: &[OffsetDateTime], commit: OffsetDateTime) {
        let seconds = self.visible_seconds.with_label_values(&[service.name()]);
        for age in times.iter().map(|time| age(*time, commit)) {
            if age <= STALE {
                seconds.observe(age.as_secs_f64());
            }
        }
    }

    /// Counts orders that came to a status, and how long that took.
    pub fn steps(&self, steps: &[Step], commit: OffsetDateTime) {
        for step in steps {
            self.orders.with_label_values(&[step.status]).inc();
            // Callers may write any three letters.
            let currency = Currency::from_code(&step.currency);
            self.order_value
                .with_label_values(&[currency.map_or("other", |known| known.code()), step.status])
                .inc_by(u64::try_from(step.total).unwrap_or_default());
            if let Some(took) = step.since_created
                && age(step.time, commit) <= STALE
            {
                self.order_seconds
                    .observe(&[step.status], took.as_secs_f64(), step.trace);
            }
        }
    }

    /// Shows how far a partition is applied.
    pub fn position(&self, service: Service, partition: i32, position: i64) {
        self.position
            .with_label_values(&[service.name(), &partition.to_string()])
            .set(position);
    }

    /// Shows how far a partition lies behind, in offsets and in seconds.
    pub fn lag(&self, service: Service, partition: i32, records: i64, seconds: f64) {
        let partition = partition.to_string();
        let labels = [service.name(), &partition];
        self.lag_records.with_label_values(&labels).set(records);
        self.lag_seconds.with_label_values(&labels).set(seconds);
    }

    /// Forgets how far partitions lie behind: old figures would be taken for new ones.
    pub fn forget_lag(&self) {
        self.lag_records.reset();
        self.lag_seconds.reset();
    }

    /// Forgets the partitions: others may own them from now on.
    pub fn disown(&self) {
        self.position.reset();
        self.forget_lag();
        self.waiting_partitions.set(0);
    }
}

/// Clocks of several machines: what lies ahead of ours has no age.
fn age(time: OffsetDateTime, now: OffsetDateTime) -> Duration {
    (now - time).try_into().unwrap_or_default()
}

/// How long SQL statements take, by name.
#[derive(Clone, Debug)]
pub(crate) struct Statements(HistogramVec);

impl Statements {
    /// Times that nobody looks at.
    pub fn unseen() -> Self {
        let opts = prometheus::HistogramOpts::new("unseen", "Nobody looks at it.");
        Self(HistogramVec::new(opts, &["statement"]).expect("the name is good"))
    }

    /// Times a statement; one that is given up counts with the time until then.
    pub async fn time<T>(&self, name: &'static str, statement: impl Future<Output = T>) -> T {
        let timer = self.0.with_label_values(&[name]).start_timer();
        let result = statement.await;
        timer.observe_duration();
        result
    }
}
