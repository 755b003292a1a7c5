//! Faults of the broker.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use engine::log::limits::{SOCKET_TIMEOUT, TRANSACTION_TIMEOUT};

use crate::chaos::{ChaosRig, PROCESSORS};

const RECREATED: &str = "ordermesh_engine_consumers_recreated_total";
/// How much later than group members the broker accepts producers: several heartbeats, and less than a worker waits for
/// its producer.
const PRODUCER_DELAY: Duration = Duration::from_secs(3);
/// Upper limit of outage messages of one process: one for each part, and one more for a part that recovered too early.
const MAX_OUTAGE_REPORTS: usize = 8;
/// Log message of the start of an outage.
const OUTAGE_MESSAGE: &str = "outage begins";
/// Upper limit of the recovery, from the moment when the broker accepts calls again, plus the time in which it does not
/// respond.
const RECOVERY_LIMIT: Duration = Duration::from_secs(30);

/// Kills and restarts the broker; no other process is restarted. In the last rounds the broker accepts group members
/// before it accepts producers.
pub fn broker(rig: &mut ChaosRig) {
    for _ in 0..rig.scale.select(1, 3) {
        rig.load.wait_for_orders(20);
        let reported = outage_reports(rig);
        rig.stack.control(["kill9", "kafka"]);
        rig.hold_fault(rig.scale.seconds(1, 10));
        rig.stack.control(["start", "kafka"]);
        assert_recovered(rig, "kill of the broker, since it is back", &reported);
    }
    let tries = rig.scale.select(1, 3);
    for _ in 0..tries {
        if delay_producers(rig) {
            return;
        }
    }
    println!("skipped: in {tries} tries the broker was not back in time to refuse a member");
}

/// A worker that waits for its producer exceeds its session and is fenced by its own previous membership. It must not
/// conclude that it has been replaced. Returns whether that happened; it need not when the broker was away too long.
fn delay_producers(rig: &mut ChaosRig) -> bool {
    let names = rig.processors();
    let refused = rig.sum(&names, RECREATED);
    rig.load.wait_for_orders(20);
    for service in PROCESSORS {
        rig.stack.kafka[service].block_producer_init();
    }
    let reported = outage_reports(rig);
    let began = Instant::now();
    rig.stack.control(["kill9", "kafka"]);
    rig.hold_fault(Duration::from_secs(1));
    rig.stack.control(["start", "kafka"]);
    let away = began.elapsed();
    rig.hold_fault(PRODUCER_DELAY);
    rig.stack.heal();
    assert_recovered(
        rig,
        "kill of a broker that is late with producers, since it is back",
        &reported,
    );
    let refused = rig.sum(&names, RECREATED) - refused;
    println!("          away for {away:.1?}; {refused} members were refused");
    assert!(
        refused > 0.0 || away >= producer_wait(),
        "no member was refused"
    );
    refused > 0.0
}

/// For this long after the broker's kill, less some heartbeats, workers wait for the producer of their last
/// transaction, which has to time out first.
fn producer_wait() -> Duration {
    TRANSACTION_TIMEOUT + SOCKET_TIMEOUT * 2 - PRODUCER_DELAY
}

/// Number of outage messages in the log of each processor.
fn outage_reports(rig: &ChaosRig) -> BTreeMap<String, usize> {
    let count = |name: String| {
        (
            name.clone(),
            rig.system.count_log_lines(&name, OUTAGE_MESSAGE),
        )
    };
    rig.processors().into_iter().map(count).collect()
}

/// Asserts that everything recovers in time in the same processes, with few outage messages beyond `reported`.
fn assert_recovered(rig: &mut ChaosRig, what: &str, reported: &BTreeMap<String, usize>) {
    let recovery = rig.wait_for_progress(what, "query");
    assert!(
        recovery.elapsed < RECOVERY_LIMIT + recovery.unresponsive,
        "{recovery:?}"
    );
    for name in rig.names() {
        // Panics when the process has ended.
        rig.system.wait_until_ready(&name);
        if let Some(reported) = reported.get(&name) {
            let repeated = rig.system.last_log_line(&name, "brokers are down");
            assert!(repeated.is_empty(), "{name} repeats itself: {repeated}");
            let reported = rig.system.count_log_lines(&name, OUTAGE_MESSAGE) - reported;
            assert!(
                reported <= MAX_OUTAGE_REPORTS,
                "{name} repeats itself: {reported} times"
            );
        }
    }
    rig.load.wait_for_orders(20);
}
