//! What is committed is what the code says.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use dashboards::files;

/// Set to write what is missing instead of failing.
const BLESS: &str = "ORDERMESH_BLESS";

#[test]
fn the_committed_files_are_those_of_the_code() {
    let folder = files::folder();
    for file in files::rendered() {
        if env::var_os(BLESS).is_some() {
            file.write(&folder).unwrap();
        }
        let committed = fs::read_to_string(folder.join(&file.path)).unwrap_or_default();
        assert!(
            committed == file.text,
            "{} is not what the code makes: cargo run -p dashboards",
            file.path.display()
        );
    }
}

#[test]
fn there_is_no_dashboard_that_the_code_does_not_know() {
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
