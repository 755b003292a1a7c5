//! librdkafka's settings, each with its reason.

use std::time::Duration;

use rdkafka::ClientConfig;

use super::Cluster;

/// How long the broker keeps a transaction that its producer abandoned. It holds every `read_committed` reader for
/// that long, so it is short; the group's session is longer, so that an abandoned transaction ends first.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the group waits for a silent member.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a worker may go without a poll before librdkafka takes it for gone; a round polls once at least.
pub const POLL_INTERVAL: Duration = Duration::from_secs(60);
/// Between two heartbeats of a member.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Between librdkafka's statistics, which tell whether the coordinator answers, and how far partitions reach. They are
/// JSON of some kilobytes.
pub const STATISTICS_INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait for one answer of the broker.
pub const SOCKET_TIMEOUT: Duration = Duration::from_secs(6);
/// A commit, abort or send-offsets that took longer may have been retried silently by librdkafka, and the delayed
/// original may hit the next transaction (KAFKA-17754): such a producer is not used again.
pub const SUSPICIOUS: Duration = Duration::from_secs(3);

fn client(cluster: &Cluster) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &cluster.bootstrap)
        .set("socket.timeout.ms", SOCKET_TIMEOUT.as_millis().to_string())
        // The default of 30 s is the time until a connection that is not taken is given up.
        .set("socket.connection.setup.timeout.ms", "3000")
        .set("socket.nagle.disable", "true")
        // What a client was told while the broker was fenced (partitions have no leader, or there is no broker) it
        // believes until it asks again; the default is five minutes, and three times as long for what it looks up.
        .set("topic.metadata.refresh.interval.ms", "1000")
        .set("metadata.max.age.ms", "3000")
        .set("reconnect.backoff.ms", "50")
        // A client notices a broker that is back this much later at most.
        .set("reconnect.backoff.max.ms", "250")
        // The default of 100 ms is paid after nearly every commit (CONCURRENT_TRANSACTIONS).
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
        // A position that does not exist is an error to stop at, never a reason to start somewhere else.
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        // The default of one second stalls a consumer that is faster than its queue.
        .set("fetch.queue.backoff.ms", "5")
        // A seek waits for the fetch that is under way.
        .set("fetch.wait.max.ms", "50");
    config
}

/// The worker's consumer. The classic protocol, because there a static member that was killed takes its place back
/// at once; under KIP-848 it would wait for its own old session.
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
        // Positions say more than ends do.
        .set("enable.partition.eof", "false")
        .set(
            "max.poll.interval.ms",
            POLL_INTERVAL.as_millis().to_string(),
        );
    config
}

/// A consumer that is assigned by hand and belongs to no group; librdkafka wants a name all the same.
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
        .set("message.max.bytes", super::MAX_RECORD_BYTES.to_string())
        .set("sticky.partitioning.linger.ms", "0")
        // For whether its connections are at work; out of step with its metadata requests, which are work as well.
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

/// For looking at the cluster and making topics.
pub fn admin(cluster: &Cluster) -> ClientConfig {
    client(cluster)
}
