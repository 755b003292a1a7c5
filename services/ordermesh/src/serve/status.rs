//! What a worker is at, as the readiness of its process.

use std::time::Duration;

use chassis::Component;
use engine::log::kafka::settings::POLL_INTERVAL;
use engine::worker::Status;
use tokio::time::Instant;

/// Between looks.
const EVERY: Duration = Duration::from_millis(50);

/// Keeps readiness in step with a worker. One that stands still cannot say so itself.
pub(super) async fn follow(status: Status, component: Component) {
    let mut every = tokio::time::interval(EVERY);
    let mut rounds = status.rounds();
    let mut since = Instant::now();
    loop {
        every.tick().await;
        if status.rounds() != rounds {
            rounds = status.rounds();
            since = Instant::now();
        }
        let still = since.elapsed();
        if still > POLL_INTERVAL {
            component.not_ready(format!("has stood still for {} s", still.as_secs()));
            continue;
        }
        match status.ready() {
            Ok(()) => component.ready(),
            Err(reason) => component.not_ready(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use chassis::Readiness;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_stands_still_is_not_ready() {
        let readiness = Readiness::default();
        tokio::spawn(follow(Status::default(), readiness.component("orders")));
        let reason = |report: &chassis::Report| report.components["orders"].clone();
        let mut report = readiness.watch();
        let joining = Some("joining the group".to_owned());
        let began = Instant::now();
        report
            .wait_for(|report| reason(report) == joining)
            .await
            .unwrap();
        let still = Some("has stood still for 60 s".to_owned());
        report
            .wait_for(|report| reason(report) == still)
            .await
            .unwrap();
        assert!(began.elapsed() > POLL_INTERVAL);
    }
}
