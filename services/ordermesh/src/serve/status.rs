//! What a worker or a caller is at, as the readiness of its process.

use std::time::Duration;

use chassis::Component;
use chassis::stall::{Limits, StallDetector};
use engine::log::kafka::settings::POLL_INTERVAL;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(50);

/// A round waits for a transaction, or for an answer of the broker. While one takes long, commands are not processed;
/// after twice the time that a worker may go without a poll, its group has given it up.
const LIMITS: Limits = Limits {
    not_ready: Duration::from_millis(1_500),
    stuck: POLL_INTERVAL.saturating_mul(2),
};

/// Keeps readiness in step with the health of a loop. One that stalls cannot say so itself.
pub(super) async fn follow(
    rounds: impl Fn() -> u64,
    health: impl Fn() -> Result<(), String>,
    component: Component,
) {
    let mut detector = StallDetector::new(LIMITS);
    let mut every = tokio::time::interval(EVERY);
    loop {
        every.tick().await;
        detector.look(rounds(), &component);
        tell(health(), &component);
    }
}

/// Keeps readiness in step with the health of something that has no loop of its own.
pub(super) async fn follow_health(health: impl Fn() -> Result<(), String>, component: Component) {
    let mut every = tokio::time::interval(EVERY);
    loop {
        every.tick().await;
        tell(health(), &component);
    }
}

fn tell(health: Result<(), String>, component: &Component) {
    match health {
        Ok(()) => component.ready(),
        Err(reason) => component.not_ready(reason),
    }
}

#[cfg(test)]
mod tests {
    use chassis::Readiness;
    use engine::worker::Status;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_stands_still_is_not_ready() {
        let readiness = Readiness::default();
        let component = readiness.component("orders");
        let status = Status::default();
        let told = status.clone();
        tokio::spawn(follow(
            move || status.rounds(),
            move || told.ready(),
            component,
        ));
        let reason = |report: &chassis::Report| report.components["orders"].clone();
        let mut report = readiness.watch();
        let joining = Some("joining the group".to_owned());
        let began = Instant::now();
        report
            .wait_for(|report| reason(report) == joining)
            .await
            .unwrap();
        let still = Some("has stood still for 1 s".to_owned());
        report
            .wait_for(|report| reason(report) == still)
            .await
            .unwrap();
        assert!(began.elapsed() > LIMITS.not_ready);
    }
}
