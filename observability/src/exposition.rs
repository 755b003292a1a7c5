//! Text formats of metrics: the classic Prometheus format, or OpenMetrics, which includes exemplars.

use std::fmt::{self, Write as _};
use std::time::{Duration, SystemTime};

use prometheus::proto::{self, Histogram, LabelPair, MetricFamily, MetricType};
use prometheus::{Encoder as _, Registry, TextEncoder};

use crate::exemplars::{self, Exemplar, Exemplars};

/// Media type in the `Accept` header of a scraper that supports OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text";
const OPEN_METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of a registry, as text.
#[derive(Debug)]
pub struct Exposition {
    /// Media type.
    pub content_type: String,
    /// The text.
    pub text: String,
}

/// Encodes all metrics of `registry`, in OpenMetrics when the `Accept` header of the scrape names it.
///
/// # Errors
///
/// A metric is incomplete.
pub fn expose(registry: &Registry, accept: Option<&str>) -> Result<Exposition, prometheus::Error> {
    if accept.is_some_and(|accept| accept.contains(OPEN_METRICS)) {
        let (families, exemplars) = exemplars::gather(registry);
        return Ok(Exposition {
            content_type: OPEN_METRICS_TYPE.to_owned(),
            text: open_metrics(&families, &exemplars),
        });
    }
    let encoder = TextEncoder::new();
    Ok(Exposition {
        content_type: encoder.format_type().to_owned(),
        text: encoder.encode_to_string(&registry.gather())?,
    })
}

fn open_metrics(families: &[MetricFamily], exemplars: &Exemplars) -> String {
    let mut text = String::new();
    for family in families {
        write_family(&mut text, family, exemplars).expect("a string takes everything");
    }
    text.push_str("# EOF\n");
    text
}

fn write_family(text: &mut String, family: &MetricFamily, exemplars: &Exemplars) -> fmt::Result {
    let kind = family.get_field_type();
    // OpenMetrics: the sample of a counter ends in `_total`, its family does not.
    let name = match kind {
        MetricType::COUNTER => family
            .name()
            .strip_suffix("_total")
            .unwrap_or(family.name()),
        _ => family.name(),
    };
    writeln!(text, "# TYPE {name} {}", type_name(kind))?;
    if !family.help().is_empty() {
        writeln!(text, "# HELP {name} {}", Escaped(family.help()))?;
    }
    for metric in family.get_metric() {
        let labels = Labels(metric.get_label());
        let end = Timestamp(metric.timestamp_ms());
        match kind {
            MetricType::COUNTER => {
                let value = Number(metric.get_counter().get_value());
                writeln!(text, "{name}_total{labels} {value}{end}")?;
            }
            MetricType::GAUGE => {
                let value = Number(metric.get_gauge().get_value());
                writeln!(text, "{name}{labels} {value}{end}")?;
            }
            MetricType::HISTOGRAM => {
                let traces = exemplars.find(name, metric.get_label());
                let traces = traces.map_or(&[][..], Vec::as_slice);
                write_buckets(text, name, metric, traces)?;
                let histogram = metric.get_histogram();
                let sum = Number(histogram.get_sample_sum());
                writeln!(text, "{name}_sum{labels} {sum}{end}")?;
                let count = histogram.get_sample_count();
                writeln!(text, "{name}_count{labels} {count}{end}")?;
            }
            MetricType::SUMMARY => {
                let summary = metric.get_summary();
                for quantile in summary.get_quantile() {
                    let labels = labels.with("quantile", Number(quantile.quantile()));
                    let value = Number(quantile.value());
                    writeln!(text, "{name}{labels} {value}{end}")?;
                }
                let sum = Number(summary.sample_sum());
                writeln!(text, "{name}_sum{labels} {sum}{end}")?;
                writeln!(text, "{name}_count{labels} {}{end}", summary.sample_count())?;
            }
            // The data model of the crate has no value for it.
            MetricType::UNTYPED => {}
        }
    }
    Ok(())
}

