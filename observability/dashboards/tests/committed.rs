//! The committed files match the code.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use dashboards::files;

/// When set, the files are written instead of failing.
const BLESS: &str = "ORDERMESH_BLESS";

#[test]
fn the_committed_files_match_the_code() {
    let folder = files::folder();
    for file in files::rendered() {
        if env::var_os(BLESS).is_some() {
            file.write(&folder).unwrap();
        }
        let committed = fs::read_to_string(folder.join(&file.path)).unwrap_or_default();
        assert!(
            committed == file.text,
            "{} differs from the code: cargo run -p dashboards",
            file.path.display()
        );
    }
}

#[test]
fn no_dashboard_is_committed_without_code() {
    let known: BTreeSet<PathBuf> = files::rendered()
        .into_iter()
        .map(|file| file.path)
        .filter(|path| path.starts_with(files::DASHBOARDS))
        .collect();
    let found: BTreeSet<PathBuf> = fs::read_dir(files::folder().join(files::DASHBOARDS))
        .unwrap()
        .map(|entry| Path::new(files::DASHBOARDS).join(entry.unwrap().file_name()))
        .collect();
    assert_eq!(found, known);
}
