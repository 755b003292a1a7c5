//! librdkafka's settings, each with its reason.

use std::time::Duration;

use rdkafka::ClientConfig;

use crate::log::Cluster;
use crate::log::limits::{
    HEARTBEAT_INTERVAL, MAX_RECORD_BYTES, POLL_INTERVAL, SESSION_TIMEOUT, SOCKET_TIMEOUT,
    TRANSACTION_TIMEOUT,
};

/// Between librdkafka's statistics, which show whether the coordinator answers, and the ends of the partitions. They
/// are some kilobytes of JSON.
pub const STATISTICS_INTERVAL: Duration = Duration::from_secs(1);
fn client(cluster: &Cluster) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &cluster.bootstrap)
        .set("socket.timeout.ms", SOCKET_TIMEOUT.as_millis().to_string())
        // By default, a connection that is not accepted is given up after 30 s.
        .set("socket.connection.setup.timeout.ms", "3000")
        .set("socket.nagle.disable", "true")
        // A client keeps metadata that it received while the broker was fenced (no leaders, or no brokers) until the
        // next refresh: by default after five minutes, and three times as long for cached lookups.
        .set("topic.metadata.refresh.interval.ms", "1000")
        .set("metadata.max.age.ms", "3000")
        .set("reconnect.backoff.ms", "50")
        // Longest delay until a client reconnects to a broker that is available again.
        .set("reconnect.backoff.max.ms", "250")
        // The default of 100 ms would delay nearly every commit (CONCURRENT_TRANSACTIONS).
        .set("retry.backoff.ms", "2")
        .set("retry.backoff.max.ms", "50");
    config
}

fn reading(cluster: &Cluster, isolation: &str) -> ClientConfig {
    let mut config = client(cluster);
    config
        .set("isolation.level", isolation)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // A position that does not exist is an error, never a reason to start at another one.
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        // The default of one second stalls a consumer that is faster than its queue.
        .set("fetch.queue.backoff.ms", "5")
        // A seek waits for the current fetch.
        .set("fetch.wait.max.ms", "50");
    config
}

/// The worker's consumer. It uses the classic protocol, in which a killed static member rejoins at once; under KIP-848
/// it would wait for the end of its own former session.
pub fn group_member(cluster: &Cluster, group: &str, instance: &str) -> ClientConfig {
    let mut config = reading(cluster, "read_committed");
    config
        .set("group.id", group)
        .set("group.instance.id", instance)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set(
            "session.timeout.ms",
            SESSION_TIMEOUT.as_millis().to_string(),
        )
        .set(
            "heartbeat.interval.ms",
            HEARTBEAT_INTERVAL.as_millis().to_string(),
        )
        .set(
            "statistics.interval.ms",
            STATISTICS_INTERVAL.as_millis().to_string(),
        )
        // The worker uses positions instead.
        .set("enable.partition.eof", "false")
        .set(
            "max.poll.interval.ms",
            POLL_INTERVAL.as_millis().to_string(),
        );
    config
}

/// A consumer with manual assignment that joins no group; librdkafka requires a group name all the same.
pub fn reader(cluster: &Cluster, isolation: &str) -> ClientConfig {
    let mut config = reading(cluster, isolation);
    config
        .set("group.id", format!("{}reader", cluster.prefix))
        .set("fetch.wait.max.ms", "10");
    config
}

/// Settings of every producer.
pub fn producer(cluster: &Cluster) -> ClientConfig {
    let mut config = client(cluster);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // Kafka's own partitioner for other languages; librdkafka's default differs.
        .set("partitioner", "murmur2")
        .set("compression.type", "lz4")
        .set("queue.buffering.max.messages", "1000000")
        .set("queue.buffering.max.kbytes", "262144")
        .set("message.max.bytes", MAX_RECORD_BYTES.to_string())
        .set("sticky.partitioning.linger.ms", "0")
        // To detect idle connections; out of step with the metadata requests, which are activity as well.
        .set("statistics.interval.ms", "700");
    config
}

/// The worker's producer.
pub fn transactional_producer(cluster: &Cluster, transactional_id: &str) -> ClientConfig {
    let mut config = producer(cluster);
    config
        .set("transactional.id", transactional_id)
        .set(
            "transaction.timeout.ms",
            TRANSACTION_TIMEOUT.as_millis().to_string(),
        )
        // The batch is complete before it is sent.
        .set("linger.ms", "2");
    config
}

/// Settings for inspecting the cluster and creating topics.
pub fn admin(cluster: &Cluster) -> ClientConfig {
    client(cluster)
}
