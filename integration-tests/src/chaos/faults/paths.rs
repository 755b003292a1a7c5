//! The ways between parts.

use std::time::Duration;

use crate::chaos::proxy::Proxy;
use crate::chaos::stack::KAFKA_CLIENTS;
use crate::chaos::{ChaosRig, PROCESSORS};

/// All of a way, as the proxies make it.
const SLOW: Duration = Duration::from_millis(200);

/// One way after the other is cut, for longer than a session the first; then all are slow, and connections break.
pub fn partitions(ground: &mut ChaosRig) {
    let mut services = PROCESSORS;
    ground.random.shuffle(&mut services);
    let mut lasting = ground.form.seconds(18, 20);
    for service in services.into_iter().take(ground.form.of(2, 4)) {
        ground.stack.kafka[service].cut();
        ground.lasts(lasting);
        ground.stack.kafka[service].heal();
        ground.progress(&format!("{service} was cut off from the broker"), service);
        lasting = ground.form.seconds(5, 20);
    }
    for (what, service, proxy) in ways() {
        proxy(ground).cut();
        ground.lasts(lasting);
        proxy(ground).heal();
        ground.progress(&format!("{what} were cut off from each other"), service);
    }
    let resets = || -> u64 { ground.stack.kafka.values().map(Proxy::resets).sum() };
    let before = resets();
    every(ground, |proxy| proxy.delay(SLOW));
    for _ in 0..ground.form.of(2, 12) {
        ground.lasts(Duration::from_secs(5));
        every(ground, Proxy::reset);
    }
    every(ground, Proxy::heal);
    ground.progress("all ways were slow, and connections broke", "query");
    assert!(resets() > before, "no connection was reset");
}

type Way = fn(&ChaosRig) -> &Proxy;

fn ways() -> [(&'static str, &'static str, Way); 4] {
    [
        ("projector and broker", "query", |ground| {
            &ground.stack.kafka["query"]
        }),
        ("projector and database", "query", |ground| {
            &ground.stack.postgres
        }),
        ("gateways and one of orders", "orders", |ground| {
            &ground.to_orders["orders-1"]
        }),
        ("payments and the provider", "payments", |ground| {
            &ground.to_sandbox
        }),
    ]
}

fn every(ground: &ChaosRig, change: impl Fn(&Proxy)) {
    let kafka = KAFKA_CLIENTS
        .iter()
        .map(|client| &ground.stack.kafka[client]);
    let others = [&ground.stack.postgres, &ground.to_sandbox];
    kafka
        .chain(others)
        .chain(ground.to_orders.values())
        .for_each(change);
}
