//! Processes, ours and those that watch them.

use harness::system::free_port;

use super::{place, start, watched_at_length};

#[test]
fn a_process_that_does_not_get_to_work_is_told_of() {
    let Some((mut system, alerts)) = watched_at_length(20) else {
        return;
    };
    // It waits for a broker where none is.
    let nowhere = [("ORDERMESH_KAFKA", free_port().to_string())];
    system.start_as("payments-2", "payments", &nowhere);
    alerts.follow(&system);
    let stopped = [("component", "parts"), ("instance", "payments-2:9464")];
    alerts.arrives("WorkerStopped", &stopped);
    system.kill("payments-2");
    system.start_as("payments-2", "payments", &[]);
    system.ready("payments-2");
    alerts.follow(&system);
    alerts.clears("WorkerStopped", &stopped);
}

#[test]
fn a_process_that_ends_again_and_again_is_told_of() {
    let Some((mut system, alerts)) = watched_at_length(30) else {
        return;
    };
    for _ in 0..4 {
        system.kill("payments");
        start(&mut system, &alerts, "payments");
        // Each one has to be seen.
        let begun = "process_start_time_seconds{instance=\"payments:9464\"}";
        let seen = system.figure("payments", "process_start_time_seconds ");
        harness::eventually("prometheus sees the new process", || {
            let samples = alerts.prometheus().query(begun).unwrap();
            samples
                .iter()
                .any(|sample| Some(sample.value) == seen)
                .then_some(())
        });
    }
    let payments = [("instance", "payments:9464")];
    alerts.arrives("CrashLooping", &payments);
    alerts.clears("CrashLooping", &payments);
}

#[test]
fn a_watcher_that_is_gone_is_told_of() {
    let Some((system, alerts)) = watched_at_length(20) else {
        return;
    };
    let collector = [("job", "collector"), ("instance", "collector:8888")];
    let scrape = |address| {
        let target = ("collector:8888".to_owned(), address);
        alerts.prometheus().scrape("collector", &[target]);
    };
    scrape(free_port());
    let notice = alerts.arrives("TargetDown", &collector);
    assert_eq!(notice.receiver, "tickets");
    // Somebody answers in its place.
    scrape(system.admin("sandbox"));
    alerts.clears("TargetDown", &collector);
}

#[test]
fn spans_that_nobody_takes_are_told_of() {
    let Some((mut system, alerts)) = watched_at_length(20) else {
        return;
    };
    system.kill("orders");
    let lost = [
        ("ORDERMESH_TRACE_RATIO", "1".to_owned()),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("http://{}", free_port()),
        ),
    ];
    system.start_as("orders", "orders", &lost);
    system.ready("orders");
    alerts.follow(&system);
    let orders = [("instance", "orders:9464")];
    harness::eventually("spans are lost for long enough", || {
        place(&system);
        alerts.fires("TelemetryDropping", &orders).then_some(())
    });
    system.kill("orders");
    start(&mut system, &alerts, "orders");
    alerts.clears("TelemetryDropping", &orders);
}
