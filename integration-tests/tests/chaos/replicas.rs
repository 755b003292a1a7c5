//! Effects of restarts of one replica on the other replicas.

use contracts::Service;
use harness::chaos::{ChaosRig, PROCESSORS};
use harness::eventually;

use super::faults::plan;

const TAKEN_OVER: &str = "ordermesh_engine_restore_seconds_count";
const READ: &str = "ordermesh_engine_restored_records_total{service=\"orders\",topic=\"events\"}";

/// A process that is killed and restarted at once keeps its partitions and restores from states instead of the full
/// history. The other processes are not affected.
#[test]
fn a_quick_restart_moves_no_partition() {
    let mut rig = ChaosRig::new(plan());
    for service in PROCESSORS {
        let (name, other) = (format!("{service}-1"), format!("{service}-2"));
        rig.wait_for_assignment(&[&name, &other], &[2, 2]);
        let before = rig.metric(&other, TAKEN_OVER);
        rig.load.wait_for_orders(100);
        rig.system.kill(&name);
        rig.start(&name);
        rig.wait_for_progress(&format!("a quick restart of {name}"), service);
        rig.system.wait_until_ready(&name);
        assert_eq!(rig.partitions(&name), 2);
        assert_eq!(rig.partitions(&other), 2);
        assert_eq!(
            rig.metric(&other, TAKEN_OVER),
            before,
            "{other} took something over"
        );
    }
    let events = rig.events(Service::Orders);
    let read = rig.metric("orders-1", READ);
    println!("orders-1 read {read} of {events} events");
    assert!(read < events / 2.0, "{read} of {events} events");
    rig.drain_and_audit();
}

/// All processes of a service are stopped for a while; then the service catches up.
#[test]
fn a_stopped_service_catches_up() {
    let mut rig = ChaosRig::new(plan());
    let names = ["payments-1", "payments-2"];
    for name in names {
        assert!(rig.system.terminate(name).success());
    }
    let live = rig.load.measure_rate(400);
    let backlog = rig.backlog(Service::Payments);
    assert!(backlog > 100, "{backlog}");
    let begun = std::time::Instant::now();
    for name in names {
        rig.start(name);
    }
    eventually("the backlog is worked off", || {
        (rig.backlog(Service::Payments) < 20).then_some(())
    });
    #[allow(clippy::cast_precision_loss)]
    let rate = backlog as f64 / begun.elapsed().as_secs_f64();
    println!(
        "catch-up: {backlog} offsets of payments in {:.1?}, start-up included: {rate:.0}/s beside {live:.0} orders/s",
        begun.elapsed()
    );
    rig.drain_and_audit();
}
