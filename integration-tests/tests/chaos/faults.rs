//! One test for each fault.

use harness::chaos::faults::flash_sale::{Sale, sell};
use harness::chaos::faults::{self, mix_of};
use harness::chaos::load::DEFAULT_MIX;
use harness::chaos::{ChaosRig, Plan, Scale};

/// Orders per second: the machine needs room for the recovery.
const RATE: u32 = 40;

/// A plan with a random seed.
pub fn plan() -> Plan {
    Plan {
        seed: fastrand::u64(..),
        scale: Scale::Short,
        mix: DEFAULT_MIX,
        rate: RATE,
        orders: None,
        declined_percent: 5,
    }
}

fn assert_survives(name: &str) {
    let fault = faults::ALL.iter().find(|fault| fault.name == name).unwrap();
    let mut rig = ChaosRig::new(Plan {
        mix: mix_of(name),
        ..plan()
    });
    println!("{name}: {}", fault.what);
    (fault.strike)(&mut rig);
    rig.drain_and_audit();
}

#[test]
fn kills() {
    assert_survives("kills");
}

#[test]
fn zombies() {
    assert_survives("zombies");
}

#[test]
fn twins() {
    assert_survives("twins");
}

#[test]
fn unclear_ends() {
    assert_survives("unclear");
}

#[test]
fn a_broker_that_is_killed() {
    assert_survives("broker");
}

#[test]
fn recovery_meets_its_time_limits() {
    assert_survives("recovery");
}

#[test]
fn clients_that_lose_the_broker() {
    assert_survives("clients");
}

#[test]
fn a_database_that_is_killed_frozen_and_full() {
    assert_survives("database");
}

#[test]
fn a_provider_that_fails() {
    assert_survives("provider");
}

#[test]
fn workers_that_come_and_go() {
    assert_survives("churn");
}

#[test]
fn transactions_that_are_aborted() {
    assert_survives("aborts");
}

#[test]
fn a_registry_that_is_away() {
    assert_survives("registry");
}

#[test]
fn everything_restarted_in_order() {
    assert_survives("restarts");
}

#[test]
fn parts_that_are_cut_off() {
    assert_survives("partitions");
}

/// Twice as many orders as pieces.
const SALE: Sale = Sale {
    orders: 2_000,
    products: 10,
    pieces: 100,
    returns: false,
};

#[test]
fn a_flash_sale_without_returns() {
    sell(
        SALE,
        Plan {
            rate: 150,
            ..plan()
        },
    );
}

#[test]
fn a_flash_sale_with_returns() {
    let sale = Sale {
        returns: true,
        ..SALE
    };
    sell(
        sale,
        Plan {
            rate: 150,
            ..plan()
        },
    );
}
