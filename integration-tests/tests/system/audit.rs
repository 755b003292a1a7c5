//! The auditor on the running system: clean under load and at rest, violated after manual changes, and explicit about
//! what it could not check.

use std::process::{Command, Output};
use std::time::Duration;

use contracts::{Service, Topic};
use harness::eventually;
use harness::system::{System, order_of};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;

use harness::basket_load::{load, verify, wait_for_acknowledged, wait_for_load};

const TIMEOUT: Duration = Duration::from_secs(15);

#[test]
fn an_audit_is_clean_under_load_and_at_rest_and_finds_manual_changes() {
    let mut system = System::new();
    system.set("ORDERMESH_SANDBOX_DECLINE_PERCENT", "5");
    system.start_until_ready("all");
    let mut load = load(&system);
    wait_for_acknowledged(&system, 200);
    let during = audit(&system, &["--json"]);
    assert_eq!(during.status.code(), Some(0), "{}", output_text(&during));
    system.kill("all");
    system.start_until_ready("all");
    wait_for_load(&system, &mut load);

    let journal = system.path("journal");
    let at_rest = eventually("everything is at rest", || {
        let output = audit(&system, &["--json", "--journal", &journal]);
        assert_eq!(output.status.code(), Some(0), "{}", output_text(&output));
        let report = report(&output);
        (report["at_rest"] == true).then_some(report)
    });
    for finding in at_rest["findings"].as_array().unwrap() {
        assert!(finding["checked"].as_u64() > Some(0), "{finding}");
    }

    // The load generator compares totals with the accepted lines.
    let verified = verify(&system, 0);
    assert!(verified.status.success(), "{}", output_text(&verified));
    let change = "UPDATE read_v1.orders SET total = total + 1
        WHERE order_id = (SELECT min(order_id::text)::uuid FROM read_v1.orders)";
    psql(&system, change);
    let verified = verify(&system, 0);
    let text = output_text(&verified);
    assert_eq!(verified.status.code(), Some(1), "{text}");
    assert!(
        text.contains("✗ money") && text.contains(" USD instead of "),
        "{text}"
    );
    psql(&system, &change.replace("+ 1", "- 1"));

    // The ledger entry of a payment: the orders that are compared with it are unchanged.
    let change = "UPDATE read_v1.payments SET amount = amount + 1
        WHERE order_id = (SELECT min(order_id::text)::uuid FROM read_v1.payments)";
    psql(&system, change);
    violates(&system, &["I8"]);
    assert_eq!(system.run_unread(&["audit"]).code(), Some(1));
    psql(&system, &change.replace("+ 1", "- 1"));
    assert_eq!(system.run_unread(&["audit"]).code(), Some(0));
    let mended = audit(&system, &[]);
    assert_eq!(mended.status.code(), Some(0), "{}", output_text(&mended));

    write(&system, "by hand");
    violates(&system, &["I12", "I16"]);
}

#[test]
fn an_unreachable_server_is_one_clear_error() {
    let mut system = System::new();
    system.start_until_ready("all");
    system.stock("mug", 1);
    let unreachable = "127.0.0.1:1";
    for (flag, address) in [
        ("--kafka", unreachable.to_owned()),
        ("--registry", format!("http://{unreachable}")),
        (
            "--database",
            format!("postgres://ordermesh@{unreachable}/none"),
        ),
        ("--sandbox", unreachable.to_owned()),
        // Another number of partitions than the topics have.
        ("--partitions", "3".to_owned()),
        // Another log, without these topics.
        ("--prefix", "nothing.".to_owned()),
        ("--journal", "of-nobody".to_owned()),
    ] {
        let output = audit(&system, &[flag, &address]);
        let text = output_text(&output);
        assert_eq!(output.status.code(), Some(2), "{flag}: {text}");
        let errors = text
            .lines()
            .filter(|line| line.starts_with("error: not checked: "));
        assert_eq!(errors.count(), 1, "{flag}: {text}");
    }
}

#[test]
fn a_read_model_of_another_log_is_not_audited() {
    let mut system = System::new();
    system.start_until_ready("all");
    system.stock("mug", 10);
    let order = order_of(&[("mug", 1)]);
    system.place(order.clone()).unwrap();
    system.wait_for_status(
        &order.order_id,
        contracts::orders::v1::OrderStatus::Delivered,
    );
    let forward = "UPDATE read_v1.positions SET next_offset = next_offset + 1000";
    psql(&system, forward);
    let output = audit(&system, &[]);
    let text = output_text(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("that of another log"), "{text}");
}

