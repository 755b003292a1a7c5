//! The broker.

use std::time::Duration;

use crate::chaos::{Ground, PROCESSORS};

const RECREATED: &str = "ordermesh_engine_consumers_recreated_total";
/// So much later the broker takes producers: some heartbeats, and less than a worker waits for its producer.
const LATER: Duration = Duration::from_secs(3);
/// From the moment when the broker takes calls again.
const BACK: Duration = Duration::from_secs(30);

/// The broker is killed and started again; nobody else is. The last time it takes members of groups before it takes
/// producers: whoever waits for its producer meanwhile has given up its session, is refused in favour of what it was
/// before, and must not take that for a replacement.
pub fn broker(ground: &mut Ground) {
    let names = ground.processors();
    let kills = ground.form.of(2, 4);
    for kill in 1..=kills {
        ground.load.goes_on(20);
        let is_last = kill == kills;
        let refused = ground.sum(&names, RECREATED);
        if is_last {
            hold_producers(ground);
        }
        ground.stack.control(["kill9", "kafka"]);
        ground.lasts(ground.form.seconds(1, if is_last { 1 } else { 10 }));
        ground.stack.control(["start", "kafka"]);
        if is_last {
            ground.lasts(LATER);
            ground.stack.heal();
        }
        let took = ground.progress("kill of the broker, since it is back", "query");
        assert!(took < BACK, "it took {took:?}");
        for name in ground.names() {
            // Panics when it has ended.
            ground.system.ready(&name);
            if PROCESSORS.contains(&ground.service_of(&name)) {
                let repeated = ground.system.said(&name, "brokers are down");
                assert!(repeated.is_empty(), "{name} repeats itself: {repeated}");
            }
        }
        ground.load.goes_on(20);
        if is_last {
            assert!(
                ground.sum(&names, RECREATED) > refused,
                "nobody was refused"
            );
        }
    }
}

fn hold_producers(ground: &Ground) {
    for service in PROCESSORS {
        ground.stack.kafka[service].hold_producers();
    }
}
