//! Definitions of metrics: name, kind, labels and help text. Collectors and the list of all metrics are made from them.

use prometheus::core::Collector;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

use crate::exemplars::TracedHistograms;
use crate::scraped::{Samples, ScrapeCollector};

/// Units by name suffix; the first match counts.
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

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only increases, from 0 at the start of the process.
    Counter,
    /// Increases and decreases.
    Gauge,
    /// Observations, counted in buckets.
    Histogram,
}

impl Kind {
    /// The name in the exposition format.
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
    /// Full name; its suffix is the unit (`_seconds`, `_records`, `_bytes`; `_total` for counts).
    pub name: &'static str,
    /// The kind.
    pub kind: Kind,
    /// Names of the labels, including constant ones.
    pub labels: &'static [&'static str],
    /// Help text: one sentence, with the label values when there are few.
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

    /// The unit by the suffix of the name; `None` for an unknown suffix.
    pub fn unit(&self) -> Option<&'static str> {
        let matches = |(suffix, _): &&(&str, &str)| self.name.ends_with(suffix);
        UNITS.iter().find(matches).map(|(_, unit)| *unit)
    }

    /// The options of the `prometheus` crate, for collectors that are made by hand.
    pub fn opts(&self) -> Opts {
        Opts::new(self.name, self.help)
    }

    /// Collectors must have the kind of their definition, or the list of metrics would be wrong.
    fn assert_kind(&self, kind: Kind) {
        debug_assert_eq!(self.kind, kind, "{}", self.name);
    }

    /// A counter without labels.
    ///
    /// # Errors
    ///
    /// The name is taken on `registry`; the same for all methods that register.
    pub fn int_counter(&self, registry: &Registry) -> Result<IntCounter, prometheus::Error> {
        self.assert_kind(Kind::Counter);
        registered(registry, IntCounter::with_opts(self.opts())?)
    }

    /// A counter for each set of label values.
    ///
    /// # Errors
    ///
    /// See [`Self::int_counter`].
    pub fn int_counters(&self, registry: &Registry) -> Result<IntCounterVec, prometheus::Error> {
        self.assert_kind(Kind::Counter);
        registered(registry, IntCounterVec::new(self.opts(), self.labels)?)
    }

    /// An integer gauge without labels.
    ///
    /// # Errors
    ///
    /// See [`Self::int_counter`].
    pub fn int_gauge(&self, registry: &Registry) -> Result<IntGauge, prometheus::Error> {
        self.assert_kind(Kind::Gauge);
        registered(registry, IntGauge::with_opts(self.opts())?)
    }

    /// An integer gauge for each set of label values.
    ///
    /// # Errors
    ///
    /// See [`Self::int_counter`].
    pub fn int_gauges(&self, registry: &Registry) -> Result<IntGaugeVec, prometheus::Error> {
        self.assert_kind(Kind::Gauge);
        registered(registry, IntGaugeVec::new(self.opts(), self.labels)?)
    }

    /// A gauge for each set of label values.
    ///
    /// # Errors
    ///
    /// See [`Self::int_counter`].
    pub fn float_gauges(&self, registry: &Registry) -> Result<GaugeVec, prometheus::Error> {
        self.assert_kind(Kind::Gauge);
        registered(registry, GaugeVec::new(self.opts(), self.labels)?)
    }

    /// A histogram without labels.
    ///
    /// # Errors
    ///
    /// See [`Self::int_counter`].
    pub fn single_histogram(
        &self,
        registry: &Registry,
        buckets: Vec<f64>,
    ) -> Result<Histogram, prometheus::Error> {
        self.assert_kind(Kind::Histogram);
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
        self.assert_kind(Kind::Histogram);
        let options = HistogramOpts::from(self.opts()).buckets(buckets);
        registered(registry, HistogramVec::new(options, self.labels)?)
    }

    /// A histogram with exemplars for each set of label values.
    ///
    /// # Errors
    ///
    /// See [`Self::int_counter`].
    pub fn traced_histograms(
        &self,
        registry: &Registry,
        buckets: Vec<f64>,
    ) -> Result<TracedHistograms, prometheus::Error> {
        self.assert_kind(Kind::Histogram);
        let options = HistogramOpts::from(self.opts()).buckets(buckets);
        TracedHistograms::register(options, self.labels, registry)
    }

    /// A counter or gauge whose values `sample` adds at every scrape.
    ///
    /// # Errors
    ///
    /// See [`Self::int_counter`].
    pub fn on_scrape(
        &self,
        registry: &Registry,
        sample: impl Fn(&mut Samples) + Send + Sync + 'static,
    ) -> Result<(), prometheus::Error> {
        registry.register(Box::new(ScrapeCollector::new(self, sample)?))
    }
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
