//! Network faults between the parts.

use std::time::Duration;

use crate::chaos::proxy::Proxy;
use crate::chaos::stack::KAFKA_CLIENTS;
use crate::chaos::{ChaosRig, PROCESSORS};

/// Delay of each proxied connection.
const DELAY: Duration = Duration::from_millis(200);

/// Cuts one connection after the other, the first for longer than a session. Then delays and resets all of them.
pub fn partitions(rig: &mut ChaosRig) {
    let mut services = PROCESSORS;
    rig.random.shuffle(&mut services);
    let mut lasting = rig.scale.seconds(18, 20);
    for service in services.into_iter().take(rig.scale.select(2, 4)) {
        rig.stack.kafka[service].blackhole();
        rig.hold_fault(lasting);
        rig.stack.kafka[service].heal();
        rig.wait_for_progress(&format!("{service} was cut off from the broker"), service);
        lasting = rig.scale.seconds(5, 20);
    }
    for (what, service, proxy) in selectors() {
        proxy(rig).blackhole();
        rig.hold_fault(lasting);
        proxy(rig).heal();
        rig.wait_for_progress(&format!("{what} were cut off from each other"), service);
    }
    let resets = || -> u64 { rig.stack.kafka.values().map(Proxy::connections_reset).sum() };
    let before = resets();
    for_each_proxy(rig, |proxy| proxy.delay(DELAY));
    for _ in 0..rig.scale.select(2, 12) {
        rig.hold_fault(Duration::from_secs(5));
        for_each_proxy(rig, Proxy::reset);
    }
    for_each_proxy(rig, Proxy::heal);
    rig.wait_for_progress("all ways were slow, and connections broke", "query");
    assert!(resets() > before, "no connection was reset");
}

type ProxySelector = fn(&ChaosRig) -> &Proxy;

fn selectors() -> [(&'static str, &'static str, ProxySelector); 4] {
    [
        (
            "projector and broker",
            "query",
            |rig| &rig.stack.kafka["query"],
        ),
        ("projector and database", "query", |rig| &rig.stack.postgres),
        ("gateways and one of orders", "orders", |rig| {
            &rig.to_orders["orders-1"]
        }),
        ("payments and the provider", "payments", |rig| {
            &rig.to_sandbox
        }),
    ]
}

fn for_each_proxy(rig: &ChaosRig, change: impl Fn(&Proxy)) {
    let kafka = KAFKA_CLIENTS.iter().map(|client| &rig.stack.kafka[client]);
    let others = [&rig.stack.postgres, &rig.to_sandbox];
    kafka
        .chain(others)
        .chain(rig.to_orders.values())
        .for_each(change);
}
