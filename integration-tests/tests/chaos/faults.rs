//! One test for each fault.

use harness::chaos::faults::flash_sale::{Sale, sell};
use harness::chaos::faults::{self, mix_of};
use harness::chaos::load::USUAL;
use harness::chaos::{ChaosRig, Plan, Scale};

/// Orders begun each second: the machine is to have room for what is repaired.
const RATE: u32 = 40;

/// Drawn anew each time.
pub fn plan() -> Plan {
    Plan {
        seed: fastrand::u64(..),
        form: Scale::Short,
        mix: USUAL,
        rate: RATE,
        orders: None,
        declined_percent: 5,
    }
}

fn survives(name: &str) {
    let fault = faults::ALL.iter().find(|fault| fault.name == name).unwrap();
    let mut ground = ChaosRig::new(Plan {
        mix: mix_of(name),
        ..plan()
    });
    println!("{name}: {}", fault.what);
    (fault.strike)(&mut ground);
    ground.rest();
}

#[test]
fn kills() {
    survives("kills");
}

#[test]
fn zombies() {
    survives("zombies");
}

#[test]
fn twins() {
    survives("twins");
}

#[test]
fn unclear_ends() {
    survives("unclear");
}

#[test]
fn a_broker_that_is_killed() {
    survives("broker");
}

#[test]
fn everything_is_back_in_time() {
    survives("recovery");
}

#[test]
fn clients_that_lose_the_broker() {
    survives("clients");
}

#[test]
fn a_database_that_is_killed_frozen_and_full() {
    survives("database");
}

#[test]
fn a_provider_that_fails() {
    survives("provider");
}

#[test]
fn workers_that_come_and_go() {
    survives("churn");
}

#[test]
fn transactions_that_are_aborted() {
    survives("aborts");
}

#[test]
fn a_registry_that_is_away() {
    survives("registry");
}

#[test]
fn everything_restarted_in_order() {
    survives("restarts");
}

#[test]
fn parts_that_are_cut_off() {
    survives("partitions");
}

/// As many who want a piece for each that there is, twice over.
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
