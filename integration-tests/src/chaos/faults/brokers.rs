//! The broker.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use engine::log::kafka::settings::{SOCKET_TIMEOUT, TRANSACTION_TIMEOUT};

use crate::chaos::{ChaosRig, PROCESSORS};

const RECREATED: &str = "ordermesh_engine_consumers_recreated_total";
/// So much later the broker takes producers: some heartbeats, and less than a worker waits for its producer.
const LATER: Duration = Duration::from_secs(3);
/// A process tells so often at most that an outage begins: once for each part of it, and once more for a part that was
/// back too early.
const TIMES: usize = 8;
/// How it does.
const TROUBLE: &str = "outage begins";
/// From the moment when the broker takes calls again, and while it does.
const BACK: Duration = Duration::from_secs(30);

/// The broker is killed and started again; nobody else is. The last time it takes members of groups before it takes
/// producers.
pub fn broker(ground: &mut ChaosRig) {
    for _ in 0..ground.form.of(1, 3) {
        ground.load.goes_on(20);
        let said = troubles(ground);
        ground.stack.control(["kill9", "kafka"]);
        ground.lasts(ground.form.seconds(1, 10));
        ground.stack.control(["start", "kafka"]);
        goes_on(ground, "kill of the broker, since it is back", &said);
    }
    let tries = ground.form.of(1, 3);
    for _ in 0..tries {
        if late_with_producers(ground) {
            return;
        }
    }
    println!("skipped: in {tries} tries the broker was not back in time to refuse anybody");
}

/// Whoever waits for its producer meanwhile has given up its session, is refused in favour of what it was before, and
/// must not take that for a replacement. Whether somebody was; nobody may be when the broker was away too long.
fn late_with_producers(ground: &mut ChaosRig) -> bool {
    let names = ground.processors();
    let refused = ground.sum(&names, RECREATED);
    ground.load.goes_on(20);
    for service in PROCESSORS {
        ground.stack.kafka[service].hold_producers();
    }
    let said = troubles(ground);
    let began = Instant::now();
    ground.stack.control(["kill9", "kafka"]);
    ground.lasts(Duration::from_secs(1));
    ground.stack.control(["start", "kafka"]);
    let away = began.elapsed();
    ground.lasts(LATER);
    ground.stack.heal();
    goes_on(
        ground,
        "kill of a broker that is late with producers, since it is back",
        &said,
    );
    let refused = ground.sum(&names, RECREATED) - refused;
    println!("          away for {away:.1?}; {refused} members were refused");
    assert!(refused > 0.0 || away >= waiting(), "nobody was refused");
    refused > 0.0
}

/// For so long after the broker's end, less some heartbeats, workers wait for the producer that their last transaction
/// has cost them: it had to end first.
fn waiting() -> Duration {
    TRANSACTION_TIMEOUT + SOCKET_TIMEOUT * 2 - LATER
}

/// How often each process has told that an outage begins.
fn troubles(ground: &ChaosRig) -> BTreeMap<String, usize> {
    let told = |name: String| (name.clone(), ground.system.times_said(&name, TROUBLE));
    ground.processors().into_iter().map(told).collect()
}

/// Everything goes on in time, by the same processes, which have not said much since `said`.
fn goes_on(ground: &mut ChaosRig, what: &str, said: &BTreeMap<String, usize>) {
    let recovery = ground.progress(what, "query");
    assert!(recovery.took < BACK + recovery.silence, "{recovery:?}");
    for name in ground.names() {
        // Panics when it has ended.
        ground.system.ready(&name);
        if let Some(said) = said.get(&name) {
            let repeated = ground.system.said(&name, "brokers are down");
            assert!(repeated.is_empty(), "{name} repeats itself: {repeated}");
            let said = ground.system.times_said(&name, TROUBLE) - said;
            assert!(said <= TIMES, "{name} repeats itself: {said} times");
        }
    }
    ground.load.goes_on(20);
}
