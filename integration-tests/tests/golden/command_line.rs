//! Commands, flags, variables and defaults as in `--help`; metrics as in `ordermesh metrics`.

use std::process::Command;

use harness::system::binary;
use regex::Regex;

use super::assert_golden;

#[test]
fn commands_flags_variables_and_defaults_are_unchanged() {
    let mut text = String::new();
    let mut waiting = vec![Vec::new()];
    while let Some(command) = waiting.pop() {
        let help = run(&[command.clone(), vec!["--help".to_owned()]].concat());
        text.push_str(&interface(&help));
        text.push('\n');
        let mut subcommands = subcommands(&help);
        subcommands.reverse();
        for name in subcommands {
            let mut longer = command.clone();
            longer.push(name);
            waiting.push(longer);
        }
    }
    assert_golden("commands.txt", &text);
}

#[test]
fn metrics_are_unchanged() {
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

/// The help text without prose: usage, arguments, and their variables, defaults and possible values.
fn interface(help: &str) -> String {
    // A default in several words is a description.
    let bracketed =
        Regex::new(r#"\[(env|aliases|possible values): [^\]]*\]|\[default: ("[^"]*"|\S+)\]"#)
            .unwrap();
    let value = Regex::new(r"^ {10}- ([a-z0-9-]+)").unwrap();
    let mut lines: Vec<String> = Vec::new();
    // An argument's text may be wrapped.
    let mut text = String::new();
    let flush = |lines: &mut Vec<String>, text: &mut String| {
        let found = bracketed.find_iter(text);
        lines.extend(found.map(|found| format!("          {}", found.as_str())));
        text.clear();
    };
    for line in help.lines() {
        let trimmed = line.trim();
        let indent = line.len() - line.trim_start().len();
        if line.starts_with("Usage:") {
            lines.push(trimmed.to_owned());
        } else if matches!(indent, 2 | 6) && trimmed.starts_with(['-', '<', '[']) {
            flush(&mut lines, &mut text);
            let (argument, rest) = trimmed.split_once("  ").unwrap_or((trimmed, ""));
            lines.push(format!("      {argument}"));
            text.push_str(rest);
        } else if let Some(value) = value.captures(line) {
            lines.push(format!("          - {}", &value[1]));
        } else {
            text.push(' ');
            text.push_str(trimmed);
        }
    }
    flush(&mut lines, &mut text);
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
    // Variables of the test's environment are not part of the interface.
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