#[test]
fn an_audit_waits_for_an_offset_that_is_about_to_move() {
    let mut system = System::new();
    system.start_until_ready("all");
    system.stock("mug", 1);
    assert!(system.terminate("all").success());
    system.start_until_ready("sandbox");
    let client = |name: &str, value: &str| {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", system.variable("ORDERMESH_KAFKA"))
            .set(name, value);
        config
    };
    let prefix = system.variable("ORDERMESH_PREFIX");
    let group = format!("{prefix}{}", Service::Orders.name());
    let consumer: BaseConsumer = client("group.id", &group).create().unwrap();
    let producer: BaseProducer = client("transactional.id", &format!("{prefix}by-hand"))
        .set("transaction.timeout.ms", "5000")
        .create()
        .unwrap();
    producer.init_transactions(TIMEOUT).unwrap();
    producer.begin_transaction().unwrap();
    let topic = Topic::Commands.of(Service::Orders, prefix);
    let mut offsets = TopicPartitionList::new();
    offsets
        .add_partition_offset(&topic, 0, Offset::Offset(0))
        .unwrap();
    let metadata = consumer.group_metadata().unwrap();
    producer
        .send_offsets_to_transaction(&offsets, &metadata, TIMEOUT)
        .unwrap();

    let output = audit(&system, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", output_text(&output));
    producer
        .commit_transaction(TIMEOUT)
        .expect_err("the broker has given it up meanwhile");
}

#[test]
fn the_auditor_continues_and_reports_its_findings() {
    let mut system = System::new();
    system.set("ORDERMESH_AUDIT_EVERY_MS", "200");
    system.start_until_ready("all");
    system.start_until_ready("auditor");
    system.stock("mug", 10);
    let of = |name: &str| system.metric("auditor", name);
    let clean = "ordermesh_audit_runs_total{result=\"clean\"}";
    let stock = "ordermesh_audit_violations{invariant=\"I8\"}";
    eventually("an audit is clean", || {
        (of(clean) > Some(0.0) && of(stock) == Some(0.0)).then_some(())
    });
    psql(&system, "UPDATE read_v1.stock SET received = received + 1");
    eventually("the change is found", || {
        (of(stock) > Some(0.0)).then_some(())
    });
    psql(&system, "UPDATE read_v1.stock SET received = received - 1");
    eventually("it is mended", || (of(stock) == Some(0.0)).then_some(()));
    assert!(system.terminate("auditor").success(), "it drains");
}

fn audit(system: &System, arguments: &[&str]) -> Output {
    let all: Vec<_> = std::iter::once("audit")
        .chain(arguments.iter().copied())
        .collect();
    system.try_run(&all)
}

fn output_text(output: &Output) -> String {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Asserts that the audit fails and names these invariants.
fn violates(system: &System, named: &[&str]) {
    let output = audit(system, &["--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", output_text(&output));
    let report = report(&output);
    let findings = report["findings"].as_array().unwrap().iter();
    let violated: Vec<_> = findings
        .filter(|finding| finding["violated"].as_u64() > Some(0))
        .map(|finding| finding["id"].as_str().unwrap())
        .collect();
    for name in named {
        assert!(violated.contains(name), "{name} is not among {violated:?}");
    }
    let text = output_text(&audit(system, &[]));
    for name in named {
        assert!(text.contains(&format!("✗ {name} ")), "{text}");
    }
}

fn psql(system: &System, statement: &str) {
    let done = Command::new("psql")
        .args(["-q", "-X", "-v", "ON_ERROR_STOP=1", "-c", statement])
        .arg(system.variable("ORDERMESH_DATABASE"))
        .status()
        .unwrap();
    assert!(done.success(), "{statement}");
}

/// Writes a record to the orders' events that no processor wrote.
fn write(system: &System, payload: &str) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", system.variable("ORDERMESH_KAFKA"))
        .create()
        .unwrap();
    let topic = Topic::Events.of(Service::Orders, system.variable("ORDERMESH_PREFIX"));
    let record = BaseRecord::<str, str>::to(&topic)
        .partition(0)
        .payload(payload);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(TIMEOUT).unwrap();
}
