//! How far groups lie behind, seen by the exporter and on the screen, when those who would say so are dead.

use std::process::Command;
use std::time::Duration;

use contracts::{Service, Topic};
use harness::eventually;
use harness::system::{System, free_port, order_of};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(15);

/// The figures of a metric of the exporter, with these words in their labels.
fn figures(system: &System, name: &str, metric: &str, words: &[&str]) -> Vec<f64> {
    let metrics = system.metrics(name);
    let figures = metrics.lines().filter_map(|line| {
        let (labels, value) = line.strip_prefix(metric)?.rsplit_once(' ')?;
        let of_metric = labels.is_empty() || labels.starts_with('{');
        let is_meant = of_metric && words.iter().all(|word| labels.contains(word));
        is_meant.then(|| value.parse().ok())?
    });
    figures.collect()
}

/// The sum over all partitions; `None` when nothing is told.
fn sum(system: &System, metric: &str, words: &[&str]) -> Option<f64> {
    figures(system, "lag", metric, words)
        .into_iter()
        .reduce(|one, other| one + other)
}

fn is(system: &System, metric: &str, words: &[&str], expected: f64) -> Option<()> {
    (sum(system, metric, words) == Some(expected)).then_some(())
}

fn producer(system: &System) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", system.variable("ORDERMESH_KAFKA"));
    config
}

/// Writes something that is no command.
fn write_garbage(system: &System, producer: &BaseProducer, service: Service) {
    let topic = Topic::Commands.of(service, system.variable("ORDERMESH_PREFIX"));
    let record = BaseRecord::<[u8], [u8]>::to(&topic)
        .partition(0)
        .payload(b"garbage");
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(TIMEOUT).unwrap();
}

fn shown(system: &System, arguments: &[&str]) -> Value {
    let nobody = "127.0.0.1:1";
    let mut all = vec!["status", "--json"];
    all.extend(["--alertmanager", nobody, "--prometheus", nobody]);
    all.extend(arguments);
    serde_json::from_str(&system.run(&all)).unwrap()
}

fn entries<'a>(list: &'a Value, field: &str, value: &str) -> Vec<&'a Value> {
    let entries = list.as_array().unwrap().iter();
    entries.filter(|entry| entry[field] == value).collect()
}

#[test]
fn what_a_dead_service_leaves_undone_is_seen_until_it_is_back() {
    let mut system = System::new();
    system.set("ORDERMESH_LAG_EVERY_MS", "200");
    let names = ["orders", "inventory", "payments", "gateway", "lag"];
    for name in names {
        system.start(name);
    }
    for name in names {
        system.ready(name);
    }
    system.stock("mug", 10);
    system.place(order_of(&[("mug", 1)])).unwrap();
    let payments = ["group=\"payments\""];
    eventually("the payment is asked for and noted", || {
        let asked = sum(
            &system,
            "ordermesh_lag_end_offset",
            &["\"payments.commands\""],
        )?;
        (asked > 0.0).then_some(())?;
        is(&system, "ordermesh_lag_records", &payments, 0.0)
    });
    is(&system, "ordermesh_lag_members", &["\"payments\""], 1.0).unwrap();
    is(&system, "ordermesh_lag_broker_up", &[], 1.0).unwrap();
    is(&system, "ordermesh_lag_dead_letters", &["orders"], 0.0).unwrap();

    let admins: Vec<_> = names
        .iter()
        .map(|name| system.admin(name).to_string())
        .collect();
    let dead = system.admin("payments").to_string();
    system.kill("payments");
    system.place(order_of(&[("mug", 1)])).unwrap();
    eventually("what waits for the dead is seen, and grows old", || {
        let records = sum(&system, "ordermesh_lag_records", &payments)?;
        let seconds = figures(&system, "lag", "ordermesh_lag_seconds", &payments);
        let oldest = seconds.into_iter().fold(0.0, f64::max);
        (records >= 1.0 && oldest > 1.0).then_some(())
    });
    is(&system, "ordermesh_lag_records", &["group=\"orders\""], 0.0).unwrap();

    let picture = shown(&system, &["--admin", &admins.join(",")]);
    assert_eq!(entries(&picture["processes"], "state", "ready").len(), 4);
    let down = entries(&picture["processes"], "state", "down");
    assert_eq!(down[0]["admin"], dead.as_str());
    let groups = &picture["log"]["groups"];
    let behind = entries(groups, "service", "payments");
    let records = behind
        .iter()
        .filter_map(|share| share["lag_records"].as_i64());
    assert!(records.sum::<i64>() >= 1, "{behind:?}");
    assert_eq!(entries(groups, "service", "orders")[0]["owner"], "orders");
    assert_eq!(picture["alerts"]["by"], Value::Null);
    let text = system.run(&["status", "--admin", &dead]);
    assert!(text.contains("DOWN"), "{text}");

    // One record and one marker: offsets do not tell how many letters there are.
    write_garbage(
        &system,
        &producer(&system).create().unwrap(),
        Service::Orders,
    );
    eventually("the dead letter is counted", || {
        is(&system, "ordermesh_lag_dead_letters", &["orders"], 1.0)
    });
    system.up("payments");
    eventually("nothing waits any more", || {
        is(&system, "ordermesh_lag_records", &payments, 0.0)?;
        is(&system, "ordermesh_lag_seconds", &payments, 0.0)
    });
    // It looks into every group, and is in none.
    is(&system, "ordermesh_lag_members", &["\"payments\""], 1.0).unwrap();
    assert!(system.terminate("lag").success(), "it drains");
}

