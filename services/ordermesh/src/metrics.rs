//! `ordermesh metrics`: prints the definitions of all metrics.

use std::fmt::Write as _;

use observability::Metric;

use terminal::print_line;

/// The metric definitions of every crate.
const DEFINITIONS: &[&[Metric]] = &[
    auditor::metrics::ALL,
    chassis::metrics::ALL,
    engine::metrics::ALL,
    lag::metrics::ALL,
    observability::metrics::ALL,
    query::metrics::ALL,
    registry::metrics::ALL,
];

/// Arguments of `ordermesh metrics`: none.
#[derive(clap::Args, Clone, Copy, Debug)]
#[command(after_help = "\
Examples:
  ordermesh metrics
  ordermesh metrics > observability/METRICS.md")]
pub struct Args {}

/// Prints the list.
///
/// # Errors
///
/// Standard output cannot be written.
pub fn run() -> anyhow::Result<()> {
    print_line(list().trim_end())
}

/// All definitions.
fn all() -> impl Iterator<Item = &'static Metric> {
    DEFINITIONS.iter().copied().flatten()
}

/// The list, in Markdown.
fn list() -> String {
    let mut list = String::from(
        "# Metrics\n\
         \n\
         Printed by `ordermesh metrics`, from the definitions in each crate's `metrics.rs`. Histograms are exposed as\n\
         `_bucket`, `_sum` and `_count`. Labels hold names and numbers of which there are few, never ids.\n\
         \n\
         | metric | kind | unit | labels | meaning |\n\
         |---|---|---|---|---|\n",
    );
    for metric in all() {
        let labels: Vec<_> = metric
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        writeln!(
            list,
            "| `{}` | {} | {} | {} | {} |",
            metric.name,
            metric.kind.name(),
            metric.unit().unwrap_or_default(),
            labels.join(", "),
            metric.help.replace('|', "\\|"),
        )
        .expect("writing to a string cannot fail");
    }
    list
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use observability::metric::Kind;

    use super::*;

    /// Labels with a small, bounded set of values. A new label must be added here.
    const BOUNDED_LABELS: &[&str] = &[
        "cause",
        "class",
        "code",
        "component",
        "currency",
        "fate",
        "group",
        "invariant",
        "kind",
        "method",
        "operation",
        "outcome",
        "partition",
        "peer",
        "result",
        "server",
        "service",
        "state",
        "statement",
        "status",
        "target",
        "topic",
        "until",
        "version",
    ];

    #[test]
    fn metrics_md_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../observability/METRICS.md");
        if std::env::var_os("ORDERMESH_BLESS").is_some() {
            std::fs::write(&path, list()).expect("the folder exists");
        }
        let file = std::fs::read_to_string(&path).expect("the file exists");
        assert!(
            file == list(),
            "observability/METRICS.md is not what `ordermesh metrics` prints: bless it with ORDERMESH_BLESS=1"
        );
    }

    #[test]
    fn every_metric_is_defined_once() {
        // Without `_total`: OpenMetrics names the family of a counter without it.
        let family = |metric: &Metric| match metric.kind {
            Kind::Counter => metric.name.trim_end_matches("_total"),
            Kind::Gauge | Kind::Histogram => metric.name,
        };
        let mut families = BTreeSet::new();
        for metric in all() {
            assert!(
                families.insert(family(metric)),
                "{} is defined twice",
                metric.name
            );
        }
        assert!(!families.is_empty());
    }

    #[test]
    fn a_name_fits_its_kind() {
        for metric in all() {
            let name = metric.name;
            assert!(
                metric.unit().is_some(),
                "the suffix of {name} is not a known unit"
            );
            let is_total = name.ends_with("_total");
            assert_eq!(metric.kind == Kind::Counter, is_total, "{name}");
            let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(name.chars().all(valid), "{name}");
            let has_prefix = name.starts_with("ordermesh_") || name.starts_with("process_");
            assert!(has_prefix, "{name}");
            assert!(metric.help.ends_with('.'), "{name}: {}", metric.help);
        }
    }

    #[test]
    fn every_label_is_bounded() {
        for metric in all() {
            for label in metric.labels {
                assert!(
                    BOUNDED_LABELS.contains(label),
                    "{}: is the number of values of {label} bounded?",
                    metric.name
                );
            }
        }
    }
}
