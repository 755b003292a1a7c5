//! A load of real baskets beside a test, run by `ordermesh load`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Output};

use crate::eventually::eventually;
use crate::system::System;

const BASKETS_FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../tools/load/data/baskets.csv.gz"
);
/// Enough baskets for a load to last over several kills.
const BASKETS: usize = 1_200;
/// Orders per second, so that the load lasts long enough to be interrupted.
const RATE: &str = "150";
/// Upper limit of the time until every order is final, back-offs included.
const VERIFY_SECONDS: u32 = 90;

/// Stocks the products of the baskets, some of them short, and starts to load the baskets.
pub fn load(system: &System) -> Child {
    let mut pieces_by_sku = basket_pieces();
    for pieces in pieces_by_sku.values_mut().step_by(50) {
        *pieces = (*pieces / 2).max(1);
    }
    system.stock_all(pieces_by_sku);
    let arguments = arguments(system);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    system.spawn("load", &arguments)
}

/// The command of the load; run again, it continues.
fn arguments(system: &System) -> Vec<String> {
    let limit = BASKETS.to_string();
    let (journal, report) = (system.path("journal"), system.path("report.csv"));
    [
        "load",
        "--file",
        BASKETS_FILE,
        "--limit",
        &limit,
        "--rate",
        RATE,
        "--concurrency",
        "64",
        "--journal",
        &journal,
        "--report",
        &report,
    ]
    .map(str::to_owned)
    .into()
}

/// Pieces of each product in all baskets.
fn basket_pieces() -> BTreeMap<String, i64> {
    let file = std::fs::File::open(BASKETS_FILE).expect("the baskets");
    let mut reader = csv::Reader::from_reader(flate2::read::GzDecoder::new(file));
    let mut baskets = BTreeSet::new();
    let mut pieces_by_sku = BTreeMap::new();
    for line in reader.records() {
        let line = line.expect("a line");
        baskets.insert(line[0].to_owned());
        if baskets.len() > BASKETS {
            break;
        }
        *pieces_by_sku.entry(line[3].to_owned()).or_default() +=
            line[5].parse::<i64>().expect("a quantity");
    }
    pieces_by_sku.retain(|_, pieces| *pieces > 0);
    pieces_by_sku
}

/// Waits until the journal has this many acknowledged orders.
pub fn wait_for_acknowledged(system: &System, orders: usize) {
    let journal = system.path("journal");
    eventually(&format!("{orders} orders are acknowledged"), || {
        let text = std::fs::read_to_string(&journal).unwrap_or_default();
        (text.matches("\"acknowledged\"").count() >= orders).then_some(())
    });
}

/// Waits for the end of the load.
///
/// # Panics
///
/// When the load fails.
pub fn wait_for_load(system: &System, load: &mut Child) {
    let status = eventually("the load ends", || load.try_wait().expect("a child"));
    assert!(status.success(), "{status}\n{}", system.log_tail("load"));
}

/// Compares the acknowledged orders of a finished load with what the API reports, and waits this long until all of them
/// are final.
pub fn verify(system: &System, seconds: u32) -> Output {
    let mut arguments = arguments(system);
    arguments.extend(["--verify".to_owned(), seconds.to_string()]);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    system.try_run(&arguments)
}

/// Asserts that every acknowledged order of a finished load is final and has the total of its accepted lines, and that
/// an audit at rest with the journal of the load finds nothing wrong.
///
/// # Panics
///
/// When an order differs or an invariant is violated.
pub fn verify_and_audit(system: &System) {
    let output = verify(system, VERIFY_SECONDS);
    assert!(output.status.success(), "{output:?}");
    system.audit_at_rest(Some(&system.path("journal")));
}
