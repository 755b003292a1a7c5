//! Rules and routes of the alerts, without a running system.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;

use super::programs;

const PROJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Fires always.
const WATCHDOG: &str = "Watchdog";

/// A rule as declared in its file.
struct Alert {
    name: String,
    text: String,
    /// Path of its test.
    tests: PathBuf,
}

fn observability(path: &str) -> PathBuf {
    Path::new(PROJECT).join("observability").join(path)
}

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = observability(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|_| panic!("{}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn alerts() -> Vec<Alert> {
    let mut alerts = Vec::new();
    for file in files("prometheus/rules") {
        let tests = observability("prometheus/tests").join(file.file_name().unwrap());
        let text = fs::read_to_string(&file).unwrap();
        // Each rule begins with its kind, at the same indentation.
        let rules = text.split("\n      - ");
        for rule in rules.filter_map(|rule| rule.strip_prefix("alert: ")) {
            let (name, text) = rule.split_once('\n').unwrap();
            alerts.push(Alert {
                name: name.to_owned(),
                text: text.to_owned(),
                tests: tests.clone(),
            });
        }
    }
    assert!(alerts.len() > 20, "where are they?");
    alerts
}

#[test]
fn the_rules_pass_their_tests() {
    let Some(programs) = programs("alerts' rules") else {
        return;
    };
    let mut check = programs.promtool();
    check.args(["check", "rules", "--lint=all", "--lint-fatal"]);
    passes(check.args(files("prometheus/rules")));
    let mut test = programs.promtool();
    passes(test.args(["test", "rules"]).args(files("prometheus/tests")));
    let routes = observability("alertmanager/alertmanager.yml");
    passes(programs.amtool().arg("check-config").arg(routes));
}

fn passes(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn every_alert_has_a_severity_a_description_and_a_runbook() {
    let severity = Regex::new("\n +severity: (critical|warning|none)\n").unwrap();
    for Alert { name, text, .. } in alerts() {
        assert!(severity.is_match(&text), "{name} has no severity");
        for annotation in ["summary: '", "description: '"] {
            assert!(text.contains(annotation), "{name} has no {annotation}");
        }
        let runbook = format!("observability/runbooks/{name}.md");
        assert!(text.contains(&format!("runbook_url: {runbook}")), "{name}");
        let page = fs::read_to_string(Path::new(PROJECT).join(&runbook))
            .unwrap_or_else(|_| panic!("{runbook} is missing"));
        let index = fs::read_to_string(observability("runbooks/README.md")).unwrap();
        assert!(
            index.contains(&format!("({name}.md)")),
            "{name} is not in the index"
        );
        assert!(page.starts_with(&format!("# {name}\n")), "{runbook}");
        for part in ["## What it means", "## What to look at", "## What to do"] {
            assert!(page.contains(part), "{runbook} does not say: {part}");
        }
    }
}

#[test]
fn every_runbook_belongs_to_an_alert() {
    let names: BTreeSet<_> = alerts().into_iter().map(|alert| alert.name).collect();
    for page in files("runbooks") {
        let name = page.file_stem().unwrap().to_str().unwrap();
        assert!(name == "README" || names.contains(name), "{name}");
    }
}

#[test]
fn every_alert_is_tested_silent_firing_and_over() {
    for Alert { name, tests, .. } in alerts() {
        let text = fs::read_to_string(&tests).unwrap();
        let fires = format!("alertname: {name}\n        exp_alerts:");
        let first = text
            .find(&fires)
            .unwrap_or_else(|| panic!("{name} never fires"));
        if name == WATCHDOG {
            continue;
        }
        let silent = format!("alertname: {name} }}");
        assert!(text[..first].contains(&silent), "{name} is never silent");
        assert!(text[first..].contains(&silent), "{name} never ends");
    }
}

#[test]
fn the_routes_name_alerts_that_exist() {
    let names: BTreeSet<_> = alerts().into_iter().map(|alert| alert.name).collect();
    let routes = fs::read_to_string(observability("alertmanager/alertmanager.yml")).unwrap();
    let named = Regex::new("alertname=~?\"([^\"]+)\"").unwrap();
    let named: BTreeSet<_> = named
        .captures_iter(&routes)
        .flat_map(|found| found.get(1).unwrap().as_str().split('|'))
        .collect();
    assert!(named.len() > 10, "{named:?}");
    for name in named {
        assert!(names.contains(name), "{name} is no alert");
    }
}

#[test]
fn every_metric_in_the_rules_exists() {
    let list = fs::read_to_string(observability("METRICS.md")).unwrap();
    let ours = Regex::new(r"\bordermesh_[a-z_]+").unwrap();
    for file in files("prometheus/rules") {
        let text = fs::read_to_string(&file).unwrap();
        for found in ours.find_iter(&text) {
            let name = found.as_str();
            let plain = ["_bucket", "_count", "_sum"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap_or(name);
            let listed = [name, plain]
                .iter()
                .any(|name| list.contains(&format!("`{name}`")));
            assert!(listed, "{}: {name} is not in METRICS.md", file.display());
        }
    }
}