/// Writes the buckets of a histogram with their exemplars. Upper bounds are written as in the classic format, so that a
/// series has the same labels in both formats.
fn write_buckets(
    text: &mut String,
    name: &str,
    metric: &proto::Metric,
    exemplars: &[Option<Exemplar>],
) -> fmt::Result {
    let labels = Labels(metric.get_label());
    let end = Timestamp(metric.timestamp_ms());
    for (index, (bound, count)) in buckets(metric.get_histogram()).enumerate() {
        let labels = labels.with("le", Number(bound));
        write!(text, "{name}_bucket{labels} {count}{end}")?;
        if let Some(exemplar) = exemplars.get(index).and_then(Option::as_ref) {
            let Exemplar { trace, value, time } = exemplar;
            let (value, time) = (Number(*value), Seconds(*time));
            write!(text, " # {{trace_id=\"{trace}\"}} {value} {time}")?;
        }
        writeln!(text)?;
    }
    Ok(())
}

/// Upper bounds and cumulative counts, up to infinity.
fn buckets(histogram: &Histogram) -> impl Iterator<Item = (f64, u64)> {
    let bounded = histogram
        .get_bucket()
        .iter()
        .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
        .filter(|(bound, _)| bound.is_finite());
    bounded.chain([(f64::INFINITY, histogram.get_sample_count())])
}

const fn type_name(kind: MetricType) -> &'static str {
    match kind {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::HISTOGRAM => "histogram",
        MetricType::SUMMARY => "summary",
        MetricType::UNTYPED => "unknown",
    }
}

/// The labels of a sample, in braces; nothing when there are none.
#[derive(Clone, Copy)]
struct Labels<'a>(&'a [LabelPair]);

impl<'a> Labels<'a> {
    const fn with(self, name: &'static str, value: Number) -> LabelsWithNumber<'a> {
        LabelsWithNumber {
            labels: self,
            name,
            value,
        }
    }

    fn write(self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, pair) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_char(',')?;
            }
            write!(formatter, "{}=\"{}\"", pair.name(), Escaped(pair.value()))?;
        }
        Ok(())
    }
}

impl fmt::Display for Labels<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        formatter.write_char('{')?;
        self.write(formatter)?;
        formatter.write_char('}')
    }
}

/// Labels and one more with a numeric value.
struct LabelsWithNumber<'a> {
    labels: Labels<'a>,
    name: &'static str,
    value: Number,
}

impl fmt::Display for LabelsWithNumber<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_char('{')?;
        self.labels.write(formatter)?;
        if !self.labels.0.is_empty() {
            formatter.write_char(',')?;
        }
        write!(formatter, "{}=\"{}\"}}", self.name, self.value)
    }
}

/// Text of a help line or a label value.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => formatter.write_str("\\\\")?,
                '"' => formatter.write_str("\\\"")?,
                '\n' => formatter.write_str("\\n")?,
                other => formatter.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == f64::INFINITY {
            formatter.write_str("+Inf")
        } else if self.0 == f64::NEG_INFINITY {
            formatter.write_str("-Inf")
        } else {
            write!(formatter, "{}", self.0)
        }
    }
}

/// The optional time of a sample, in milliseconds since 1970; written in seconds, as OpenMetrics requires.
struct Timestamp(i64);

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match u64::try_from(self.0) {
            Ok(0) | Err(_) => Ok(()),
            Ok(milliseconds) => {
                let time = SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds);
                write!(formatter, " {}", Seconds(time))
            }
        }
    }
}

/// Seconds since 1970, with milliseconds.
struct Seconds(SystemTime);

impl fmt::Display for Seconds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self
            .0
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        write!(
            formatter,
            "{}.{:03}",
            since.as_secs(),
            since.subsec_millis()
        )
    }
}

#[cfg(test)]
mod tests;
