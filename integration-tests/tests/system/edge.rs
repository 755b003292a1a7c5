//! Invalid requests of clients, and invalid records in the log.

use std::process::Command;
use std::time::Duration;

use contracts::orders::v1::{OrderLine, OrderStatus};
use contracts::{Service, Topic};
use harness::system::{System, order_of};
use harness::{eventually, servers};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use tonic::Code;
use uuid::Uuid;

#[test]
fn every_violation_is_named_and_nothing_is_written() {
    let mut system = System::new();
    system.start_until_ready("all");
    let mut request = order_of(&[("mug", 0), ("mug", 1)]);
    request.customer_id.clear();
    request.currency = "XXX1".into();
    request.lines[1].unit_price = -1;
    let order_id = request.order_id.clone();
    let status = system.place(request).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let details = String::from_utf8_lossy(status.details()).into_owned();
    for field in [
        "customer_id",
        "currency",
        "lines[0].quantity",
        "lines[1].unit_price",
        "lines[1].sku",
    ] {
        assert!(details.contains(field), "{field} is missing in {details:?}");
    }
    assert_eq!(
        system.order(&order_id, 0).unwrap_err().code(),
        Code::NotFound
    );

    let mut overflow = order_of(&[("mug", 1_000_000), ("pen", 1_000_000)]);
    for line in &mut overflow.lines {
        line.unit_price = 1_000_000_000_000;
        line.discount = 0;
    }
    let line = overflow.lines[0].clone();
    overflow.lines.extend((0..20).map(|n| OrderLine {
        sku: format!("more-{n}"),
        ..line.clone()
    }));
    assert_eq!(
        system.place(overflow).unwrap_err().code(),
        Code::InvalidArgument
    );

    let (code, body) = http(
        &system,
        &["-X", "POST", "-d", "{\"lines\": [{}]}", "/v1/orders"],
    );
    assert_eq!(code, "400", "{body}");
    assert!(
        body.contains("\"violations\"") && body.contains("customer_id"),
        "{body}"
    );
    let (code, body) = http(&system, &["-X", "POST", "-d", "not json", "/v1/orders"]);
    assert_eq!(code, "400", "{body}");
    let unknown = format!("/v1/orders/{}", Uuid::now_v7());
    assert_eq!(http(&system, &[&unknown]).0, "404");
    assert_eq!(http(&system, &["/v1/orders?status=lost"]).0, "400");
}

#[test]
fn an_order_goes_through_rest_as_well() {
    let mut system = System::new();
    system.start_until_ready("all");
    let (code, body) = http(
        &system,
        &[
            "-X",
            "POST",
            "-d",
            "{\"delta\": \"5\"}",
            "/v1/stock/mug/adjustments",
        ],
    );
    assert!(code.starts_with('2'), "{code} {body}");
    let id = Uuid::now_v7().to_string();
    let order = "{\"customerId\":\"ada\",\"currency\":\"EUR\",\"contact\":{\"address\":{\"name\":\"Ada\",\
        \"street\":\"1\",\"postalCode\":\"1\",\"city\":\"Berlin\",\"country\":\"DE\"}},\
        \"lines\":[{\"sku\":\"mug\",\"quantity\":1,\"unitPrice\":\"100\"}]}";
    let key = format!("Idempotency-Key: {id}");
    let (code, body) = http(
        &system,
        &["-X", "POST", "-H", &key, "-d", order, "/v1/orders"],
    );
    assert_eq!(code, "201", "{body}");
    assert!(body.contains(&id), "{body}");
    system.wait_for_status(&id, OrderStatus::Delivered);
    let (code, body) = http(&system, &[&format!("/v1/orders/{id}")]);
    assert_eq!(code, "200");
    assert!(body.contains("ORDER_STATUS_DELIVERED"), "{body}");
    assert!(
        http(&system, &[&format!("/v1/orders/{id}/history")])
            .1
            .contains("orderShipped")
    );
    assert!(
        http(&system, &["/v1/orders?status=delivered"])
            .1
            .contains(&id)
    );
    assert!(
        http(&system, &["/v1/stock/mug"])
            .1
            .contains("\"deducted\":\"1\"")
    );
}

#[test]
fn malformed_records_become_dead_letters_once_and_block_nothing() {
    let mut system = System::new();
    system.start_until_ready("all");
    system.stock("mug", 100);
    let topic = Topic::Commands.of(Service::Orders, &prefix(&system));
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", servers::variable(servers::env::KAFKA))
        .create()
        .expect("a producer");
    let key = Uuid::now_v7().to_string();
    let garbage: [(Option<&str>, Option<&[u8]>); 4] = [
        (Some(&key), Some(b"\x01garbage")),
        (Some(&key), Some(b"")),
        (None, Some(b"\x00\x00\x00\x00\x01\x00garbage")),
        (Some("not an order"), None),
    ];
    for (key, payload) in garbage {
        let mut record = BaseRecord::<str, [u8]>::to(&topic).partition(0);
        if let Some(key) = key {
            record = record.key(key);
        }
        if let Some(payload) = payload {
            record = record.payload(payload);
        }
        producer
            .send(record)
            .map_err(|(error, _)| error)
            .expect("it is sent");
    }
    producer
        .flush(Duration::from_secs(10))
        .expect("it is written");

    let placed: Vec<_> = (0..8)
        .map(|_| system.place(order_of(&[("mug", 1)])).unwrap().order_id)
        .collect();
    for order_id in &placed {
        system.wait_for_status(order_id, OrderStatus::Delivered);
    }
    let found = eventually("the dead letters are there", || {
        Some(dead_letters(&system)).filter(|found| *found >= 4)
    });
    assert_eq!(found, 4);

    // After a take-over they do not become dead letters again.
    system.kill("all");
    system.start_until_ready("all");
    let placed = system.place(order_of(&[("mug", 1)])).unwrap();
    system.wait_for_status(&placed.order_id, OrderStatus::Delivered);
    assert_eq!(dead_letters(&system), 4);
    system.audit_at_rest(None);
}

fn dead_letters(system: &System) -> usize {
    let topic = Topic::Dlq.of(Service::Orders, &prefix(system));
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers::variable(servers::env::KAFKA))
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    let mut list = rdkafka::TopicPartitionList::new();
    let mut left = 0;
    for partition in 0..4 {
        let (low, high) = consumer
            .fetch_watermarks(&topic, partition, Duration::from_secs(10))
            .expect("ends");
        if high > low {
            list.add_partition_offset(&topic, partition, rdkafka::Offset::Beginning)
                .expect("new");
            left += 1;
        }
    }
    if left == 0 {
        return 0;
    }
    consumer.assign(&list).expect("it can be assigned");
    let mut found = 0;
    // Markers after the last record are never delivered: reading ends when no more records arrive.
    while let Some(message) = consumer.poll(Duration::from_secs(2)) {
        message.expect("it can be read");
        found += 1;
    }
    found
}

fn prefix(system: &System) -> String {
    system.variable("ORDERMESH_PREFIX").to_owned()
}

/// Status code and body of a request to the public port; the last argument is the path.
fn http(system: &System, arguments: &[&str]) -> (String, String) {
    let (path, options) = arguments.split_last().expect("a path");
    let url = format!("http://{}{path}", system.public);
    let output = Command::new("curl")
        .args([
            "-s",
            "-m",
            "15",
            "-w",
            "\n%{http_code}",
            "-H",
            "content-type: application/json",
        ])
        .args(options)
        .arg(&url)
        .output()
        .expect("curl can be run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, code) = text.rsplit_once('\n').expect("a status code");
    (code.to_owned(), body.to_owned())
}
