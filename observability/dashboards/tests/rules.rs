//! What every dashboard and panel must have, and that no metric of ours is left without a panel.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use dashboards::panel::Kind;
use dashboards::{Dashboard, Panel, Query};
use regex::Regex;
use serde_json::Value;

/// Gauges that only rise: a rate may be taken of them.
const RISING: &[&str] = &["ordermesh_lag_end_offset"];

/// Metrics of ours without a panel, and why.
const WITHOUT_PANEL: &[(&str, &str)] = &[];

fn every_panel(check: impl Fn(&Dashboard, &Panel)) {
    for dashboard in dashboards::all() {
        for panel in dashboard.panels() {
            check(&dashboard, panel);
        }
    }
}

/// What comes out of Grafana's file, rows left out.
fn rendered_panels(dashboard: &Dashboard) -> Vec<Value> {
    let json = dashboard.json();
    let panels = json["panels"].as_array().unwrap().iter();
    panels
        .filter(|panel| panel["type"] != "row")
        .cloned()
        .collect()
}

#[test]
fn every_panel_asks_a_question_and_has_a_unit_and_a_query() {
    every_panel(|dashboard, panel| {
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
fn series_can_be_told_apart_by_their_legends() {
    let grouped = Regex::new(r"by \(([^)]*)\)").unwrap();
    every_panel(|dashboard, panel| {
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
            let by: BTreeSet<_> = match grouped.captures(&query.bare) {
                Some(found) => found[1].split(", ").map(str::to_owned).collect(),
                None => continue,
            };
            let summed_up = ["sum(", "max(", "1 - avg(", "count("]
                .iter()
                .any(|outer| query.bare.starts_with(outer));
            if summed_up || panel.kind == Kind::Heatmap {
                continue;
            }
            let is_quantile = query.bare.starts_with("histogram_quantile");
            let shown: BTreeSet<_> = by
                .into_iter()
                .filter(|label| !(is_quantile && label == "le"))
                .collect();
            let named: BTreeSet<_> = query.labels().into_iter().map(str::to_owned).collect();
            assert_eq!(named, shown, "{what}: {}", query.bare);
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
fn no_panel_covers_another() {
    for dashboard in dashboards::all() {
        let mut taken: BTreeMap<(u64, u64), Value> = BTreeMap::new();
        for panel in dashboard.json()["panels"].as_array().unwrap() {
            let place = |name: &str| panel["gridPos"][name].as_u64().unwrap();
            let (x, y, w, h) = (place("x"), place("y"), place("w"), place("h"));
            assert!(x + w <= 24, "{} leaves the grid", panel["title"]);
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                let other = taken.insert(cell, panel["title"].clone());
                assert_eq!(other, None, "{} covers it", panel["title"]);
            }
        }
    }
}

#[test]
fn variables_are_known_and_used() {
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
            .flat_map(|query| used.captures_iter(&query.bare))
            .map(|name| name[1].to_owned())
            .filter(|name| !name.starts_with("__"))
            .collect();
        assert_eq!(found, known, "{}", dashboard.title);
    }
}

/// Names and kinds of all metrics that the processes have, as they are listed.
fn listed() -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../METRICS.md");
    let text = fs::read_to_string(path).unwrap();
    let row =
        Regex::new(r"(?m)^\|\s*`?(ordermesh_[a-z_]+)`?\s*\|\s*(counter|gauge|histogram)").unwrap();
    row.captures_iter(&text)
        .map(|found| (found[1].to_owned(), found[2].to_owned()))
        .collect()
}

/// The metrics of ours that a query asks for, without the ends that a histogram's parts have.
fn asked_for(query: &Query, listed: &BTreeMap<String, String>) -> BTreeSet<String> {
    let name = Regex::new(r"ordermesh_[a-z_]+").unwrap();
    name.find_iter(&query.bare)
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
fn panels_and_list_of_metrics_agree() {
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
                for metric in asked_for(query, &listed) {
                    assert!(
                        listed.contains_key(&metric),
                        "{}: {} asks for {metric}, which nobody has",
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
    let excused: BTreeSet<_> = WITHOUT_PANEL
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    let missing: Vec<_> = listed
        .keys()
        .filter(|name| !shown.contains(*name) && !excused.contains(*name))
        .collect();
    assert!(missing.is_empty(), "on no panel: {missing:?}");
    let in_vain: Vec<_> = excused
        .iter()
        .filter(|name| shown.contains(*name) || !listed.contains_key(*name))
        .collect();
    assert!(in_vain.is_empty(), "needs no excuse: {in_vain:?}");
}

#[test]
fn rates_are_taken_of_what_rises_and_quantiles_of_histograms() {
    let listed = listed();
    let rate = Regex::new(r"(?:rate|increase)\((ordermesh_[a-z_]+)").unwrap();
    every_panel(|dashboard, panel| {
        for query in &panel.queries {
            for found in rate.captures_iter(&query.bare) {
                let (metric, what) = (&found[1], format!("{}: {}", dashboard.title, panel.title));
                let rises = match listed.get(metric) {
                    Some(kind) => kind == "counter" || RISING.contains(&metric),
                    // Checked to be a part of a histogram where all names are.
                    None => true,
                };
                assert!(rises, "{what}: {metric} also falls");
                assert!(
                    !query.bare.starts_with("histogram_quantile") || metric.ends_with("_bucket"),
                    "{what}: {metric} has no buckets"
                );
            }
        }
    });
}
