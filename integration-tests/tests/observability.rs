//! What the system tells of itself, as those see it who watch over it.

use std::io::{Write as _, stderr};

use harness::prometheus::Programs;

mod alerts;
mod panels;
mod rules;
mod series;
mod traces;

/// Asks for the tests that take minutes, and for all of them.
const LONG: &str = "ORDERMESH_LONG";

/// Prometheus and what belongs to it.
fn programs(what: &str) -> Option<Programs> {
    found(what, Programs::find())
}

/// Where a program is missing, the reader is told what is not tested; who asks for all tests wants it to be there.
fn found<T>(what: &str, programs: Result<T, String>) -> Option<T> {
    let long = std::env::var_os(LONG).is_some();
    programs
        .inspect_err(|missing| {
            assert!(!long, "{what} cannot be tested: {missing}");
            // Not captured: whoever runs the tests is to see it.
            let _ = writeln!(stderr(), "{what} are not tested: {missing}");
        })
        .ok()
}
