//! Reports the health of workers and clients in the readiness of the process.

use std::time::Duration;

use chassis::Component;
use chassis::stall::{Limits, StallDetector};
use engine::log::limits::POLL_INTERVAL;

/// Interval between two checks.
const INTERVAL: Duration = Duration::from_millis(50);

/// An iteration may wait for a transaction or for a response of the broker, and commands are not processed meanwhile.
/// After twice the longest permitted time between polls, the group has removed the worker.
const LIMITS: Limits = Limits {
    not_ready: Duration::from_millis(1_500),
    not_live: POLL_INTERVAL.saturating_mul(2),
};

/// Reports the health of a loop in the readiness. Also detects a stall, which the loop itself cannot report.
pub(super) async fn report_loop_health(
    iterations: impl Fn() -> u64,
    health: impl Fn() -> Result<(), String>,
    component: Component,
) {
    let mut detector = StallDetector::new(LIMITS);
    let mut interval = tokio::time::interval(INTERVAL);
    loop {
        interval.tick().await;
        detector.check(iterations(), &component);
        set_readiness(health(), &component);
    }
}

/// Reports the health of a component without a loop in the readiness.
pub(super) async fn report_health(health: impl Fn() -> Result<(), String>, component: Component) {
    let mut interval = tokio::time::interval(INTERVAL);
    loop {
        interval.tick().await;
        set_readiness(health(), &component);
    }
}

fn set_readiness(health: Result<(), String>, component: &Component) {
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
    async fn a_stalled_worker_is_not_ready() {
        let readiness = Readiness::default();
        let component = readiness.component("orders");
        let status = Status::default();
        let health = status.clone();
        tokio::spawn(report_loop_health(
            move || status.iterations(),
            move || health.ready(),
            component,
        ));
        let reason = |report: &chassis::Report| report.components["orders"].clone();
        let mut report = readiness.watch();
        let joining = Some("joining the group".to_owned());
        let start = Instant::now();
        report
            .wait_for(|report| reason(report) == joining)
            .await
            .unwrap();
        let stalled = Some("has stalled for 1 s".to_owned());
        report
            .wait_for(|report| reason(report) == stalled)
            .await
            .unwrap();
        assert!(start.elapsed() > LIMITS.not_ready);
    }
}
