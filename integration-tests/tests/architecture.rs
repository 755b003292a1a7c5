//! Rules of the repository that no compiler checks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;
use serde::Deserialize;

/// Packages that a layer consists of, and what they may depend on beside their own layer's list. From the contracts up.
const ALLOWED: &[(&str, &[&str])] = &[
    ("ordermesh-contracts", &[]),
    ("observability", &[]),
    ("append-only-file", &[]),
    ("registry", &["ordermesh-contracts", "observability"]),
    (
        "engine",
        &["ordermesh-contracts", "registry", "observability"],
    ),
    ("chassis", &["ordermesh-contracts", "observability"]),
    // Knows rule books by their trait only.
    ("audit", &["ordermesh-contracts", "registry", "engine"]),
    // Knows metrics by their names only.
    ("dashboards", &[]),
    ("platform-client", FOUNDATION),
    // Read from outside what the services do; the auditor is given the rule books.
    ("lag", OBSERVERS),
    ("auditor", OBSERVERS),
    ("terminal", &["ordermesh-contracts"]),
];
const FOUNDATION: &[&str] = &[
    "ordermesh-contracts",
    "engine",
    "chassis",
    "registry",
    "observability",
];
const OBSERVERS: &[&str] = &[
    "ordermesh-contracts",
    "engine",
    "chassis",
    "registry",
    "observability",
    "audit",
    "platform-client",
];
const SERVICES: &[&str] = &[
    "orders",
    "inventory",
    "payments",
    "shipping",
    "query",
    "gateway",
    "sandbox",
];
/// Programs for people; no service depends on one.
const TOOLS: &[&str] = &["terminal", "load", "cli"];
/// Puts everything together.
const BINARY: &str = "ordermesh";
const TESTS: &str = "integration-tests";
/// Runs the services on a simulated log.
const SIMULATION: &str = "simulation";

/// What `cargo metadata` says, as far as it matters here.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `null` for a normal one.
    kind: Option<String>,
}

#[test]
fn dependencies_point_one_way() {
    let packages = metadata().packages;
    let ours: BTreeSet<_> = packages
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let mut allowed: BTreeMap<&str, BTreeSet<&str>> = ALLOWED
        .iter()
        .map(|(name, may)| (*name, may.iter().copied().collect()))
        .collect();
    for service in SERVICES {
        allowed.insert(service, FOUNDATION.iter().copied().collect());
    }
    // Of the services only the sandbox has a file of its own.
    let sandbox = allowed.entry("sandbox").or_default();
    sandbox.insert("append-only-file");
    let services: BTreeSet<_> = FOUNDATION.iter().chain(SERVICES).copied().collect();
    let with = |others: &[&'static str]| {
        let all = services.iter().copied().chain(others.iter().copied());
        all.collect::<BTreeSet<_>>()
    };
    let readers = ["audit", "auditor", "lag", "platform-client"];
    let load = [&readers[..], &["terminal", "append-only-file"]].concat();
    allowed.insert("load", with(&load));
    allowed.insert("cli", with(&[&readers[..], &["terminal", "load"]].concat()));
    allowed.insert(BINARY, with(&[&readers[..], TOOLS].concat()));
    allowed.insert(SIMULATION, with(&["audit"]));
    allowed.insert(TESTS, with(&["dashboards", "platform-client"]));

    let known: BTreeSet<_> = allowed.keys().copied().collect();
    assert_eq!(
        ours, known,
        "a package is new or gone: add it to or remove it from the list"
    );
    for package in &packages {
        for dependency in &package.dependencies {
            // A test may stand in for a partner.
            let for_tests = dependency.kind.as_deref() == Some("dev");
            if for_tests || !ours.contains(dependency.name.as_str()) {
                continue;
            }
            assert!(
                allowed[package.name.as_str()].contains(dependency.name.as_str()),
                "{} must not depend on {}",
                package.name,
                dependency.name
            );
        }
    }
}

#[test]
fn nothing_names_a_machine() {
    let root = metadata().workspace_root;
    let mut looked_at = 0;
    for file in tracked_files(&root) {
        let Ok(text) = std::fs::read_to_string(root.join(&file)) else {
            continue;
        };
        looked_at += 1;
        for (number, line) in text.lines().enumerate() {
            for home in ["/home/", "/root/", "/Users/"] {
                let named = line.contains(home) && file != THIS_FILE;
                assert!(
                    !named,
                    "{file}:{} names a folder of one machine: {line}",
                    number + 1
                );
            }
        }
    }
    assert!(looked_at > 100, "only {looked_at} files were looked at");
}

#[test]
fn every_link_in_a_document_resolves() {
    let root = metadata().workspace_root;
    let link = Regex::new(r"\]\(([^)#\s]+)(#[^)]*)?\)").unwrap();
    let mut resolved = 0;
    for file in tracked_files(&root).filter(|file| file.ends_with(".md")) {
        let path = root.join(&file);
        // Code is no link.
        let text = std::fs::read_to_string(&path).unwrap();
        for found in link.captures_iter(&text) {
            let target = &found[1];
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let target_path = path.parent().unwrap().join(target);
            assert!(
                target_path.exists(),
                "{file} links to {target}, which is not there"
            );
            resolved += 1;
        }
    }
    assert!(resolved > 100, "only {resolved} links were found");
}

#[test]
fn a_module_with_parts_is_a_file_beside_its_folder() {
    let root = metadata().workspace_root;
    let old_style: Vec<_> = tracked_files(&root)
        .filter(|file| file.ends_with("/mod.rs"))
        .collect();
    assert!(old_style.is_empty(), "foo.rs and foo/, not {old_style:?}");
}

/// The paths of all files of the repository.
fn tracked_files(root: &Path) -> impl Iterator<Item = String> + use<> {
    let listed = Command::new("git")
        .arg("-C")
        .arg(root)
        .arg("ls-files")
        .output()
        .unwrap();
    assert!(listed.status.success(), "git lists the files");
    let files = String::from_utf8(listed.stdout).unwrap();
    files
        .lines()
        .map(str::to_owned)
        .collect::<Vec<_>>()
        .into_iter()
}

const THIS_FILE: &str = "integration-tests/tests/architecture.rs";

fn metadata() -> Metadata {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
            "--manifest-path",
        ])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .output()
        .expect("cargo can be run");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo describes the workspace")
}
