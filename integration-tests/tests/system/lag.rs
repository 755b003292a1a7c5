//! Lag of the groups, as the exporter and `ordermesh status` show it when the services themselves are dead.

use std::process::Command;
use std::time::Duration;

use contracts::{Service, Topic};
use harness::eventually;
use harness::system::{System, free_port, order_of};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(15);

/// Samples of a metric of a process, whose labels contain all `parts`.
fn samples(system: &System, name: &str, metric: &str, parts: &[&str]) -> Vec<f64> {
    let metrics = system.metrics(name);
    let samples = metrics.lines().filter_map(|line| {
        let (labels, value) = line.strip_prefix(metric)?.rsplit_once(' ')?;
        let of_metric = labels.is_empty() || labels.starts_with('{');
        let is_meant = of_metric && parts.iter().all(|part| labels.contains(part));
        is_meant.then(|| value.parse().ok())?
    });
    samples.collect()
}

/// The sum over all partitions; `None` when there is no sample.
fn sum(system: &System, metric: &str, labels: &[&str]) -> Option<f64> {
    samples(system, "lag", metric, labels)
        .into_iter()
        .reduce(|one, other| one + other)
}

fn lag_is(system: &System, metric: &str, labels: &[&str], expected: f64) -> Option<()> {
    (sum(system, metric, labels) == Some(expected)).then_some(())
}

fn producer(system: &System) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", system.variable("ORDERMESH_KAFKA"));
    config
}

/// Writes a record that is not a command.
fn write_garbage(system: &System, producer: &BaseProducer, service: Service) {
    let topic = Topic::Commands.of(service, system.variable("ORDERMESH_PREFIX"));
    let record = BaseRecord::<[u8], [u8]>::to(&topic)
        .partition(0)
        .payload(b"garbage");
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(TIMEOUT).unwrap();
}

fn status_json(system: &System, arguments: &[&str]) -> Value {
    let unreachable = "127.0.0.1:1";
    let mut all = vec!["status", "--json"];
    all.extend(["--alertmanager", unreachable, "--prometheus", unreachable]);
    all.extend(arguments);
    serde_json::from_str(&system.run(&all)).unwrap()
}

fn entries<'a>(list: &'a Value, field: &str, value: &str) -> Vec<&'a Value> {
    let entries = list.as_array().unwrap().iter();
    entries.filter(|entry| entry[field] == value).collect()
}

#[test]
fn the_lag_of_a_dead_service_is_reported_until_it_is_back() {
    let mut system = System::new();
    system.set("ORDERMESH_LAG_EVERY_MS", "200");
    let names = ["orders", "inventory", "payments", "gateway", "lag"];
    for name in names {
        system.start(name);
    }
    for name in names {
        system.wait_until_ready(name);
    }
    system.stock("mug", 10);
    system.place(order_of(&[("mug", 1)])).unwrap();
    let payments = ["group=\"payments\""];
    eventually("the payment is requested and recorded", || {
        let asked = sum(
            &system,
            "ordermesh_lag_end_offset",
            &["\"payments.commands\""],
        )?;
        (asked > 0.0).then_some(())?;
        lag_is(&system, "ordermesh_lag_records", &payments, 0.0)
    });
    lag_is(&system, "ordermesh_lag_members", &["\"payments\""], 1.0).unwrap();
    lag_is(&system, "ordermesh_lag_broker_up", &[], 1.0).unwrap();
    lag_is(&system, "ordermesh_lag_dead_letters", &["orders"], 0.0).unwrap();

    let admins: Vec<_> = names
        .iter()
        .map(|name| system.admin(name).to_string())
        .collect();
    let dead = system.admin("payments").to_string();
    system.kill("payments");
    system.place(order_of(&[("mug", 1)])).unwrap();
    eventually(
        "the waiting records are reported, and their age grows",
        || {
            let records = sum(&system, "ordermesh_lag_records", &payments)?;
            let seconds = samples(&system, "lag", "ordermesh_lag_seconds", &payments);
            let oldest = seconds.into_iter().fold(0.0, f64::max);
            (records >= 1.0 && oldest > 1.0).then_some(())
        },
    );
    lag_is(&system, "ordermesh_lag_records", &["group=\"orders\""], 0.0).unwrap();

    let snapshot = status_json(&system, &["--admin", &admins.join(",")]);
    assert_eq!(entries(&snapshot["processes"], "state", "ready").len(), 4);
    let down = entries(&snapshot["processes"], "state", "down");
    assert_eq!(down[0]["admin"], dead.as_str());
    let groups = &snapshot["log"]["groups"];
    let behind = entries(groups, "service", "payments");
    let records = behind
        .iter()
        .filter_map(|share| share["lag_records"].as_i64());
    assert!(records.sum::<i64>() >= 1, "{behind:?}");
    assert_eq!(entries(groups, "service", "orders")[0]["owner"], "orders");
    assert_eq!(snapshot["alerts"]["by"], Value::Null);
    let text = system.run(&["status", "--admin", &dead]);
    assert!(text.contains("DOWN"), "{text}");

    // One record and one marker: offsets do not give the number of dead letters.
    write_garbage(
        &system,
        &producer(&system).create().unwrap(),
        Service::Orders,
    );
    eventually("the dead letter is counted", || {
        lag_is(&system, "ordermesh_lag_dead_letters", &["orders"], 1.0)
    });
    system.start_until_ready("payments");
    eventually("nothing waits any more", || {
        lag_is(&system, "ordermesh_lag_records", &payments, 0.0)?;
        lag_is(&system, "ordermesh_lag_seconds", &payments, 0.0)
    });
    // The exporter reads every group and joins none.
    lag_is(&system, "ordermesh_lag_members", &["\"payments\""], 1.0).unwrap();
    assert!(system.terminate("lag").success(), "it drains");
}

