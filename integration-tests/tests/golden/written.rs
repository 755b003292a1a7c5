//! Data that a running system writes: records with their keys, headers and ids, the ledgers, the journal of the load
//! generator, and the report of the audit.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::Duration;

use contracts::orders::v1::OrderStatus;
use contracts::orders::v1::{OrderCommand, OrderEvent};
use contracts::{Record as _, Service, Topic};
use flate2::Compression;
use flate2::write::GzEncoder;
use harness::eventually;
use harness::system::{System, order_of};
use prost::Message as _;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use regex::Regex;
use serde_json::Value;
use uuid::Uuid;

use super::assert_golden;

/// One order, and one basket whose only line the API rejects.
const BASKETS: &str = "\
basket_id,placed_at,customer_id,sku,description,quantity,amount_cents
1,2017-01-01T11:53:26Z,900,mug,A MUG,1,50
2,2017-01-01T12:10:28Z,900,tea,TEA,0,99
";

#[test]
fn written_data_is_unchanged() {
    let mut system = System::new();
    system.start_until_ready("all");
    system.stock("mug", 10);
    load(&system);
    let order = order_of(&[("mug", 1)]);
    let order_id = order.order_id.clone();
    system.place(order).unwrap();
    system.wait_for_status(&order_id, OrderStatus::Delivered);

    eventually("a checkpoint is written", || {
        let records = read(&system, Service::Orders, Topic::State)?;
        records
            .iter()
            .any(|record| record.key == "checkpoint")
            .then_some(())
    });
    let mut lines = BTreeSet::new();
    for service in Service::ALL {
        for topic in Topic::ALL {
            let records = eventually("the topic can be read", || read(&system, service, topic));
            for record in &records {
                lines.insert(format!(
                    "{}.{} key {} headers {}",
                    service.name(),
                    topic.name(),
                    shape(&record.key),
                    record.headers.join(",")
                ));
            }
        }
    }
    assert_golden("records.txt", &text(lines));

    assert_derived_ids(&system);

    let mut lines = BTreeSet::new();
    let folder = system.path("ledger");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let content = std::fs::read_to_string(&path).unwrap();
        for line in content.lines() {
            describe(&mut lines, &name, &serde_json::from_str(line).unwrap());
        }
    }
    assert_golden("ledgers.txt", &text(lines));

    let report: Value = serde_json::from_str(&system.run(&["audit", "--json"])).unwrap();
    let mut lines = BTreeSet::new();
    describe(&mut lines, "report", &report);
    for finding in report["findings"].as_array().unwrap() {
        lines.insert(format!("invariant {}", finding["id"].as_str().unwrap()));
    }
    assert_golden("audit.txt", &text(lines));

    assert_golden("json.txt", &text(json_fields(&system, &order_id)));
}

/// The names of the fields that commands print with `--json`. Which of them are there at the moment may differ in
/// `status`, whose rates depend on time: beside its groups only the sections are listed.
fn json_fields(system: &System, order_id: &str) -> BTreeSet<String> {
    let admin = system.admin("all").to_string();
    let [baskets, journal, report] =
        ["baskets.csv.gz", "journal", "report.csv"].map(|name| system.path(name));
    let mut fields = BTreeSet::new();
    for (name, arguments) in [
        ("order explain", vec!["order", "explain", order_id]),
        ("order get", vec!["order", "get", order_id]),
        ("order list", vec!["order", "list"]),
        (
            "order place",
            vec![
                "order",
                "place",
                "--customer",
                "ada",
                "--line",
                "mug:1:1250",
            ],
        ),
        ("order watch", vec!["order", "watch", order_id]),
        ("stock adjust", vec!["stock", "adjust", "tea", "5"]),
        ("stock get", vec!["stock", "get", "mug"]),
        (
            "load",
            vec![
                "load",
                "--file",
                &baskets,
                "--journal",
                &journal,
                "--report",
                &report,
                "--verify",
                "60",
            ],
        ),
        ("sandbox ledger", vec!["sandbox", "ledger", "payments"]),
        ("sandbox faults", vec!["sandbox", "faults"]),
        (
            "events tail",
            vec!["events", "tail", "--from-beginning", "--no-follow"],
        ),
        ("topics apply", vec!["topics", "apply"]),
        ("doctor", vec!["doctor", "--admin", &admin]),
        ("status", vec!["status", "--admin", &admin]),
    ] {
        let output = system.try_run(&[&arguments[..], &["--json"]].concat());
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(printed.starts_with('{'), "{name}: {printed}");
        for line in printed.lines() {
            let mut described = BTreeSet::new();
            describe(&mut described, name, &serde_json::from_str(line).unwrap());
            for field in described {
                let path = field.split(':').next().unwrap().to_owned();
                let has_rates = name == "status" && !path.starts_with("status.log.groups");
                let depth = if has_rates { 3 } else { usize::MAX };
                let path: Vec<_> = path.split('.').take(depth).collect();
                fields.insert(path.join("."));
            }
        }
    }
    fields
}

