//! Kafka, and how the services keep up with the log.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use contracts::orders::v1::OrderStatus;
use contracts::{Service, Topic};
use engine::Cluster;
use engine::log::kafka::settings;
use harness::eventually;
use harness::eventually::DEADLINE;
use harness::system::System;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, Message as _, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{LAG, place, start, topic, watched_at_length};

#[test]
fn a_service_that_nobody_has_started_is_told_of_and_so_are_the_orders_that_wait_for_it() {
    let Some((mut system, alerts)) = watched_at_length(60) else {
        return;
    };
    // Taken away on purpose: Prometheus does not look for it any more.
    alerts.follow_all_but(&system, "inventory");
    assert!(system.terminate("inventory").success());
    let placed = place(&system);
    let absent = [("group", "inventory"), ("service", "inventory")];
    let overdue = [("status", "pending")];
    alerts.arrives("ConsumerAbsent", &absent);
    alerts.arrives("OrderOverdue", &overdue);
    start(&mut system, &alerts, "inventory");
    system.reaches(&placed, OrderStatus::Delivered);
    alerts.clears("ConsumerAbsent", &absent);
    alerts.clears("OrderOverdue", &overdue);
}

#[test]
fn an_open_transaction_is_told_of_and_so_is_the_take_over_that_waits_for_it() {
    let Some((mut system, alerts)) = watched_at_length(20) else {
        return;
    };
    let open = begin(&system);
    let events = topic(&system, Service::Inventory, Topic::Events);
    let record = BaseRecord::<str, str>::to(&events)
        .partition(1)
        .payload("never seen");
    open.send(record).map_err(|(error, _)| error).unwrap();
    open.flush(DEADLINE).unwrap();
    let stuck = [("topic", "inventory.events"), ("partition", "1")];
    alerts.arrives("TransactionStuck", &stuck);

    system.kill("inventory");
    system.start("inventory");
    alerts.follow(&system);
    let restoring = [("service", "inventory"), ("instance", "inventory:9464")];
    alerts.arrives("RestoreTooLong", &restoring);
    open.abort_transaction(DEADLINE).unwrap();
    system.ready("inventory");
    alerts.clears("TransactionStuck", &stuck);
    alerts.clears("RestoreTooLong", &restoring);
}

/// A stranger's transaction.
fn begin(system: &System) -> BaseProducer {
    let cluster = Cluster {
        bootstrap: system.variable("ORDERMESH_KAFKA").to_owned(),
        prefix: system.variable("ORDERMESH_PREFIX").to_owned(),
        partitions: 4,
    };
    let id = format!("{}stranger", cluster.prefix);
    let producer: BaseProducer = settings::transactional_producer(&cluster, &id)
        .set("transaction.timeout.ms", "300000")
        .create()
        .unwrap();
    producer.init_transactions(DEADLINE).unwrap();
    producer.begin_transaction().unwrap();
    producer
}

#[test]
fn a_service_that_is_sent_more_than_it_can_do_is_told_of_and_catches_up() {
    let Some((system, alerts)) = watched_at_length(60) else {
        return;
    };
    let group = [("group", "inventory"), ("topic", "inventory.commands")];
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| flood(&system, &over));
        let _ends_with = Ends(&over);
        alerts.arrives("ConsumerLagHigh", &group);
        alerts.arrives("ConsumerLagGrowing", &group);
    });
    eventually("inventory has caught up", || {
        let lag = "sum(ordermesh_lag_records{group=\"inventory\"})";
        let samples = alerts.prometheus().query(lag).unwrap();
        samples
            .iter()
            .all(|sample| sample.value < 1.0)
            .then_some(())
    });
    alerts.clears("ConsumerLagHigh", &group);
    alerts.clears("ConsumerLagGrowing", &group);
}

/// Ends a flood when it is dropped, also by a failure.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Records that the lag grows by in each second of a flood.
const GROWTH: f64 = 5_000.0;

/// Repeats one command of a caller, so often that the lag grows evenly.
fn flood(system: &System, over: &AtomicBool) {
    let topic = topic(system, Service::Inventory, Topic::Commands);
    let command = first_record(system, &topic);
    let partition = command.partition();
    let place = format!("partition=\"{partition}\",topic=\"inventory.commands\"}} ");
    let figure = |name: &str| system.figure(LAG, &format!("{name}{place}")).unwrap_or(0.0);
    let end = || figure("ordermesh_lag_end_offset{");
    let processed = || end() - figure("ordermesh_lag_records{group=\"inventory\",");
    let mut written = end();
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", system.variable("ORDERMESH_KAFKA"))
        // What may be missing at once.
        .set("queue.buffering.max.messages", "5000000")
        .create()
        .unwrap();
    let begun = Instant::now();
    while !over.load(Ordering::Relaxed) {
        // What the exporter tells is a little old: it never says too much.
        let wanted = processed() + GROWTH * (1.0 + begun.elapsed().as_secs_f64());
        while written < wanted {
            written += 1.0;
            let mut record = BaseRecord::<[u8], [u8]>::to(&topic)
                .partition(partition)
                .key(command.key().unwrap())
                .payload(command.payload().unwrap());
            if let Some(headers) = command.headers() {
                record = record.headers(headers.clone());
            }
            producer
                .send(record)
                .map_err(|(error, _)| error)
                .expect("the queue has room for the lag of a minute");
        }
        producer.flush(DEADLINE).unwrap();
    }
}

/// The first record of a topic, in whichever partition there is one.
fn first_record(system: &System, topic: &str) -> OwnedMessage {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", system.variable("ORDERMESH_KAFKA"))
        .set("group.id", "unused")
        .create()
        .unwrap();
    let mut partitions = TopicPartitionList::new();
    for partition in 0..4 {
        partitions
            .add_partition_offset(topic, partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&partitions).unwrap();
    let message = consumer.poll(DEADLINE).unwrap();
    message.as_ref().map(BorrowedMessage::detach).unwrap()
}
