//! The broker.

use std::time::Duration;

use crate::chaos::{Ground, PROCESSORS};

/// From the moment when the broker takes calls again.
const BACK: Duration = Duration::from_secs(30);

/// The broker is killed and started again; nobody else is.
pub fn broker(ground: &mut Ground) {
    for _ in 0..ground.form.of(1, 3) {
        ground.load.goes_on(20);
        ground.stack.control(["kill9", "kafka"]);
        ground.lasts(ground.form.seconds(1, 10));
        ground.stack.control(["start", "kafka"]);
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
    }
}
