//! Follows several topics at once, from their ends on.

use std::time::Duration;

use contracts::{Service, Topic};
use engine::Cluster;
use engine::log::Input;
use engine::log::kafka::{input, settings};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::Place;

const WAIT: Duration = Duration::from_millis(100);

/// Hands over what is committed behind the ends of `topics`, until `stop`. Blocks.
///
/// # Errors
///
/// A topic is gone, or `each` fails. A broker that is down is waited for.
pub fn follow(
    cluster: &Cluster,
    topics: &[Place],
    stop: &CancellationToken,
    mut each: impl FnMut(Service, Topic, &Input) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut settings = settings::reader(cluster, "read_committed");
    // There is no end to reach.
    let consumer: BaseConsumer = settings.set("enable.partition.eof", "false").create()?;
    let mut list = TopicPartitionList::new();
    for Place {
        service,
        topic,
        ends,
    } in topics
    {
        let name = cluster.topic(*service, *topic);
        for (partition, ends) in (0..).zip(ends) {
            list.add_partition_offset(&name, partition, Offset::Offset(ends.high))?;
        }
    }
    consumer.assign(&list)?;
    while !stop.is_cancelled() {
        match consumer.poll(WAIT) {
            Some(Ok(message)) => {
                let place = topics
                    .iter()
                    .find(|place| cluster.topic(place.service, place.topic) == message.topic());
                if let Some(place) = place {
                    each(place.service, place.topic, &input(&message))?;
                }
            }
            None => {}
            Some(Err(error)) if is_final(&error) => return Err(error.into()),
            Some(Err(error)) => tracing::warn!(%error, "waiting for the broker"),
        }
    }
    Ok(())
}

fn is_final(error: &KafkaError) -> bool {
    use rdkafka::error::RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::AutoOffsetReset
                | Code::OffsetOutOfRange
                | Code::UnknownTopicOrPartition
                | Code::UnknownTopic
                | Code::UnknownPartition
                | Code::Fatal
        )
    )
}
