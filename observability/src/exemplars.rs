//! Histograms with exemplars: a trace for each bucket.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{LabelPair, MetricFamily};
use prometheus::{HistogramOpts, HistogramVec, Registry};

use crate::TraceParent;

/// A sampled observation that links a bucket to a trace.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Exemplar {
    pub trace: String,
    pub value: f64,
    pub time: SystemTime,
}

/// The latest exemplar of each bucket of one series, `+Inf` last.
pub(crate) type Buckets = Vec<Option<Exemplar>>;

/// Histograms that keep, for each bucket, the latest observation of a recorded trace. The OpenMetrics exposition writes
/// it beside the bucket; the classic format does not support exemplars.
#[derive(Clone, Debug)]
pub struct TracedHistograms {
    histograms: HistogramVec,
    exemplars: Arc<ExemplarStore>,
}

#[derive(Debug)]
struct ExemplarStore {
    labels: Vec<String>,
    upper_bounds: Vec<f64>,
    /// By label values.
    series: Mutex<HashMap<Vec<String>, Buckets>>,
}

impl TracedHistograms {
    /// Registers histograms with constant labels; without them use
    /// [`Metric::traced_histograms`](crate::Metric::traced_histograms).
    ///
    /// # Errors
    ///
    /// The name is taken on `registry`.
    pub fn register(
        options: HistogramOpts,
        labels: &[&str],
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let exemplars = ExemplarStore {
            labels: labels.iter().map(|&label| label.to_owned()).collect(),
            upper_bounds: options.buckets.clone(),
            series: Mutex::default(),
        };
        let traced = Self {
            histograms: HistogramVec::new(options, labels)?,
            exemplars: Arc::new(exemplars),
        };
        registry.register(Box::new(traced.clone()))?;
        Ok(traced)
    }

    /// Counts `value` in its bucket. An observation of a recorded trace also becomes the exemplar of the bucket, which
    /// takes a lock.
    pub fn observe(&self, labels: &[&str], value: f64, parent: Option<TraceParent>) {
        self.histograms.with_label_values(labels).observe(value);
        if let Some(parent) = parent.filter(|parent| parent.is_sampled()) {
            self.exemplars.store(labels, value, parent);
        }
    }

    /// How many values were observed under `labels`.
    pub fn count(&self, labels: &[&str]) -> u64 {
        self.histograms.with_label_values(labels).get_sample_count()
    }
}

impl ExemplarStore {
    fn store(&self, labels: &[&str], value: f64, parent: TraceParent) {
        let exemplar = Exemplar {
            trace: parent.trace_id(),
            value,
            time: SystemTime::now(),
        };
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        let bucket = self.upper_bounds.partition_point(|bound| *bound < value);
        let mut series = self.series.lock();
        let buckets = series
            .entry(labels)
            .or_insert_with(|| vec![None; self.upper_bounds.len() + 1]);
        buckets[bucket] = Some(exemplar);
    }

    /// The exemplars of a series of the gathered histogram.
    fn of(&self, pairs: &[LabelPair]) -> Option<Buckets> {
        let value = |label: &String| {
            let pair = pairs.iter().find(|pair| pair.name() == label)?;
            Some(pair.value().to_owned())
        };
        let labels: Vec<_> = self.labels.iter().filter_map(value).collect();
        let series = self.series.lock();
        series.get(&labels).cloned()
    }
}

impl Collector for TracedHistograms {
    fn desc(&self) -> Vec<&Desc> {
        self.histograms.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let families = self.histograms.collect();
        GATHERED.with_borrow_mut(|gathered| {
            let Some(gathered) = gathered else { return };
            for family in &families {
                for metric in family.get_metric() {
                    if let Some(buckets) = self.exemplars.of(metric.get_label()) {
                        gathered.add(family.name(), metric.get_label(), buckets);
                    }
                }
            }
        });
        families
    }
}

thread_local! {
    /// The exemplars collected while this thread gathers. The data model of the `prometheus` crate has no exemplars; a
    /// registry calls its collectors on the thread that gathers.
    static GATHERED: RefCell<Option<Exemplars>> = const { RefCell::new(None) };
}

/// The exemplars of all gathered metrics.
#[derive(Debug, Default)]
pub(crate) struct Exemplars(HashMap<String, Vec<(Vec<LabelPair>, Buckets)>>);

impl Exemplars {
    fn add(&mut self, family: &str, labels: &[LabelPair], buckets: Buckets) {
        let of_family = self.0.entry(family.to_owned()).or_default();
        of_family.push((labels.to_vec(), buckets));
    }

    /// The exemplars of one series.
    pub fn find(&self, family: &str, labels: &[LabelPair]) -> Option<&Buckets> {
        let series = self.0.get(family)?;
        let found = series.iter().find(|(of, _)| of == labels);
        found.map(|(_, buckets)| buckets)
    }
}

/// Gathers all metrics of a registry and their exemplars.
pub(crate) fn gather(registry: &Registry) -> (Vec<MetricFamily>, Exemplars) {
    GATHERED.set(Some(Exemplars::default()));
    let families = registry.gather();
    (families, GATHERED.take().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Metric;

    const WAIT: Metric = Metric::histogram("wait_seconds", &["line"], "Waiting.");
    const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    fn parent(header: &str) -> Option<TraceParent> {
        Some(TraceParent::parse(header.as_bytes()).expect("it is well formed"))
    }

    fn traces(registry: &Registry) -> Vec<Option<(String, f64)>> {
        let (families, exemplars) = gather(registry);
        let family = families
            .iter()
            .find(|family| family.name() == WAIT.name)
            .expect("it is registered");
        let labels = family.get_metric()[0].get_label();
        let buckets = exemplars
            .find(WAIT.name, labels)
            .cloned()
            .unwrap_or_default();
        let brief = |exemplar: Exemplar| (exemplar.trace, exemplar.value);
        buckets
            .into_iter()
            .map(|bucket| bucket.map(brief))
            .collect()
    }

    #[test]
    fn a_bucket_keeps_its_latest_sampled_observation() {
        let registry = Registry::new();
        let wait = WAIT
            .traced_histograms(&registry, vec![1.0, 2.0])
            .expect("the name is free");
        wait.observe(&["post"], 0.5, None);
        wait.observe(&["post"], 0.6, parent(UNSAMPLED));
        assert_eq!(traces(&registry), [], "nothing was sampled");

        let trace = "0af7651916cd43dd8448eb211c80319c".to_owned();
        wait.observe(&["post"], 1.5, parent(SAMPLED));
        wait.observe(&["post"], 2.0, parent(SAMPLED));
        wait.observe(&["post"], 9.0, parent(SAMPLED));
        wait.observe(&["post"], 1.7, None);
        assert_eq!(
            traces(&registry),
            [None, Some((trace.clone(), 2.0)), Some((trace, 9.0))],
            "an upper bound belongs to its bucket, and +Inf is one"
        );
        assert_eq!(wait.count(&["post"]), 6);
    }

    #[test]
    fn exemplars_of_registries_are_separate() {
        let (first, second) = (Registry::new(), Registry::new());
        let register = |registry| {
            WAIT.traced_histograms(registry, vec![1.0])
                .expect("the name is free")
        };
        let (first_wait, second_wait) = (register(&first), register(&second));
        first_wait.observe(&["post"], 0.5, parent(SAMPLED));
        second_wait.observe(&["post"], 0.5, None);
        assert_eq!(traces(&first).len(), 2);
        assert_eq!(traces(&second).len(), 0);
        first.gather();
        assert!(GATHERED.take().is_none(), "a plain gather collects none");
    }
}
