//! Processes that are killed, doubled, and restarted in the middle of a load. Afterwards everything balances.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Child;

use contracts::orders::v1::OrderStatus;
use harness::system::{SERVICES, System, order_of};
use harness::{eventually, servers};

const BASKETS_FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../tools/load/data/baskets.csv.gz"
);
/// Enough baskets for a load to last over several kills.
const BASKETS: usize = 1_200;
/// Per second, so that there is a middle to kill in.
const RATE: &str = "150";

#[test]
fn the_whole_process_is_killed_in_the_middle_of_a_load() {
    let mut system = System::new();
    system.set("ORDERMESH_SANDBOX_DECLINE_PERCENT", "5");
    system.up("all");
    let mut load = load(&system);
    for orders in [150, 450, 750] {
        acknowledged(&system, orders);
        system.kill("all");
        system.start("all");
        system.ready("all");
    }
    finish(&system, &mut load);
    assert!(system.terminate("all").success());
    system.start("all");
    system.ready("all");
    system.check(Some(&system.path("journal")));
}

#[test]
fn each_service_is_killed_in_turn_in_the_middle_of_a_load() {
    let mut system = System::new();
    for service in SERVICES {
        system.start(service);
    }
    for service in SERVICES {
        system.ready(service);
    }
    let mut load = load(&system);
    for (turn, service) in (1..).zip(SERVICES) {
        acknowledged(&system, turn * 120);
        system.kill(service);
        system.start(service);
        system.ready(service);
    }
    finish(&system, &mut load);
    system.check(Some(&system.path("journal")));
}

#[test]
fn two_processes_of_orders_share_the_partitions_and_one_takes_over() {
    let mut system = System::new();
    for service in SERVICES {
        system.start(service);
    }
    for service in SERVICES {
        system.ready(service);
    }
    let second = [("ORDERMESH_ORDERS_LISTEN", "127.0.0.1:0".to_owned())];
    system.start_as("orders-2", "orders", &second);
    system.ready("orders-2");
    eventually("each has two partitions", || {
        let shares = ["orders", "orders-2"].map(|name| partitions(&system, name));
        (shares == [2, 2]).then_some(())
    });
    let mut load = load(&system);
    acknowledged(&system, 200);
    system.kill("orders-2");
    eventually("the first has all partitions", || {
        (partitions(&system, "orders") == 4).then_some(())
    });
    finish(&system, &mut load);
    system.check(Some(&system.path("journal")));
}

#[test]
fn an_instance_started_twice_ends_one_of_them() {
    let mut system = System::new();
    for service in SERVICES {
        system.start(service);
    }
    for service in SERVICES {
        system.ready(service);
    }
    let same = [
        ("ORDERMESH_ORDERS_LISTEN", "127.0.0.1:0".to_owned()),
        ("ORDERMESH_INSTANCE", "orders".to_owned()),
    ];
    system.start_as("intruder", "orders", &same);
    assert!(
        !system.ended("orders").success(),
        "the one that was there is fenced"
    );
    assert!(
        system.tail("orders").contains("instance id"),
        "{}",
        system.tail("orders")
    );
    system.ready("intruder");
}

#[test]
fn a_frozen_process_ends_when_it_thaws_and_its_replacement_goes_on() {
    let mut system = System::new();
    for service in SERVICES {
        system.start(service);
    }
    for service in SERVICES {
        system.ready(service);
    }
    let mut load = load(&system);
    acknowledged(&system, 150);
    // Nobody calls payments: what it holds up is found in the log by its replacement.
    system.freeze("payments");
    let same = [("ORDERMESH_INSTANCE", "payments".to_owned())];
    system.start_as("replacement", "payments", &same);
    system.ready("replacement");
    finish(&system, &mut load);
    system.thaw("payments");
    assert!(
        !system.ended("payments").success(),
        "it must not fence its replacement"
    );
    let last = system.tail("payments");
    assert!(last.contains("instance id"), "{last}");
    system.ready("replacement");
    system.check(Some(&system.path("journal")));
}

#[test]
fn the_registry_is_restarted_in_the_middle_of_a_load() {
    let alone = servers::alone();
    let mut system = System::alone(&alone);
    system.up("all");
    let mut load = load(&system);
    acknowledged(&system, 200);
    alone.stack(["kill9", "registry"]);
    acknowledged(&system, 400);
    alone.stack(["start", "registry"]);
    finish(&system, &mut load);
    system.check(Some(&system.path("journal")));
    // The ids are the ones from before.
    system.kill("all");
    system.up("all");
    let placed = system.place(order_of(&[("nothing", 1)])).unwrap();
    system.reaches(&placed.order_id, OrderStatus::Rejected);
}

/// Stocks what the baskets want, a little less of some products, and begins to load them.
pub(crate) fn load(system: &System) -> Child {
    let mut wanted = wanted();
    for pieces in wanted.values_mut().step_by(50) {
        *pieces = (*pieces / 2).max(1);
    }
    system.stock_all(wanted);
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

/// Pieces that the baskets want, by product.
fn wanted() -> BTreeMap<String, i64> {
    let file = std::fs::File::open(BASKETS_FILE).expect("the baskets");
    let mut reader = csv::Reader::from_reader(flate2::read::GzDecoder::new(file));
    let mut baskets = BTreeSet::new();
    let mut wanted = BTreeMap::new();
    for line in reader.records() {
        let line = line.expect("a line");
        baskets.insert(line[0].to_owned());
        if baskets.len() > BASKETS {
            break;
        }
        *wanted.entry(line[3].to_owned()).or_default() +=
            line[5].parse::<i64>().expect("a quantity");
    }
    wanted.retain(|_, pieces| *pieces > 0);
    wanted
}

/// Waits until the journal holds so many acknowledged orders.
pub(crate) fn acknowledged(system: &System, orders: usize) {
    let journal = system.path("journal");
    eventually(&format!("{orders} orders are acknowledged"), || {
        let text = std::fs::read_to_string(&journal).unwrap_or_default();
        (text.matches("\"acknowledged\"").count() >= orders).then_some(())
    });
}

pub(crate) fn finish(system: &System, load: &mut Child) {
    let status = eventually("the load ends", || load.try_wait().expect("a child"));
    assert!(status.success(), "{status}\n{}", system.tail("load"));
}

fn partitions(system: &System, name: &str) -> u32 {
    system
        .metrics(name)
        .lines()
        .find_map(|line| line.strip_prefix("ordermesh_engine_partitions{service=\"orders\"} "))
        .and_then(|count| count.parse().ok())
        .unwrap_or(0)
}
