//! Alerts of the project's processes and of the monitoring processes.

use harness::system::free_port;

use super::{monitored_long, place, start};

#[test]
fn a_process_that_never_becomes_ready_raises_an_alert() {
    let Some((mut system, alerts)) = monitored_long(20) else {
        return;
    };
    // The process waits for a broker at an address without one.
    let nowhere = [("ORDERMESH_KAFKA", free_port().to_string())];
    system.start_as("payments-2", "payments", &nowhere);
    alerts.scrape_processes(&system);
    let stopped = [("component", "parts"), ("instance", "payments-2:9464")];
    alerts.wait_until_firing("WorkerStopped", &stopped);
    system.kill("payments-2");
    system.start_as("payments-2", "payments", &[]);
    system.wait_until_ready("payments-2");
    alerts.scrape_processes(&system);
    alerts.wait_until_resolved("WorkerStopped", &stopped);
}

#[test]
fn a_crash_looping_process_raises_an_alert() {
    let Some((mut system, alerts)) = monitored_long(30) else {
        return;
    };
    for _ in 0..4 {
        system.kill("payments");
        start(&mut system, &alerts, "payments");
        // Each restart has to be scraped.
        let begun = "process_start_time_seconds{instance=\"payments:9464\"}";
        let started = system.metric("payments", "process_start_time_seconds ");
        harness::eventually("prometheus sees the new process", || {
            let samples = alerts.prometheus().query(begun).unwrap();
            samples
                .iter()
                .any(|sample| Some(sample.value) == started)
                .then_some(())
        });
    }
    let payments = [("instance", "payments:9464")];
    alerts.wait_until_firing("CrashLooping", &payments);
    alerts.wait_until_resolved("CrashLooping", &payments);
}

#[test]
fn a_missing_monitoring_process_raises_an_alert() {
    let Some((system, alerts)) = monitored_long(20) else {
        return;
    };
    let collector = [("job", "collector"), ("instance", "collector:8888")];
    let scrape = |address| {
        let target = ("collector:8888".to_owned(), address);
        alerts.prometheus().scrape("collector", &[target]);
    };
    scrape(free_port());
    let notification = alerts.wait_until_firing("TargetDown", &collector);
    assert_eq!(notification.receiver, "tickets");
    // Another server answers at its address.
    scrape(system.admin("sandbox"));
    alerts.wait_until_resolved("TargetDown", &collector);
}

#[test]
fn undelivered_spans_raise_an_alert() {
    let Some((mut system, alerts)) = monitored_long(20) else {
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
    system.wait_until_ready("orders");
    alerts.scrape_processes(&system);
    let orders = [("instance", "orders:9464")];
    harness::eventually("spans are lost for long enough", || {
        place(&system);
        alerts.is_firing("TelemetryDropping", &orders).then_some(())
    });
    system.kill("orders");
    start(&mut system, &alerts, "orders");
    alerts.wait_until_resolved("TelemetryDropping", &orders);
}
