//! What a metric is: name, kind, labels and meaning, said once. The structs that hold the figures are made from it,
//! and so is the list of all metrics.

use prometheus::core::Collector;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

use crate::exemplars::TracedHistograms;
use crate::scraped::{Samples, Scraped};

/// What the end of a name says of the unit; the first that fits counts.
const UNITS: &[(&str, &str)] = &[
    ("_seconds_total", "seconds"),
    ("_minor_total", "minor units of money"),
    ("_total", "count"),
    ("_seconds", "seconds"),
    ("_bytes", "bytes"),
    ("_records", "records"),
    ("_info", "always 1"),
    ("_ready", "1 or 0"),
    ("_up", "1 or 0"),
    ("_state", "0, 1 or 2"),
    ("_offset", "offset"),
    ("_position", "offset"),
    ("_aggregates", "aggregates"),
    ("_connections", "connections"),
    ("_dead_letters", "records"),
    ("_effects_outstanding", "effects"),
    ("_attempts", "tries"),
    ("_events", "events"),
    ("_fds", "file descriptors"),
    ("_in_flight", "calls"),
    ("_inputs", "inputs"),
    ("_keys", "keys"),
    ("_members", "members"),
    ("_open_orders", "orders"),
    ("_partitions", "partitions"),
    ("_queue_depth", "tasks"),
    ("_schema_ids", "schemas"),
    ("_tasks", "tasks"),
    ("_violations", "violations"),
    ("_threads", "threads"),
    ("_timers_waiting", "timers"),
    ("_workers", "threads"),
];

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, from 0 at the start of the process.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Observations, counted by buckets.
    Histogram,
}

impl Kind {
    /// Its word in the exposition format.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The definition of a metric. Labels hold services, kinds, classes and partitions, never ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Full name; its end is the unit (`_seconds`, `_records`, `_bytes`; `_total` counts).
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// Names of the labels, constant ones included.
    pub labels: &'static [&'static str],
    /// What it says, in a sentence, with the values of the labels where they are few.
    pub help: &'static str,
}

impl Metric {
    /// A counter.
    pub const fn counter(
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self {
            name,
            kind: Kind::Counter,
            labels,
            help,
        }
    }

    /// A gauge.
    pub const fn gauge(
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self {
            name,
            kind: Kind::Gauge,
            labels,
            help,
        }
    }

    /// A histogram.
    pub const fn histogram(
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self {
            name,
            kind: Kind::Histogram,
            labels,
            help,
        }
    }

    /// The unit, by the end of the name; `None` when that is no known one.
    pub fn unit(&self) -> Option<&'static str> {
        let fits = |(end, _): &&(&str, &str)| self.name.ends_with(end);
        UNITS.iter().find(fits).map(|(_, unit)| *unit)
    }

    /// What the `prometheus` crate wants to know, for collectors that are made by hand.
    pub fn opts(&self) -> Opts {
        Opts::new(self.name, self.help)
    }

    /// What is made of a definition is what it says, or the list of metrics would lie.
    fn is(&self, kind: Kind) {
        debug_assert_eq!(self.kind, kind, "{}", self.name);
    }

    /// A counter without labels.
    ///
    /// # Errors
    ///
    /// When the name is taken on `registry`; so with all of these.
    pub fn int_counter(&self, registry: &Registry) -> Result<IntCounter, prometheus::Error> {
        self.is(Kind::Counter);
        registered(registry, IntCounter::with_opts(self.opts())?)
    }

    /// A counter for each set of label values.
    ///
    /// # Errors
    ///
    /// See [`Self::int_counter`].
    pub fn int_counters(&self, registry: &Registry) -> Result<IntCounterVec, prometheus::Error> {
        self.is(Kind::Counter);
        registered(registry, IntCounterVec::new(self.opts(), self.labels)?)
    }

    /// A whole-numbered gauge without labels.
    ///
    /// # Errors
    ///
    /// See [`Self::int_counter`].
    pub fn int_gauge(&self, registry: &Registry) -> Result<IntGauge, prometheus::Error> {
        self.is(Kind::Gauge);
        registered(registry, IntGauge::with_opts(self.opts())?)
    }

    /// A whole-numbered gauge for each set of label values.
    ///
    /// # Errors
    ///
    /// See [`Self::int_counter`].
    pub fn int_gauges(&self, registry: &Registry) -> Result<IntGaugeVec, prometheus::Error> {
        self.is(Kind::Gauge);
        registered(registry, IntGaugeVec::new(self.opts(), self.labels)?)
    }

    /// A gauge for each set of label values.
    ///
    /// # Errors
    ///
    /// See [`Self::int_counter`].
    pub fn gauges_of_fractions(&self, registry: &Registry) -> Result<GaugeVec, prometheus::Error> {
        self.is(Kind::Gauge);
        registered(registry, GaugeVec::new(self.opts(), self.labels)?)
    }

    /// A histogram without labels.
    ///
    /// # Errors
    ///
    /// See [`Self::int_counter`].
    pub fn one_histogram(
        &self,
        registry: &Registry,
        buckets: Vec<f64>,
    ) -> Result<Histogram, prometheus::Error> {
        self.is(Kind::Histogram);
        let options = HistogramOpts::from(self.opts()).buckets(buckets);
        registered(registry, Histogram::with_opts(options)?)
    }

    /// A histogram for each set of label values.
    ///
    /// # Errors
    ///
    /// See [`Self::int_counter`].
    pub fn histograms(
        &self,
        registry: &Registry,
        buckets: Vec<f64>,
    ) -> Result<HistogramVec, prometheus::Error> {
        self.is(Kind::Histogram);
        let options = HistogramOpts::from(self.opts()).buckets(buckets);
        registered(registry, HistogramVec::new(options, self.labels)?)
    }

    /// A histogram for each set of label values, whose buckets show a trace each.
    ///
    /// # Errors
    ///
    /// See [`Self::int_counter`].
    pub fn traced_histograms(
        &self,
        registry: &Registry,
        buckets: Vec<f64>,
    ) -> Result<TracedHistograms, prometheus::Error> {
        self.is(Kind::Histogram);
        let options = HistogramOpts::from(self.opts()).buckets(buckets);
        TracedHistograms::register(options, self.labels, registry)
    }

    /// A counter or gauge whose figures are taken by `look` whenever somebody asks for them.
    ///
    /// # Errors
    ///
    /// See [`Self::int_counter`].
    pub fn on_scrape(
        &self,
        registry: &Registry,
        look: impl Fn(&mut Samples) + Send + Sync + 'static,
    ) -> Result<(), prometheus::Error> {
        registry.register(Box::new(Scraped::new(self, look)?))
    }
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
