//! Reads topics of the log whole, as far as they reach now.

use std::time::Duration;

use anyhow::Context as _;
use contracts::{Service, Topic};
use engine::Cluster;
use engine::log::kafka::{KafkaReader, settings};
use engine::log::{Ends, Input, Progress};
use rdkafka::consumer::{BaseConsumer, Consumer as _};

/// Longest wait for one look-up at the broker.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
const READ_WAIT: Duration = Duration::from_millis(200);

/// The ends of every partition of a topic, by partition; of transactions that are open or aborted too.
///
/// # Errors
///
/// The broker does not answer, or there is no such topic.
pub fn ends(cluster: &Cluster, service: Service, topic: Topic) -> anyhow::Result<Vec<Ends>> {
    // A read_committed handle would be told the last stable offsets instead.
    let consumer: BaseConsumer = settings::reader(cluster, "read_uncommitted").create()?;
    let name = cluster.topic(service, topic);
    (0..i32::from(cluster.partitions))
        .map(|partition| {
            let (low, high) = consumer
                .fetch_watermarks(&name, partition, LOOKUP_TIMEOUT)
                .with_context(|| format!("topic {name} at {}", cluster.bootstrap))?;
            Ok(Ends { low, high })
        })
        .collect()
}

/// Hands over everything committed up to `ends`, partition by partition. Blocks.
///
/// # Errors
///
/// The broker does not answer, or `each` fails.
pub fn read(
    cluster: &Cluster,
    service: Service,
    topic: Topic,
    ends: &[Ends],
    mut each: impl FnMut(Input) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let name = cluster.topic(service, topic);
    let mut reader = KafkaReader::new(cluster)?;
    let mut inputs = Vec::new();
    for (partition, ends) in (0..).zip(ends) {
        reader.open(&name, partition, ends.low, ends.high)?;
        let mut progress = Progress::More;
        while progress == Progress::More {
            progress = reader
                .read(READ_WAIT, &mut inputs)
                .with_context(|| format!("topic {name}"))?;
            inputs.drain(..).try_for_each(&mut each)?;
        }
    }
    Ok(())
}
