//! Follows several topics at once, from their ends.

use std::collections::HashMap;
use std::time::Duration;

use contracts::{Service, Topic};
use engine::Cluster;
use engine::log::Input;
use engine::log::kafka::client::ReplaceableClient;
use engine::log::kafka::context::LoggingContext;
use engine::log::kafka::{input, settings};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::TopicEnds;

const POLL_TIMEOUT: Duration = Duration::from_millis(100);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// Passes each record committed after the ends of `topics` to `each`, until `stop` is cancelled. Blocks.
///
/// # Errors
///
/// A topic no longer exists, or `each` fails. An unavailable broker is retried.
pub fn follow(
    cluster: &Cluster,
    topics: &[TopicEnds],
    stop: &CancellationToken,
    mut each: impl FnMut(Service, Topic, &Input) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut names = Vec::new();
    let mut next = HashMap::new();
    for TopicEnds {
        service,
        topic,
        ends,
    } in topics
    {
        let name = cluster.topic(*service, *topic);
        for (partition, ends) in (0..).zip(ends) {
            next.insert((name.clone(), partition), ends.high);
        }
        names.push((name, *service, *topic));
    }
    let mut settings = settings::reader(cluster, "read_committed");
    // Following has no end.
    settings.set("enable.partition.eof", "false");
    let mut client = ReplaceableClient::new("events", move |client_id| {
        settings
            .clone()
            .set("client.id", client_id)
            .create_with_context::<_, BaseConsumer<LoggingContext>>(LoggingContext::default())
    })?;
    assign(client.get(), &next)?;
    let mut failed = false;
    while !stop.is_cancelled() {
        match client.get().poll(POLL_TIMEOUT) {
            Some(Ok(message)) => {
                failed = false;
                let source = names.iter().find(|(name, ..)| name == message.topic());
                if let Some((name, service, topic)) = source {
                    next.insert((name.clone(), message.partition()), message.offset() + 1);
                    each(*service, *topic, &input(&message))?;
                }
            }
            None => {}
            Some(Err(error)) if is_final(&error) => return Err(error.into()),
            Some(Err(_)) => failed = true,
        }
        // After an error the client must prove that the broker still answers it.
        if failed {
            let Some(((name, partition), _)) = next.iter().next() else {
                continue;
            };
            match client
                .get()
                .fetch_watermarks(name, *partition, LOOKUP_TIMEOUT)
            {
                Ok(_) => {
                    client.answered();
                    failed = false;
                }
                Err(error) if client.failed(&error) => {
                    let fresh = client.fresh()?;
                    let answer = fresh.fetch_watermarks(name, *partition, LOOKUP_TIMEOUT);
                    if answer.is_ok() && assign(&fresh, &next).is_ok() {
                        client.replace(fresh);
                    }
                }
                Err(_) => {}
            }
        }
    }
    Ok(())
}

fn assign(
    consumer: &BaseConsumer<LoggingContext>,
    next: &HashMap<(String, i32), i64>,
) -> KafkaResult<()> {
    let mut list = TopicPartitionList::new();
    for ((name, partition), offset) in next {
        list.add_partition_offset(name, *partition, Offset::Offset(*offset))?;
    }
    consumer.assign(&list)
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
