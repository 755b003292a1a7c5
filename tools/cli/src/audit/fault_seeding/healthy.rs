//! A healthy platform, run on real servers: every final status, a restart, an order in progress when its service is
//! killed, an aborted transaction.

use audit::{InMemoryEvidence, TopicPartition};
use auditor::SystemEvidence;
use chassis::config;
use contracts::orders::v1::OrderStatus;
use contracts::{Service, Topic};
use engine::Cluster;
use engine::log::kafka::settings;
use harness::eventually;
use harness::system::{System as Platform, free_port, order_of};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::audit::Args;
use crate::system_audit::{ServiceRuleBooks, report_text, rule_books, sources};

const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(20);

/// The evidence of a healthy platform, and its rule books.
pub fn record_evidence() -> (InMemoryEvidence, ServiceRuleBooks) {
    let mut platform = Platform::new();
    platform.set("ORDERMESH_ADMIN", free_port().to_string());
    let folder = platform.path("demo");
    platform.run(&["demo", "--baskets", "25", "--folder", &folder]);
    platform.start_until_ready("all");
    platform.stock("MUG", 5);
    platform.stock("MUG", 7);
    platform.stock("PEN", 9);
    let args = arguments(&platform);
    write_aborted_transaction(&args);
    let placed = [
        order_of(&[("MUG", 1), ("PEN", 2)]),
        order_of(&[("PEN", 1)]),
        order_of(&[("MUG", 100)]),
    ];
    let final_statuses = [
        OrderStatus::Delivered,
        OrderStatus::Delivered,
        OrderStatus::Rejected,
    ];
    for order in &placed {
        platform.place(order.clone()).expect("it is taken");
    }
    platform.kill("all");
    platform.start_until_ready("all");
    for (order, status) in placed.iter().zip(final_statuses) {
        platform.wait_for_status(&order.order_id, status);
    }
    // A repeated order is accepted; the same id with another body is refused.
    platform
        .place(placed[0].clone())
        .expect("a repetition is answered");
    let mut other = placed[0].clone();
    other.lines[0].quantity += 1;
    platform.place(other).expect_err("the id is taken");
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let recorded = eventually("everything is at rest", || {
        runtime.block_on(async {
            let system = SystemEvidence::open(&sources(&args.stack, &args.sandbox), None)
                .await
                .expect("everything answers");
            let rule_books = rule_books(&system, args.order_times, args.payment_times);
            tokio::task::spawn(async {})
                .await
                .expect("the runtime runs");
            let evidence = tokio::task::block_in_place(|| InMemoryEvidence::copy(&system))
                .expect("it can be read");
            let report = audit::audit(&evidence, &rule_books).expect("it can be checked");
            assert!(report.is_clean(), "{}", report_text(&report));
            report.at_rest.then_some((evidence, rule_books))
        })
    });
    assert!(platform.terminate("all").success());
    recorded
}

/// The arguments of an audit of the platform.
fn arguments(platform: &Platform) -> Args {
    let mut arguments = vec!["audit"];
    for (flag, variable) in [
        ("--kafka", "ORDERMESH_KAFKA"),
        ("--prefix", "ORDERMESH_PREFIX"),
        ("--registry", "ORDERMESH_REGISTRY"),
        ("--database", "ORDERMESH_DATABASE"),
        ("--sandbox", "ORDERMESH_SANDBOX"),
    ] {
        arguments.extend([flag, platform.variable(variable)]);
    }
    match config::parse::<AuditCommand>(arguments) {
        Ok(command) => command.args,
        Err(invalid) => panic!("{}", invalid.message),
    }
}

/// The command `audit` alone.
#[derive(clap::Parser)]
struct AuditCommand {
    #[command(flatten)]
    args: Args,
}

/// Writes a record to every partition of the order events, and aborts the transaction.
fn write_aborted_transaction(args: &Args) {
    let cluster: Cluster = platform_client::cluster(&args.stack.kafka);
    let id = format!("{}aborter", cluster.prefix);
    let producer: BaseProducer = settings::transactional_producer(&cluster, &id)
        .create()
        .expect("the settings are valid");
    producer
        .init_transactions(TIMEOUT)
        .expect("the broker answers");
    producer.begin_transaction().expect("it has just been made");
    let topic_partition = TopicPartition::new(Service::Orders, Topic::Events, 0);
    let topic = cluster.topic(topic_partition.service, topic_partition.topic);
    for partition in 0..i32::from(cluster.partitions) {
        let record = BaseRecord::to(&topic)
            .partition(partition)
            .key("aborted")
            .payload("aborted");
        producer
            .send(record)
            .map_err(|(error, _)| error)
            .expect("the queue has room");
    }
    producer.flush(TIMEOUT).expect("the broker answers");
    producer
        .abort_transaction(TIMEOUT)
        .expect("the broker answers");
}
