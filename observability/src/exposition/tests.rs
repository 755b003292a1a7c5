//! The exact text of both formats.

use prometheus::{IntCounter, Opts};

use super::*;
use crate::{Metric, TraceParent};

const SCRAPER: &str =
    "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// The OpenMetrics text, with the times of exemplars replaced.
fn text(registry: &Registry) -> String {
    let exposition = expose(registry, Some(SCRAPER)).expect("all metrics are complete");
    assert_eq!(exposition.content_type, OPEN_METRICS_TYPE);
    let lines = exposition
        .text
        .lines()
        .map(|line| match line.split_once(" # ") {
            Some((sample, exemplar)) => {
                let (exemplar, time) = exemplar.rsplit_once(' ').expect("an exemplar has a time");
                assert!(time.parse::<f64>().is_ok_and(|time| time > 1e9), "{line}");
                format!("{sample} # {exemplar} TIME\n")
            }
            None => format!("{line}\n"),
        });
    lines.collect()
}

#[test]
fn the_classic_format_is_the_default() {
    let registry = Registry::new();
    let calls = Metric::counter("calls_total", &[], "Calls.");
    let calls = calls.int_counter(&registry).expect("the name is free");
    calls.inc_by(3);
    for accept in [None, Some("*/*"), Some("text/plain; version=0.0.4")] {
        let exposition = expose(&registry, accept).expect("all metrics are complete");
        assert_eq!(exposition.content_type, "text/plain; version=0.0.4");
        assert_eq!(
            exposition.text,
            "# HELP calls_total Calls.\n# TYPE calls_total counter\ncalls_total 3\n"
        );
    }
}

#[test]
fn an_empty_registry_has_an_end_marker() {
    assert_eq!(text(&Registry::new()), "# EOF\n");
}

#[test]
fn only_the_sample_of_a_counter_ends_in_total() {
    let registry = Registry::new();
    for name in ["calls_total", "shouts"] {
        let counter = IntCounter::new(name, "Noise.").expect("the name is valid");
        counter.inc();
        registry
            .register(Box::new(counter))
            .expect("the name is free");
    }
    assert_eq!(
        text(&registry),
        "\
# TYPE calls counter
# HELP calls Noise.
calls_total 1
# TYPE shouts counter
# HELP shouts Noise.
shouts_total 1
# EOF
"
    );
}

#[test]
fn newlines_quotes_and_backslashes_are_escaped() {
    let registry = Registry::new();
    let gauge = Metric::gauge("depth", &["path"], "A \"deep\" one,\nsays C:\\");
    let gauge = gauge.float_gauges(&registry).expect("the name is free");
    gauge.with_label_values(&["C:\\a\"b\nc"]).set(-1.5);
    assert_eq!(
        text(&registry),
        "\
# TYPE depth gauge
# HELP depth A \\\"deep\\\" one,\\nsays C:\\\\
depth{path=\"C:\\\\a\\\"b\\nc\"} -1.5
# EOF
"
    );
}

#[test]
fn special_numbers_are_written_by_name() {
    let registry = Registry::new();
    let gauge = Metric::gauge("depth", &["at"], "Depth.");
    let gauge = gauge.float_gauges(&registry).expect("the name is free");
    for (at, value) in [
        ("a", f64::NAN),
        ("b", f64::INFINITY),
        ("c", f64::NEG_INFINITY),
        ("d", 1e-7),
        ("e", 2_000_000.0),
    ] {
        gauge.with_label_values(&[at]).set(value);
    }
    assert_eq!(
        text(&registry),
        "\
# TYPE depth gauge
# HELP depth Depth.
depth{at=\"a\"} NaN
depth{at=\"b\"} +Inf
depth{at=\"c\"} -Inf
depth{at=\"d\"} 0.0000001
depth{at=\"e\"} 2000000
# EOF
"
    );
}

/// One histogram with an exemplar in its second bucket and one beyond the last.
fn traced() -> Registry {
    let registry = Registry::new();
    let wait = Metric::histogram("wait_seconds", &["line"], "Waiting.");
    let wait = wait
        .traced_histograms(&registry, vec![0.5, 1.0])
        .expect("the name is free");
    let parent = TraceParent::parse(SAMPLED.as_bytes());
    wait.observe(&["post"], 0.25, None);
    wait.observe(&["post"], 0.75, parent);
    wait.observe(&["post"], 2.0, parent);
    wait.observe(&["bank"], 0.25, None);
    registry
}

#[test]
fn a_bucket_has_its_exemplar() {
    assert_eq!(
        text(&traced()),
        "\
# TYPE wait_seconds histogram
# HELP wait_seconds Waiting.
wait_seconds_bucket{line=\"bank\",le=\"0.5\"} 1
wait_seconds_bucket{line=\"bank\",le=\"1\"} 1
wait_seconds_bucket{line=\"bank\",le=\"+Inf\"} 1
wait_seconds_sum{line=\"bank\"} 0.25
wait_seconds_count{line=\"bank\"} 1
wait_seconds_bucket{line=\"post\",le=\"0.5\"} 1
wait_seconds_bucket{line=\"post\",le=\"1\"} 2 # {trace_id=\"0af7651916cd43dd8448eb211c80319c\"} 0.75 TIME
wait_seconds_bucket{line=\"post\",le=\"+Inf\"} 3 # {trace_id=\"0af7651916cd43dd8448eb211c80319c\"} 2 TIME
wait_seconds_sum{line=\"post\"} 3
wait_seconds_count{line=\"post\"} 3
# EOF
"
    );
}

#[test]
fn a_histogram_with_constant_labels_has_exemplars() {
    let registry = Registry::new();
    let options = Opts::new("wait_seconds", "Waiting.").const_label("zone", "east");
    let options = prometheus::HistogramOpts::from(options).buckets(vec![1.0]);
    let wait =
        crate::TracedHistograms::register(options, &["line"], &registry).expect("the name is free");
    wait.observe(&["post"], 0.5, TraceParent::parse(SAMPLED.as_bytes()));
    let text = text(&registry);
    let bucket = "wait_seconds_bucket{line=\"post\",zone=\"east\",le=\"1\"} 1 # {trace_id=";
    assert!(text.contains(bucket), "{text}");
}

#[test]
fn timestamps_are_written_in_seconds() {
    let mut family = MetricFamily::default();
    family.set_name("depth".to_owned());
    family.set_field_type(MetricType::GAUGE);
    let mut metric = proto::Metric::default();
    metric.set_gauge(proto::Gauge::default());
    metric.set_timestamp_ms(1_520_879_607_089);
    family.set_metric(vec![metric]);
    assert_eq!(
        open_metrics(&[family], &Exemplars::default()),
        "# TYPE depth gauge\ndepth 0 1520879607.089\n# EOF\n"
    );
}
