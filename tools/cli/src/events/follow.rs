//! Follows several topics at once, from their ends on.

use std::collections::HashMap;
use std::time::Duration;

use contracts::{Service, Topic};
use engine::Cluster;
use engine::log::Input;
use engine::log::kafka::client::{Renewable, drop_in_background};
use engine::log::kafka::context::Quiet;
use engine::log::kafka::{input, settings};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::Place;

const WAIT: Duration = Duration::from_millis(100);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

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
    let mut places = Vec::new();
    let mut next = HashMap::new();
    for Place {
        service,
        topic,
        ends,
    } in topics
    {
        let name = cluster.topic(*service, *topic);
        for (partition, ends) in (0..).zip(ends) {
            next.insert((name.clone(), partition), ends.high);
        }
        places.push((name, *service, *topic));
    }
    let mut settings = settings::reader(cluster, "read_committed");
    // There is no end to reach.
    settings.set("enable.partition.eof", "false");
    let mut client = Renewable::new("events", move |client_id| {
        settings
            .clone()
            .set("client.id", client_id)
            .create_with_context::<_, BaseConsumer<Quiet>>(Quiet::default())
    })?;
    assign(client.get(), &next)?;
    let mut failed = false;
    while !stop.is_cancelled() {
        match client.get().poll(WAIT) {
            Some(Ok(message)) => {
                failed = false;
                let place = places.iter().find(|(name, ..)| name == message.topic());
                if let Some((name, service, topic)) = place {
                    next.insert((name.clone(), message.partition()), message.offset() + 1);
                    each(*service, *topic, &input(&message))?;
                }
            }
            None => {}
            Some(Err(error)) if is_final(&error) => return Err(error.into()),
            Some(Err(_)) => failed = true,
        }
        // A client that was disturbed proves that the broker still answers it.
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
                    } else {
                        drop_in_background(fresh);
                    }
                }
                Err(_) => {}
            }
        }
    }
    Ok(())
}

fn assign(consumer: &BaseConsumer<Quiet>, next: &HashMap<(String, i32), i64>) -> KafkaResult<()> {
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
