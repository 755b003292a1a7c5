//! The telemetry of the system as its operators see it.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails where something unexpected happens"
)]
#![allow(
    clippy::print_stdout,
    reason = "the test runner shows it when a test fails"
)]

use std::io::{Write as _, stderr};

use harness::prometheus::Programs;

mod alerts;
mod panels;
mod rules;
mod series;
mod traces;

/// Requests all tests, including those that take minutes.
const LONG: &str = "ORDERMESH_LONG";

/// Prometheus and its tools.
fn programs(what: &str) -> Option<Programs> {
    found(what, Programs::find())
}

/// The programs, if they are installed. Otherwise prints which tests are skipped, or panics when all tests are
/// requested.
fn found<T>(what: &str, programs: Result<T, String>) -> Option<T> {
    let long = std::env::var_os(LONG).is_some();
    programs
        .inspect_err(|missing| {
            assert!(!long, "{what} cannot be tested: {missing}");
            // Not captured, so that it is visible in every run.
            let _ = writeln!(stderr(), "{what} are not tested: {missing}");
        })
        .ok()
}
