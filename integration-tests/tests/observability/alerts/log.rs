//! Alerts of Kafka and of the services' lag.

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

use super::{LAG, monitored_long, place, start, topic};

#[test]
fn a_missing_service_and_the_orders_that_wait_for_it_raise_alerts() {
    let Some((mut system, alerts)) = monitored_long(60) else {
        return;
    };
    // Removed on purpose: Prometheus does not scrape it.
    alerts.scrape_processes_except(&system, "inventory");
    assert!(system.terminate("inventory").success());
    let placed = place(&system);
    let absent = [("group", "inventory"), ("service", "inventory")];
    let overdue = [("status", "pending")];
    alerts.wait_until_firing("ConsumerAbsent", &absent);
    alerts.wait_until_firing("OrderOverdue", &overdue);
    start(&mut system, &alerts, "inventory");
    system.wait_for_status(&placed, OrderStatus::Delivered);
    alerts.wait_until_resolved("ConsumerAbsent", &absent);
    alerts.wait_until_resolved("OrderOverdue", &overdue);
}

#[test]
fn an_open_transaction_and_the_take_over_that_waits_for_it_raise_alerts() {
    let Some((mut system, alerts)) = monitored_long(20) else {
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
    alerts.wait_until_firing("TransactionStuck", &stuck);

    system.kill("inventory");
    system.start("inventory");
    alerts.scrape_processes(&system);
    let restoring = [("service", "inventory"), ("instance", "inventory:9464")];
    alerts.wait_until_firing("RestoreTooLong", &restoring);
    open.abort_transaction(DEADLINE).unwrap();
    system.wait_until_ready("inventory");
    alerts.wait_until_resolved("TransactionStuck", &stuck);
    alerts.wait_until_resolved("RestoreTooLong", &restoring);
}

/// Begins a transaction of a producer outside the system.
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
fn an_overloaded_service_raises_an_alert_and_catches_up() {
    let Some((system, alerts)) = monitored_long(60) else {
        return;
    };
    let group = [("group", "inventory"), ("topic", "inventory.commands")];
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| flood(&system, &over));
        let _ends_with = EndFloodOnDrop(&over);
        alerts.wait_until_firing("ConsumerLagHigh", &group);
        alerts.wait_until_firing("ConsumerLagGrowing", &group);
    });
    eventually("inventory has caught up", || {
        let lag = "sum(ordermesh_lag_records{group=\"inventory\"})";
        let samples = alerts.prometheus().query(lag).unwrap();
        samples
            .iter()
            .all(|sample| sample.value < 1.0)
            .then_some(())
    });
    alerts.wait_until_resolved("ConsumerLagHigh", &group);
    alerts.wait_until_resolved("ConsumerLagGrowing", &group);
}

/// Stops a flood when it is dropped, also after a failure.
struct EndFloodOnDrop<'a>(&'a AtomicBool);

impl Drop for EndFloodOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Growth of the lag during a flood, records per second.
const GROWTH: f64 = 5_000.0;

/// Repeats one client command at a rate that makes the lag grow evenly.
fn flood(system: &System, over: &AtomicBool) {
    let topic = topic(system, Service::Inventory, Topic::Commands);
    let command = first_record(system, &topic);
    let partition = command.partition();
    let place = format!("partition=\"{partition}\",topic=\"inventory.commands\"}} ");
    let figure = |name: &str| system.metric(LAG, &format!("{name}{place}")).unwrap_or(0.0);
    let end = || figure("ordermesh_lag_end_offset{");
    let processed = || end() - figure("ordermesh_lag_records{group=\"inventory\",");
    let mut written = end();
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", system.variable("ORDERMESH_KAFKA"))
        // Upper limit of one batch.
        .set("queue.buffering.max.messages", "5000000")
        .create()
        .unwrap();
    let begun = Instant::now();
    while !over.load(Ordering::Relaxed) {
        // The exporter's values are slightly old, so they never overstate the lag.
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

/// The first record of a topic, from any partition.
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
