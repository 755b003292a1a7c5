//! A healthy world, made by the real system: every ending, a restart, an order under way when its service is killed, an
//! aborted transaction.

use audit::{Memory, TopicPartition};
use auditor::System;
use chassis::config;
use contracts::orders::v1::OrderStatus;
use contracts::{Service, Topic};
use engine::Cluster;
use engine::log::kafka::settings;
use harness::eventually;
use harness::system::{System as Platform, free_port, order_of};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::audit::{Args, Books, rule_books, sources, text};

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// The world, and the rule books that it was made by.
pub fn healthy() -> (Memory, Books) {
    let mut platform = Platform::new();
    platform.set("ORDERMESH_ADMIN", free_port().to_string());
    let folder = platform.path("demo");
    platform.run(&["demo", "--baskets", "25", "--folder", &folder]);
    platform.up("all");
    platform.stock("MUG", 5);
    platform.stock("MUG", 7);
    platform.stock("PEN", 9);
    let args = arguments(&platform);
    abort(&args);
    let placed = [
        order_of(&[("MUG", 1), ("PEN", 2)]),
        order_of(&[("PEN", 1)]),
        order_of(&[("MUG", 100)]),
    ];
    let ends = [
        OrderStatus::Delivered,
        OrderStatus::Delivered,
        OrderStatus::Rejected,
    ];
    for order in &placed {
        platform.place(order.clone()).expect("it is taken");
    }
    platform.kill("all");
    platform.up("all");
    for (order, end) in placed.iter().zip(ends) {
        platform.reaches(&order.order_id, end);
    }
    // The same order again is the same order; the same id with another body is refused.
    platform
        .place(placed[0].clone())
        .expect("a repetition is answered");
    let mut other = placed[0].clone();
    other.lines[0].quantity += 1;
    platform.place(other).expect_err("the id is taken");
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let found = eventually("everything is at rest", || {
        runtime.block_on(async {
            let system = System::open(&sources(&args.stack, &args.sandbox), None)
                .await
                .expect("everything answers");
            let books = rule_books(&system, args.order_times, args.payment_times);
            tokio::task::spawn(async {})
                .await
                .expect("the runtime runs");
            let memory =
                tokio::task::block_in_place(|| Memory::copy(&system)).expect("it can be read");
            let report = audit::audit(&memory, &books).expect("it can be checked");
            assert!(report.is_clean(), "{}", text(&report));
            report.at_rest.then_some((memory, books))
        })
    });
    assert!(platform.terminate("all").success());
    found
}

/// Where the audit finds the platform.
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
    match config::parse::<Audit>(arguments) {
        Ok(audit) => audit.args,
        Err(invalid) => panic!("{}", invalid.message),
    }
}

/// The command by itself.
#[derive(clap::Parser)]
struct Audit {
    #[command(flatten)]
    args: Args,
}

/// Writes something to every partition of the orders' events, and aborts it.
fn abort(args: &Args) {
    let cluster: Cluster = platform_client::cluster(&args.stack.kafka);
    let id = format!("{}aborter", cluster.prefix);
    let producer: BaseProducer = settings::transactional_producer(&cluster, &id)
        .create()
        .expect("the settings are valid");
    producer
        .init_transactions(PATIENCE)
        .expect("the broker answers");
    producer.begin_transaction().expect("it has just been made");
    let place = TopicPartition::new(Service::Orders, Topic::Events, 0);
    let topic = cluster.topic(place.service, place.topic);
    for partition in 0..i32::from(cluster.partitions) {
        let record = BaseRecord::to(&topic)
            .partition(partition)
            .key("nobody")
            .payload("nothing");
        producer
            .send(record)
            .map_err(|(error, _)| error)
            .expect("the queue has room");
    }
    producer.flush(PATIENCE).expect("the broker answers");
    producer
        .abort_transaction(PATIENCE)
        .expect("the broker answers");
}
