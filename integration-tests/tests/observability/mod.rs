//! What the system tells of itself, as those see it who watch over it.

use std::io::{Write as _, stderr};

use harness::prometheus::Programs;

mod alerts;
mod panels;
mod rules;
mod series;
mod traces;

/// Prometheus and what belongs to it; where they are missing, the reader is told what is not tested.
fn programs(what: &str) -> Option<Programs> {
    Programs::find()
        .inspect_err(|missing| {
            // Not captured: whoever runs the tests is to see it.
            let _ = writeln!(stderr(), "{what} are not tested: {missing}");
        })
        .ok()
}
