//! Clients that ask the broker without joining a group.

use std::collections::HashMap;
use std::time::Duration;

use contracts::{Service, Topic};
use engine::Cluster;
use engine::log::Partition;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientConfig, ClientContext};

/// A client that leaves it to its answers to tell what is wrong.
pub fn client(config: ClientConfig) -> KafkaResult<BaseConsumer<Silent>> {
    config.create_with_context(Silent)
}

/// Does not repeat every second that the broker is away.
pub struct Silent;

impl ClientContext for Silent {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "log client");
    }

    fn log(&self, _level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, line = message, "log client");
    }
}

impl ConsumerContext for Silent {}

/// What a group has committed of each partition of its commands; absent where it has committed nothing.
///
/// # Errors
///
/// The broker does not answer.
pub fn committed(
    client: &BaseConsumer<Silent>,
    cluster: &Cluster,
    service: Service,
    timeout: Duration,
) -> KafkaResult<HashMap<Partition, i64>> {
    let mut asked = TopicPartitionList::new();
    let topic = cluster.topic(service, Topic::Commands);
    asked.add_partition_range(&topic, 0, Partition::from(cluster.partitions) - 1);
    let told = client.committed_offsets(asked, timeout)?;
    let offset = |element: rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
        element.error()?;
        match element.offset() {
            Offset::Offset(offset) => Ok(Some((element.partition(), offset))),
            _ => Ok(None),
        }
    };
    told.elements()
        .into_iter()
        .filter_map(|element| offset(element).transpose())
        .collect()
}
