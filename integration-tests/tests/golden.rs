//! Interfaces that users and stored data rely on, pinned in `golden/`. A change of layout or of internal names must not
//! change them.
//!
//! Prose may change; what a program reads may not. `ORDERMESH_BLESS=1` rewrites the files; the change is then one of
//! the interface and belongs in the changelog.

mod command_line;
mod declared;
mod written;

use std::path::PathBuf;

/// Set to rewrite the files instead of comparing them.
const BLESS: &str = "ORDERMESH_BLESS";

/// Compares `text` with the golden file of that name.
fn assert_golden(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os(BLESS).is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    let missing: Vec<_> = lines_not_in(&golden, text);
    let added: Vec<_> = lines_not_in(text, &golden);
    assert!(
        golden == text,
        "golden/{name} differs\nno longer there:\n  {}\nnew:\n  {}",
        missing.join("\n  "),
        added.join("\n  ")
    );
}

fn lines_not_in<'a>(text: &'a str, other: &str) -> Vec<&'a str> {
    let others: std::collections::BTreeSet<_> = other.lines().collect();
    text.lines().filter(|line| !others.contains(line)).collect()
}
