//! Commands, flags, their variables and defaults, as `--help` tells them; metrics as `ordermesh metrics` lists them.

use std::process::Command;

use harness::system::binary;
use regex::Regex;

use super::assert_golden;

#[test]
fn every_command_has_its_flags_variables_and_defaults() {
    let mut told = String::new();
    let mut waiting = vec![Vec::new()];
    while let Some(command) = waiting.pop() {
        let help = run(&[command.clone(), vec!["--help".to_owned()]].concat());
        told.push_str(&interface(&help));
        told.push('\n');
        let mut subcommands = subcommands(&help);
        subcommands.reverse();
        for name in subcommands {
            let mut longer = command.clone();
            longer.push(name);
            waiting.push(longer);
        }
    }
    assert_golden("commands.txt", &told);
}

#[test]
fn every_metric_has_its_kind_unit_and_labels() {
    let table = run(&["metrics".to_owned()]);
    let mut metrics: Vec<_> = table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            cells[1..=4].join(" | ")
        })
        .collect();
    assert!(metrics.len() > 50, "{table}");
    metrics.sort();
    assert_golden("metrics.txt", &(metrics.join("\n") + "\n"));
}

/// What is not prose: the usage, the arguments, and what stands in brackets or lists.
fn interface(help: &str) -> String {
    let bracketed = Regex::new(r"\[(env|default|aliases): [^\]]*\]").unwrap();
    let value = Regex::new(r"^ {10}- ([a-z0-9-]+)").unwrap();
    let mut lines = Vec::new();
    for line in help.lines() {
        let indent = line.len() - line.trim_start().len();
        let is_argument = matches!(indent, 2 | 6) && line.trim_start().starts_with(['-', '<', '[']);
        if line.starts_with("Usage:") || is_argument {
            lines.push(line.trim_end().to_owned());
        } else if let Some(value) = value.captures(line) {
            lines.push(format!("          - {}", &value[1]));
        } else if line.trim_start().starts_with('[') {
            let found = bracketed.find_iter(line);
            lines.extend(found.map(|found| format!("          {}", found.as_str())));
        }
    }
    lines.join("\n") + "\n"
}

fn subcommands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    listed
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            let name = line.strip_prefix("  ")?.split(' ').next()?;
            (!name.is_empty() && name != "help").then(|| name.to_owned())
        })
        .collect()
}

fn run(arguments: &[String]) -> String {
    let mut command = Command::new(binary());
    // Values of the test's own environment are no part of the interface.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ORDERMESH_") {
            command.env_remove(name);
        }
    }
    let output = command
        .args(arguments)
        .env("COLUMNS", "200")
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?} failed: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let styles = Regex::new("\u{1b}\\[[0-9;]*m").unwrap();
    styles.replace_all(&text, "").into_owned()
}
