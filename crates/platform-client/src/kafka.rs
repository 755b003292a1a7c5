//! Kafka clients that query the broker without joining a group.

use std::collections::HashMap;
use std::time::Duration;

use contracts::{Service, Topic};
use engine::Cluster;
use engine::log::Partition;
use engine::log::kafka::client::BackgroundDrop;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientConfig, ClientContext};

/// A client that joins no group. Dropping it does not wait for the broker.
pub type Client = BackgroundDrop<BaseConsumer<DebugLogContext>>;

/// Creates a client that reports errors only as results of its calls.
///
/// # Errors
///
/// A setting is refused.
pub fn client(config: ClientConfig) -> KafkaResult<Client> {
    config
        .create_with_context(DebugLogContext)
        .map(BackgroundDrop::new)
}

/// Logs errors of the client at debug level: librdkafka repeats them every second while the broker is unreachable.
pub struct DebugLogContext;

impl ClientContext for DebugLogContext {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "log client");
    }

    fn log(&self, _level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, line = message, "log client");
    }
}

impl ConsumerContext for DebugLogContext {}

/// Committed offsets of a group by partition of its commands; a partition without a committed offset is absent.
///
/// # Errors
///
/// The broker does not answer.
pub fn committed(
    client: &Client,
    cluster: &Cluster,
    service: Service,
    timeout: Duration,
) -> KafkaResult<HashMap<Partition, i64>> {
    let mut partitions = TopicPartitionList::new();
    let topic = cluster.topic(service, Topic::Commands);
    partitions.add_partition_range(&topic, 0, Partition::from(cluster.partitions) - 1);
    let offsets = client.committed_offsets(partitions, timeout)?;
    let offset = |element: rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
        element.error()?;
        match element.offset() {
            Offset::Offset(offset) => Ok(Some((element.partition(), offset))),
            _ => Ok(None),
        }
    };
    offsets
        .elements()
        .into_iter()
        .filter_map(|element| offset(element).transpose())
        .collect()
}
