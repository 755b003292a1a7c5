//! Rules for every dashboard and panel; every metric of ordermesh has a panel.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use dashboards::panel::Kind;
use dashboards::{Dashboard, Panel, Query};
use regex::Regex;
use serde_json::Value;

/// Gauges that only increase: a rate may be taken of them.
const INCREASING_GAUGES: &[&str] = &["ordermesh_lag_end_offset"];

/// Metrics without a panel, with the reason.
const WITHOUT_PANEL: &[(&str, &str)] = &[];

fn for_each_panel(check: impl Fn(&Dashboard, &Panel)) {
    for dashboard in dashboards::all() {
        for panel in dashboard.panels() {
            check(&dashboard, panel);
        }
    }
}

/// The panels in the JSON model, without rows.
fn rendered_panels(dashboard: &Dashboard) -> Vec<Value> {
    let json = dashboard.json();
    let panels = json["panels"].as_array().unwrap().iter();
    panels
        .filter(|panel| panel["type"] != "row")
        .cloned()
        .collect()
}

#[test]
fn every_panel_has_a_question_a_unit_and_a_query() {
    for_each_panel(|dashboard, panel| {
        let what = format!("{}: {}", dashboard.title, panel.title);
        assert!(panel.question.contains('?'), "{what} asks nothing");
        assert!(!panel.queries.is_empty(), "{what} has no query");
        assert!(!panel.title.contains('|'), "{what} would break the index");
        assert!(
            !panel.question.contains('|'),
            "{what} would break the index"
        );
    });
    for dashboard in dashboards::all() {
        for panel in rendered_panels(&dashboard) {
            let what = format!("{}: {}", dashboard.title, panel["title"]);
            let unit = panel["fieldConfig"]["defaults"]["unit"].as_str();
            assert!(unit.is_some_and(|unit| !unit.is_empty()), "{what}");
            let description = panel["description"].as_str();
            assert!(description.is_some_and(|text| !text.is_empty()), "{what}");
            for target in panel["targets"].as_array().unwrap() {
                assert_eq!(target["datasource"]["uid"], "prometheus", "{what}");
            }
        }
    }
}

#[test]
fn series_are_distinguished_by_their_legends() {
    let grouped = Regex::new(r"by \(([^)]*)\)").unwrap();
    for_each_panel(|dashboard, panel| {
        let what = format!("{}: {}", dashboard.title, panel.title);
        let mut legends = BTreeSet::new();
        for query in &panel.queries {
            assert!(!query.legend.is_empty(), "{what} has a series without name");
            assert!(
                legends.insert(&query.legend),
                "{what} has two series called {}",
                query.legend
            );
            // The outermost grouping is the first.
            let by: BTreeSet<_> = match grouped.captures(&query.promql) {
                Some(found) => found[1].split(", ").map(str::to_owned).collect(),
                None => continue,
            };
            let summed_up = ["sum(", "max(", "1 - avg(", "count("]
                .iter()
                .any(|outer| query.promql.starts_with(outer));
            if summed_up || panel.kind == Kind::Heatmap {
                continue;
            }
            let is_quantile = query.promql.starts_with("histogram_quantile");
            let shown: BTreeSet<_> = by
                .into_iter()
                .filter(|label| !(is_quantile && label == "le"))
                .collect();
            let named: BTreeSet<_> = query.labels().into_iter().map(str::to_owned).collect();
            assert_eq!(named, shown, "{what}: {}", query.promql);
        }
    });
}

#[test]
fn titles_and_ids_are_unique() {
    let mut uids = BTreeSet::new();
    for dashboard in dashboards::all() {
        let json = dashboard.json();
        assert!(uids.insert(json["uid"].to_string()), "{}", dashboard.title);
        let (mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new());
        for panel in json["panels"].as_array().unwrap() {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        }
        for panel in dashboard.panels() {
            assert!(
                titles.insert(panel.title),
                "{}: two panels are called {}",
                dashboard.title,
                panel.title
            );
        }
    }
}

