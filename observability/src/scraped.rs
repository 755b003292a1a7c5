//! Metrics whose values are read at scrape time.

use std::collections::HashMap;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};

use crate::metric::{Kind, Metric};

/// The samples of one metric at one scrape.
#[derive(Debug)]
pub struct Samples {
    labels: &'static [&'static str],
    kind: Kind,
    metrics: Vec<proto::Metric>,
}

impl Samples {
    /// Adds the value for one set of label values, in the order of the metric's labels.
    pub fn add(&mut self, labels: &[&str], value: f64) {
        debug_assert_eq!(labels.len(), self.labels.len(), "a value for each label");
        let mut pairs: Vec<_> = self
            .labels
            .iter()
            .zip(labels)
            .map(|(name, value)| {
                let mut pair = LabelPair::default();
                pair.set_name((*name).to_owned());
                pair.set_value((*value).to_owned());
                pair
            })
            .collect();
        pairs.sort();
        let mut metric = proto::Metric::from_label(pairs);
        match self.kind {
            Kind::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            Kind::Gauge | Kind::Histogram => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        self.metrics.push(metric);
    }
}

/// A collector that calls `sample` at every scrape.
pub(crate) struct ScrapeCollector<F> {
    metric: Metric,
    desc: Desc,
    sample: F,
}

impl<F: Fn(&mut Samples) + Send + Sync> ScrapeCollector<F> {
    pub(crate) fn new(metric: &Metric, sample: F) -> Result<Self, prometheus::Error> {
        let labels = metric.labels.iter().map(|&label| label.to_owned());
        let desc = Desc::new(
            metric.name.to_owned(),
            metric.help.to_owned(),
            labels.collect(),
            HashMap::new(),
        )?;
        Ok(Self {
            metric: *metric,
            desc,
            sample,
        })
    }
}

impl<F: Fn(&mut Samples) + Send + Sync> Collector for ScrapeCollector<F> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut samples = Samples {
            labels: self.metric.labels,
            kind: self.metric.kind,
            metrics: Vec::new(),
        };
        (self.sample)(&mut samples);
        let mut family = MetricFamily::default();
        family.set_name(self.metric.name.to_owned());
        family.set_help(self.metric.help.to_owned());
        family.set_field_type(match self.metric.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge | Kind::Histogram => MetricType::GAUGE,
        });
        family.set_metric(samples.metrics);
        vec![family]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use prometheus::{Registry, TextEncoder};

    use super::*;

    #[test]
    fn every_scrape_takes_new_samples() {
        const ROOMS: Metric = Metric::gauge("rooms", &["floor", "side"], "Rooms.");
        let registry = Registry::new();
        let rooms = Arc::new(AtomicU32::new(1));
        let counted = Arc::clone(&rooms);
        ROOMS
            .on_scrape(&registry, move |samples| {
                let rooms = counted.load(Ordering::Relaxed);
                samples.add(&["2", "back"], f64::from(rooms));
            })
            .expect("the name is free");
        let text = || {
            TextEncoder::new()
                .encode_to_string(&registry.gather())
                .expect("it is complete")
        };
        let head = "# HELP rooms Rooms.\n# TYPE rooms gauge\n";
        assert_eq!(
            text(),
            format!("{head}rooms{{floor=\"2\",side=\"back\"}} 1\n")
        );
        rooms.store(5, Ordering::Relaxed);
        assert_eq!(
            text(),
            format!("{head}rooms{{floor=\"2\",side=\"back\"}} 5\n")
        );
    }
}
