//! The broker.

use std::time::Duration;

use crate::chaos::{Ground, PROCESSORS};

const RECREATED: &str = "ordermesh_engine_consumers_recreated_total";
/// So much later the broker takes producers: some heartbeats, and less than a worker waits for its producer.
const LATER: Duration = Duration::from_secs(3);
/// A process tells of its reader's trouble so often at most: once for an outage, and for what else broke it.
const TIMES: usize = 40;
/// From the moment when the broker takes calls again.
const BACK: Duration = Duration::from_secs(30);

/// The broker is killed and started again; nobody else is. In the end it takes members of groups before it takes
/// producers: whoever waits for its producer meanwhile has given up its session, is refused in favour of what it was
/// before, and must not take that for a replacement.
pub fn broker(ground: &mut Ground) {
    for _ in 0..ground.form.of(1, 3) {
        let pause = ground.form.seconds(1, 10);
        kill(ground, pause, false);
    }
    let names = ground.processors();
    let refused = ground.sum(&names, RECREATED);
    kill(ground, Duration::from_secs(1), true);
    // Who waits for its producer just then is not ours to say: it hangs on how fast the broker starts.
    let refused = ground.sum(&names, RECREATED) - refused;
    println!("{refused} members were refused by a broker that was late with producers");
}

fn kill(ground: &mut Ground, pause: Duration, are_producers_late: bool) {
    ground.load.goes_on(20);
    if are_producers_late {
        hold_producers(ground);
    }
    ground.stack.control(["kill9", "kafka"]);
    ground.lasts(pause);
    ground.stack.control(["start", "kafka"]);
    if are_producers_late {
        ground.lasts(LATER);
        ground.stack.heal();
    }
    let stalls = ground.stack.broker_stalls();
    let took = ground.progress("kill of the broker, since it is back", "query");
    let stalls = ground.stack.broker_stalls() - stalls;
    if stalls > 0 {
        println!("meanwhile the broker itself stood still {stalls} times for seconds");
    }
    assert!(took < BACK || stalls > 0, "it took {took:?}");
    for name in ground.names() {
        // Panics when it has ended.
        ground.system.ready(&name);
        if PROCESSORS.contains(&ground.service_of(&name)) {
            let said = ground.system.times_said(&name, "reader in trouble");
            assert!(said <= TIMES, "{name} repeats itself: {said} times");
        }
    }
    ground.load.goes_on(20);
}

fn hold_producers(ground: &Ground) {
    for service in PROCESSORS {
        ground.stack.kafka[service].hold_producers();
    }
}