#[test]
fn panels_do_not_overlap() {
    for dashboard in dashboards::all() {
        let mut taken: BTreeMap<(u64, u64), Value> = BTreeMap::new();
        for panel in dashboard.json()["panels"].as_array().unwrap() {
            let position = |name: &str| panel["gridPos"][name].as_u64().unwrap();
            let (x, y, w, h) = (position("x"), position("y"), position("w"), position("h"));
            assert!(x + w <= 24, "{} leaves the grid", panel["title"]);
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                let other = taken.insert(cell, panel["title"].clone());
                assert_eq!(other, None, "{} covers it", panel["title"]);
            }
        }
    }
}

#[test]
fn variables_are_defined_and_used() {
    let used = Regex::new(r"\$([a-z_]+|__[a-z_]+)").unwrap();
    for dashboard in dashboards::all() {
        let known: BTreeSet<_> = dashboard
            .variables
            .iter()
            .map(|variable| variable.label.to_owned())
            .collect();
        let found: BTreeSet<_> = dashboard
            .panels()
            .flat_map(|panel| &panel.queries)
            .flat_map(|query| used.captures_iter(&query.promql))
            .map(|name| name[1].to_owned())
            .filter(|name| !name.starts_with("__"))
            .collect();
        assert_eq!(found, known, "{}", dashboard.title);
    }
}

/// Names and kinds of all metrics in METRICS.md.
fn listed() -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../METRICS.md");
    let text = fs::read_to_string(path).unwrap();
    let row =
        Regex::new(r"(?m)^\|\s*`?(ordermesh_[a-z_]+)`?\s*\|\s*(counter|gauge|histogram)").unwrap();
    row.captures_iter(&text)
        .map(|found| (found[1].to_owned(), found[2].to_owned()))
        .collect()
}

/// The metrics in a query, without the suffixes of histogram series.
fn queried_metrics(query: &Query, listed: &BTreeMap<String, String>) -> BTreeSet<String> {
    let name = Regex::new(r"ordermesh_[a-z_]+").unwrap();
    name.find_iter(&query.promql)
        .map(|found| {
            let name = found.as_str();
            ["_bucket", "_sum", "_count"]
                .iter()
                .filter_map(|end| name.strip_suffix(end))
                .find(|base| listed.get(*base).is_some_and(|kind| kind == "histogram"))
                .unwrap_or(name)
                .to_owned()
        })
        .collect()
}

#[test]
fn every_metric_has_a_panel_and_every_query_a_metric() {
    let listed = listed();
    assert!(
        listed.len() > 30,
        "only {} metrics are listed",
        listed.len()
    );
    let mut shown = BTreeSet::new();
    for dashboard in dashboards::all() {
        for panel in dashboard.panels() {
            for query in &panel.queries {
                for metric in queried_metrics(query, &listed) {
                    assert!(
                        listed.contains_key(&metric),
                        "{}: {} queries {metric}, which is not listed",
                        dashboard.title,
                        panel.title
                    );
                    shown.insert(metric);
                }
            }
        }
        for variable in &dashboard.variables {
            assert!(listed.contains_key(variable.metric), "{}", variable.metric);
        }
    }
    let exempt: BTreeSet<_> = WITHOUT_PANEL
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    let missing: Vec<_> = listed
        .keys()
        .filter(|name| !shown.contains(*name) && !exempt.contains(*name))
        .collect();
    assert!(missing.is_empty(), "on no panel: {missing:?}");
    let obsolete: Vec<_> = exempt
        .iter()
        .filter(|name| shown.contains(*name) || !listed.contains_key(*name))
        .collect();
    assert!(obsolete.is_empty(), "needs no exemption: {obsolete:?}");
}

#[test]
fn rates_use_counters_and_quantiles_use_buckets() {
    let listed = listed();
    let rate = Regex::new(r"(?:rate|increase)\((ordermesh_[a-z_]+)").unwrap();
    for_each_panel(|dashboard, panel| {
        for query in &panel.queries {
            for found in rate.captures_iter(&query.promql) {
                let (metric, what) = (&found[1], format!("{}: {}", dashboard.title, panel.title));
                let increases = match listed.get(metric) {
                    Some(kind) => kind == "counter" || INCREASING_GAUGES.contains(&metric),
                    // A histogram series; its name is checked with all others.
                    None => true,
                };
                assert!(increases, "{what}: {metric} also decreases");
                assert!(
                    !query.promql.starts_with("histogram_quantile") || metric.ends_with("_bucket"),
                    "{what}: {metric} has no buckets"
                );
            }
        }
    });
}
