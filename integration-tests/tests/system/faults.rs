//! Processes that are killed, started twice and restarted during a load. Afterwards everything balances.

use contracts::orders::v1::OrderStatus;
use harness::basket_load::{load, verify_and_audit, wait_for_acknowledged, wait_for_load};
use harness::system::{SERVICES, System, order_of};
use harness::{eventually, servers};

#[test]
fn the_whole_process_is_killed_during_a_load() {
    let mut system = System::new();
    system.set("ORDERMESH_SANDBOX_DECLINE_PERCENT", "5");
    system.start_until_ready("all");
    let mut load = load(&system);
    for orders in [150, 450, 750] {
        wait_for_acknowledged(&system, orders);
        system.kill("all");
        system.start("all");
        system.wait_until_ready("all");
    }
    wait_for_load(&system, &mut load);
    assert!(system.terminate("all").success());
    system.start("all");
    system.wait_until_ready("all");
    verify_and_audit(&system);
}

#[test]
fn each_service_is_killed_in_turn_during_a_load() {
    let mut system = System::new();
    for service in SERVICES {
        system.start(service);
    }
    for service in SERVICES {
        system.wait_until_ready(service);
    }
    let mut load = load(&system);
    for (turn, service) in (1..).zip(SERVICES) {
        wait_for_acknowledged(&system, turn * 120);
        system.kill(service);
        system.start(service);
        system.wait_until_ready(service);
    }
    wait_for_load(&system, &mut load);
    verify_and_audit(&system);
}

#[test]
fn two_processes_of_orders_share_the_partitions_and_one_takes_over() {
    let mut system = System::new();
    for service in SERVICES {
        system.start(service);
    }
    for service in SERVICES {
        system.wait_until_ready(service);
    }
    let second = [("ORDERMESH_ORDERS_LISTEN", "127.0.0.1:0".to_owned())];
    system.start_as("orders-2", "orders", &second);
    system.wait_until_ready("orders-2");
    eventually("each has two partitions", || {
        let shares = ["orders", "orders-2"].map(|name| partitions(&system, name));
        (shares == [2, 2]).then_some(())
    });
    let mut load = load(&system);
    wait_for_acknowledged(&system, 200);
    system.kill("orders-2");
    eventually("the first has all partitions", || {
        (partitions(&system, "orders") == 4).then_some(())
    });
    wait_for_load(&system, &mut load);
    verify_and_audit(&system);
}

#[test]
fn an_instance_started_twice_ends_one_of_them() {
    let mut system = System::new();
    for service in SERVICES {
        system.start(service);
    }
    for service in SERVICES {
        system.wait_until_ready(service);
    }
    let same = [
        ("ORDERMESH_ORDERS_LISTEN", "127.0.0.1:0".to_owned()),
        ("ORDERMESH_INSTANCE", "orders".to_owned()),
    ];
    system.start_as("intruder", "orders", &same);
    assert!(
        !system.wait_for_exit("orders").success(),
        "the one that was there is fenced"
    );
    assert!(
        system.log_tail("orders").contains("instance id"),
        "{}",
        system.log_tail("orders")
    );
    system.wait_until_ready("intruder");
}

#[test]
fn a_frozen_process_ends_when_it_thaws_and_its_replacement_continues() {
    let mut system = System::new();
    for service in SERVICES {
        system.start(service);
    }
    for service in SERVICES {
        system.wait_until_ready(service);
    }
    let mut load = load(&system);
    wait_for_acknowledged(&system, 150);
    // No client calls payments: its replacement finds the delayed work in the log.
    system.freeze("payments");
    let same = [("ORDERMESH_INSTANCE", "payments".to_owned())];
    system.start_as("replacement", "payments", &same);
    system.wait_until_ready("replacement");
    wait_for_load(&system, &mut load);
    system.thaw("payments");
    assert!(
        !system.wait_for_exit("payments").success(),
        "it must not fence its replacement"
    );
    let last = system.log_tail("payments");
    assert!(last.contains("instance id"), "{last}");
    system.wait_until_ready("replacement");
    verify_and_audit(&system);
}

#[test]
fn the_registry_is_restarted_during_a_load() {
    let servers_lock = servers::exclusive();
    let mut system = System::exclusive(&servers_lock);
    system.start_until_ready("all");
    let mut load = load(&system);
    wait_for_acknowledged(&system, 200);
    servers_lock.stack(["kill9", "registry"]);
    wait_for_acknowledged(&system, 400);
    servers_lock.stack(["start", "registry"]);
    wait_for_load(&system, &mut load);
    verify_and_audit(&system);
    // The ids are those from before.
    system.kill("all");
    system.start_until_ready("all");
    let placed = system.place(order_of(&[("nothing", 1)])).unwrap();
    system.wait_for_status(&placed.order_id, OrderStatus::Rejected);
}

fn partitions(system: &System, name: &str) -> u32 {
    system
        .metrics(name)
        .lines()
        .find_map(|line| line.strip_prefix("ordermesh_engine_partitions{service=\"orders\"} "))
        .and_then(|count| count.parse().ok())
        .unwrap_or(0)
}