/// Loads the baskets and checks the journal.
fn load(system: &System) {
    let [file, journal] = ["baskets.csv.gz", "journal"].map(|name| system.path(name));
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(BASKETS.as_bytes()).unwrap();
    std::fs::write(&file, gzip.finish().unwrap()).unwrap();
    system.try_run(&[
        "load",
        "--file",
        &file,
        "--journal",
        &journal,
        "--report",
        &system.path("report.csv"),
    ]);
    let mut lines = BTreeSet::new();
    for line in std::fs::read_to_string(&journal).unwrap().lines() {
        let fact: Value = serde_json::from_str(line).unwrap();
        let kind = fact["fact"].as_str().unwrap().to_owned();
        describe(&mut lines, &kind, &fact);
    }
    assert_golden("journal.txt", &text(lines));
}

/// Asserts that the id of an event is UUIDv5(command, index), and that of a message UUIDv5(event, index).
fn assert_derived_ids(system: &System) {
    let child_of = |parent: &str, id: &str| {
        let parent = Uuid::parse_str(parent).unwrap();
        (0..16)
            .any(|index: u32| Uuid::new_v5(&parent, index.to_string().as_bytes()).to_string() == id)
    };
    let mut count = 0;
    for record in read(system, Service::Orders, Topic::Events).unwrap() {
        let framed = registry::unframe(&record.payload).unwrap();
        let (metadata, _) = OrderEvent::decode(framed.payload)
            .unwrap()
            .into_parts()
            .unwrap();
        assert!(
            child_of(&metadata.causation_id, &metadata.id),
            "{metadata:?}"
        );
        count += 1;
    }
    let mut answers = 0;
    for record in read(system, Service::Orders, Topic::Commands).unwrap() {
        let framed = registry::unframe(&record.payload).unwrap();
        let (metadata, _) = OrderCommand::decode(framed.payload)
            .unwrap()
            .into_parts()
            .unwrap();
        if Service::ALL
            .iter()
            .any(|service| service.name() == metadata.actor)
            && metadata.actor != "orders"
        {
            assert!(
                child_of(&metadata.causation_id, &metadata.id),
                "{metadata:?}"
            );
            answers += 1;
        }
    }
    assert!(
        count >= 4 && answers >= 3,
        "{count} events, {answers} answers"
    );
}

struct DecodedRecord {
    key: String,
    headers: Vec<String>,
    payload: Vec<u8>,
}

/// All committed records of a topic; `None` when the broker answers too late.
fn read(system: &System, service: Service, topic: Topic) -> Option<Vec<DecodedRecord>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", system.variable("ORDERMESH_KAFKA"))
        .set("group.id", "golden")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .create()
        .unwrap();
    let name = topic.of(service, system.variable("ORDERMESH_PREFIX"));
    let mut list = TopicPartitionList::new();
    for partition in 0..4 {
        list.add_partition_offset(&name, partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&list).unwrap();
    let mut records = Vec::new();
    let mut ended = 0;
    while ended < 4 {
        match consumer.poll(Duration::from_secs(10))? {
            Ok(message) => {
                let headers = message.headers();
                let mut names: Vec<_> = headers
                    .iter()
                    .flat_map(|headers| headers.iter())
                    .map(|header| header.key.to_owned())
                    .collect();
                names.sort();
                records.push(DecodedRecord {
                    key: String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned(),
                    headers: names,
                    payload: message.payload().unwrap_or_default().to_vec(),
                });
            }
            Err(KafkaError::PartitionEOF(_)) => ended += 1,
            Err(_) => return None,
        }
    }
    Some(records)
}

/// A key without the parts that differ in each run.
fn shape(key: &str) -> String {
    let id = Regex::new("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").unwrap();
    id.replace_all(key, "<uuid>").into_owned()
}

/// Adds names and types of the fields of a JSON value.
fn describe(lines: &mut BTreeSet<String>, path: &str, value: &Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                describe(lines, &format!("{path}.{name}"), value);
            }
        }
        Value::Array(values) => {
            for value in values {
                describe(lines, &format!("{path}[]"), value);
            }
        }
        Value::String(_) => drop(lines.insert(format!("{path}: string"))),
        Value::Number(_) => drop(lines.insert(format!("{path}: number"))),
        Value::Bool(_) => drop(lines.insert(format!("{path}: bool"))),
        Value::Null => drop(lines.insert(format!("{path}: null"))),
    }
}

fn text(lines: BTreeSet<String>) -> String {
    lines.into_iter().map(|line| line + "\n").collect()
}
