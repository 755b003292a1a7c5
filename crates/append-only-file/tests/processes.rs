//! What concerns a whole process: each test runs itself again in another one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::{env, fs};

use append_only_file::{AppendError, LockedFile, OpenError, Writer};
use tokio::task::JoinSet;

/// The file that the other process uses.
const PATH: &str = "APPEND_ONLY_FILE_PATH";

fn path_of_the_test() -> Option<PathBuf> {
    env::var_os(PATH).map(PathBuf::from)
}

/// Runs a test of this file in another process, after shell commands.
fn run_in_a_process(test: &str, path: &Path, before: &str) {
    let output = Command::new("sh")
        .arg("-c")
        .arg(format!("{before} exec \"$0\" --exact \"$1\""))
        .arg(env::current_exe().unwrap())
        .arg(test)
        .env(PATH, path)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && printed.contains("1 passed");
    assert!(passed, "{printed}");
}

#[test]
fn another_process_is_refused() {
    if let Some(path) = path_of_the_test() {
        assert!(matches!(LockedFile::open(&path), Err(OpenError::InUse)));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "1\ntorn").unwrap();
    let _locked = LockedFile::open(&path).unwrap();
    run_in_a_process("another_process_is_refused", &path, "");
    assert_eq!(fs::read(&path).unwrap(), b"1\ntorn");
}

/// A limit on the size of files ends one in the middle of a line, as a full disk does.
#[test]
fn a_write_that_fails_half_way_loses_no_acknowledged_line() {
    if let Some(path) = path_of_the_test() {
        return append_until_the_limit(&path);
    }
    let folder = tempfile::tempdir().unwrap();
    run_in_a_process(
        "a_write_that_fails_half_way_loses_no_acknowledged_line",
        &folder.path().join("file"),
        "trap '' XFSZ; ulimit -f 8;",
    );
}

#[tokio::main(flavor = "current_thread")]
async fn append_until_the_limit(path: &Path) {
    let file = LockedFile::open(path).unwrap().append_after(0).unwrap();
    let writer = Arc::new(Writer::start(file, "test").unwrap());
    let mut callers = JoinSet::new();
    for caller in 0..8 {
        let writer = Arc::clone(&writer);
        callers.spawn(async move {
            let mut acknowledged = Vec::new();
            loop {
                // No multiple of its length is the limit.
                let line = format!("{caller} {:>97}\n", acknowledged.len());
                match writer.append(line.clone().into_bytes()).await {
                    Ok(()) => acknowledged.push(line),
                    Err(AppendError::Failed(error)) => {
                        assert!(error.to_string().starts_with("File too large"));
                        return acknowledged;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    let acknowledged = callers.join_all().await.concat();
    assert!(!acknowledged.is_empty());
    drop(writer);

    let locked = LockedFile::open(path).unwrap();
    let mut lines = locked.lines().unwrap();
    let mut read = Vec::new();
    while let Some(line) = lines.next_line().unwrap() {
        read.push(String::from_utf8(line.to_vec()).unwrap());
    }
    assert!(!lines.incomplete().is_empty(), "the last line is torn");
    for line in acknowledged {
        assert!(read.contains(&line), "{line}");
    }
}
