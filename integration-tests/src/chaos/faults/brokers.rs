//! The broker.

use std::time::Duration;

use crate::chaos::{Form, Ground, PROCESSORS};

const RECREATED: &str = "ordermesh_engine_consumers_recreated_total";
/// So much later the broker takes producers: some heartbeats, and less than a worker waits for its producer.
const LATER: Duration = Duration::from_secs(3);
/// How often the broker is late with producers before it must have met somebody who waits for one.
const TRIES: usize = 4;
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
    // Who waits for its producer just then is not ours to say: a test tries again until somebody does, and a long run,
    // whose larger partitions keep workers busy with taking over, only tells.
    let form = ground.form;
    for _ in 0..form.of(TRIES, 1) {
        kill(ground, Duration::from_secs(1), true);
        if ground.sum(&names, RECREATED) > refused {
            return;
        }
    }
    assert!(form == Form::Long, "nobody was refused in {TRIES} tries");
    println!("no member was refused by a broker that is late with producers");
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
    let took = ground.progress("kill of the broker, since it is back", "query");
    assert!(took < BACK, "it took {took:?}");
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
