//! A load of real baskets beside a test, run by `ordermesh load`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Child;

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

/// Stocks the products of the baskets, some of them short, and starts to load the baskets.
pub fn load(system: &System) -> Child {
    let mut pieces_by_sku = basket_pieces();
    for pieces in pieces_by_sku.values_mut().step_by(50) {
        *pieces = (*pieces / 2).max(1);
    }
    system.stock_all(pieces_by_sku);
    system.spawn(
        "load",
        &[
            "load",
            "--file",
            BASKETS_FILE,
            "--limit",
            &BASKETS.to_string(),
            "--rate",
            RATE,
            "--concurrency",
            "64",
            "--journal",
            &system.path("journal"),
            "--report",
            &system.path("report.csv"),
        ],
    )
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
