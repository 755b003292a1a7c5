//! Processes of one service that come, go and come back, and what that means for the others.

use contracts::Service;
use harness::chaos::{ChaosRig, PROCESSORS};
use harness::eventually;

use super::faults::plan;

const TAKEN_OVER: &str = "ordermesh_engine_restore_seconds_count";
const READ: &str = "ordermesh_engine_restored_records_total{service=\"orders\",topic=\"events\"}";

/// Whoever is killed and comes back at once finds its partitions where they were, and reads states and not history;
/// nobody else notices.
#[test]
fn a_quick_restart_moves_nothing() {
    let mut ground = ChaosRig::new(plan());
    for service in PROCESSORS {
        let (name, other) = (format!("{service}-1"), format!("{service}-2"));
        ground.spread(&[&name, &other], &[2, 2]);
        let before = ground.figure(&other, TAKEN_OVER);
        ground.load.goes_on(100);
        ground.system.kill(&name);
        ground.start(&name);
        ground.progress(&format!("a quick restart of {name}"), service);
        ground.system.ready(&name);
        assert_eq!(ground.partitions(&name), 2);
        assert_eq!(ground.partitions(&other), 2);
        assert_eq!(
            ground.figure(&other, TAKEN_OVER),
            before,
            "{other} took something over"
        );
    }
    let events = ground.events(Service::Orders);
    let read = ground.figure("orders-1", READ);
    println!("orders-1 read {read} of {events} events");
    assert!(read < events / 2.0, "{read} of {events} events");
    ground.rest();
}

/// All of a service's work waits for a while, then it catches up.
#[test]
fn a_service_that_was_away_catches_up() {
    let mut ground = ChaosRig::new(plan());
    let names = ["payments-1", "payments-2"];
    for name in names {
        assert!(ground.system.terminate(name).success());
    }
    let live = ground.load.goes_on_at(400);
    let backlog = ground.backlog(Service::Payments);
    assert!(backlog > 100, "{backlog}");
    let begun = std::time::Instant::now();
    for name in names {
        ground.start(name);
    }
    eventually("the backlog is worked off", || {
        (ground.backlog(Service::Payments) < 20).then_some(())
    });
    #[allow(clippy::cast_precision_loss)]
    let rate = backlog as f64 / begun.elapsed().as_secs_f64();
    println!(
        "catch-up: {backlog} offsets of payments in {:.1?}, start-up included: {rate:.0}/s beside {live:.0} orders/s",
        begun.elapsed()
    );
    ground.rest();
}