#[test]
fn a_transaction_that_does_not_end_is_seen_and_markers_are_no_records() {
    let mut system = System::new();
    system.set("ORDERMESH_LAG_EVERY_MS", "200");
    system.up("lag");
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
    eventually("the partition is held up", || {
        let held_up = sum(&system, "ordermesh_lag_unstable_seconds", &partition)?;
        let waits = sum(&system, "ordermesh_lag_seconds", &partition)?;
        (held_up > 0.5 && waits > 0.5).then_some(())
    });
    producer.abort_transaction(TIMEOUT).unwrap();
    eventually("it is held up no more", || {
        is(&system, "ordermesh_lag_unstable_seconds", &partition, 0.0)?;
        is(&system, "ordermesh_lag_end_offset", &partition, 2.0)
    });
    // Nobody has passed them, but they are no work.
    is(&system, "ordermesh_lag_records", &partition, 2.0).unwrap();
    is(&system, "ordermesh_lag_seconds", &partition, 0.0).unwrap();
}

#[test]
fn without_a_broker_no_lag_is_told_rather_than_none() {
    let mut system = System::new();
    let nobody = free_port().to_string();
    system.start_as("lag", "lag", &[("ORDERMESH_KAFKA", nobody.clone())]);
    eventually("it has looked", || {
        is(&system, "ordermesh_lag_broker_up", &[], 0.0)
    });
    assert_eq!(sum(&system, "ordermesh_lag_records", &[]), None);
    assert_eq!(sum(&system, "ordermesh_lag_members", &[]), None);
    system.ready("lag");

    let admin = system.admin("lag").to_string();
    let picture = shown(&system, &["--admin", &admin, "--kafka", &nobody]);
    assert!(picture["log"]["failure"].is_string(), "{picture}");
    assert_eq!(picture["processes"][0]["state"], "ready");

    let mut watch = system.spawn("watch", &["status", "--watch", "--admin", &admin]);
    eventually("it has drawn", || {
        system.tail("watch").contains("Processes at").then_some(())
    });
    let interrupted = Command::new("kill")
        .args(["-INT", &watch.id().to_string()])
        .status();
    assert!(interrupted.unwrap().success());
    let ended = eventually("the watch ends", || watch.try_wait().unwrap());
    assert!(ended.success(), "{ended}");
}