#[test]
fn an_open_transaction_is_reported_and_markers_are_not_counted() {
    let mut system = System::new();
    system.set("ORDERMESH_LAG_EVERY_MS", "200");
    system.start_until_ready("lag");
    let mut config = producer(&system);
    config.set(
        "transactional.id",
        format!("{}stuck", system.variable("ORDERMESH_PREFIX")),
    );
    let producer: BaseProducer = config.create().unwrap();
    producer.init_transactions(TIMEOUT).unwrap();
    producer.begin_transaction().unwrap();
    write_garbage(&system, &producer, Service::Shipping);
    let partition = ["partition=\"0\"", "\"shipping.commands\""];
    eventually("the partition is blocked", || {
        let held_up = sum(&system, "ordermesh_lag_unstable_seconds", &partition)?;
        let waits = sum(&system, "ordermesh_lag_seconds", &partition)?;
        (held_up > 0.5 && waits > 0.5).then_some(())
    });
    producer.abort_transaction(TIMEOUT).unwrap();
    eventually("the partition is no longer blocked", || {
        lag_is(&system, "ordermesh_lag_unstable_seconds", &partition, 0.0)?;
        lag_is(&system, "ordermesh_lag_end_offset", &partition, 2.0)
    });
    // Not processed, but no records.
    lag_is(&system, "ordermesh_lag_records", &partition, 2.0).unwrap();
    lag_is(&system, "ordermesh_lag_seconds", &partition, 0.0).unwrap();
}

#[test]
fn without_a_broker_lag_is_absent_instead_of_zero() {
    let mut system = System::new();
    let unreachable = free_port().to_string();
    system.start_as("lag", "lag", &[("ORDERMESH_KAFKA", unreachable.clone())]);
    eventually("the exporter has polled", || {
        lag_is(&system, "ordermesh_lag_broker_up", &[], 0.0)
    });
    assert_eq!(sum(&system, "ordermesh_lag_records", &[]), None);
    assert_eq!(sum(&system, "ordermesh_lag_members", &[]), None);
    system.wait_until_ready("lag");

    let admin = system.admin("lag").to_string();
    let snapshot = status_json(&system, &["--admin", &admin, "--kafka", &unreachable]);
    assert!(snapshot["log"]["failure"].is_string(), "{snapshot}");
    assert_eq!(snapshot["processes"][0]["state"], "ready");

    let mut watch = system.spawn("watch", &["status", "--watch", "--admin", &admin]);
    eventually("the status screen is drawn", || {
        system
            .log_tail("watch")
            .contains("Processes at")
            .then_some(())
    });
    let interrupted = Command::new("kill")
        .args(["-INT", &watch.id().to_string()])
        .status();
    assert!(interrupted.unwrap().success());
    let ended = eventually("the watch ends", || watch.try_wait().unwrap());
    assert!(ended.success(), "{ended}");
}
