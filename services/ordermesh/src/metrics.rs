//! `ordermesh metrics`: every metric that any process of ordermesh tells, as the code defines it.

use std::fmt::Write as _;

use observability::Metric;

use terminal::say;

/// The definitions of every crate.
const DEFINITIONS: &[&[Metric]] = &[
    auditor::metrics::ALL,
    chassis::metrics::ALL,
    engine::metrics::ALL,
    lag::metrics::ALL,
    observability::metrics::ALL,
    query::metrics::ALL,
    registry::metrics::ALL,
];

/// Nothing to choose.
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
/// Nobody reads it.
pub fn run() -> anyhow::Result<()> {
    say(list().trim_end())
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
         Printed by `ordermesh metrics`, from the definitions in each crate's `metrics.rs`. Histograms are told as\n\
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
        .expect("a string takes everything");
    }
    list
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use observability::metric::Kind;

    use super::*;

    /// Whoever adds a label says here that its values are few.
    const BOUNDED: &[&str] = &[
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
    fn the_list_in_the_papers_is_this_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../observability/METRICS.md");
        if std::env::var_os("ORDERMESH_BLESS").is_some() {
            std::fs::write(&path, list()).expect("the folder is there");
        }
        let papers = std::fs::read_to_string(&path).expect("the list is there");
        assert!(
            papers == list(),
            "observability/METRICS.md is not what `ordermesh metrics` prints: bless it with ORDERMESH_BLESS=1"
        );
    }

    #[test]
    fn a_name_has_one_meaning() {
        // Without `_total`, for so OpenMetrics names a counter.
        let family = |metric: &Metric| match metric.kind {
            Kind::Counter => metric.name.trim_end_matches("_total"),
            Kind::Gauge | Kind::Histogram => metric.name,
        };
        let mut seen = BTreeSet::new();
        for metric in all() {
            assert!(
                seen.insert(family(metric)),
                "{} is defined twice",
                metric.name
            );
        }
        assert!(!seen.is_empty());
    }

    #[test]
    fn a_name_is_of_its_kind() {
        for metric in all() {
            let name = metric.name;
            assert!(
                metric.unit().is_some(),
                "the end of {name} is no known unit"
            );
            let is_total = name.ends_with("_total");
            assert_eq!(metric.kind == Kind::Counter, is_total, "{name}");
            let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(name.chars().all(valid), "{name}");
            let ours = name.starts_with("ordermesh_") || name.starts_with("process_");
            assert!(ours, "{name}");
            assert!(metric.help.ends_with('.'), "{name}: {}", metric.help);
        }
    }

    #[test]
    fn no_label_is_an_id() {
        for metric in all() {
            for label in metric.labels {
                assert!(
                    BOUNDED.contains(label),
                    "{}: are the values of {label} few?",
                    metric.name
                );
            }
        }
    }
}
