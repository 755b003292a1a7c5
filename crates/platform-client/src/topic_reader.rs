//! Reads topics of the log: whole, as far as they reach now, or a stretch of time.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use contracts::{Service, Topic};
use engine::Cluster;
use engine::log::kafka::{KafkaReader, settings};
use engine::log::{Ends, Input, Partition, Progress};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::runtime::Handle;

/// Longest wait for one look-up at the broker.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
const LOOKUP_EVERY: Duration = Duration::from_millis(50);
const READ_WAIT: Duration = Duration::from_millis(200);

/// The ends of every partition of a topic, by partition; of transactions that are open or aborted too. Blocks, on a
/// thread of the runtime that may.
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
            let look = || consumer.fetch_watermarks(&name, partition, LOOKUP_TIMEOUT);
            let (low, high) = patiently(look)
                .with_context(|| format!("topic {name} at {}", cluster.bootstrap))?;
            Ok(Ends { low, high })
        })
        .collect()
}

/// Looks something up at the broker, again while it is only finding itself: its partitions have no leader for a moment
/// after it has started.
fn patiently<T>(look: impl Fn() -> KafkaResult<T>) -> KafkaResult<T> {
    let began = Instant::now();
    loop {
        match look() {
            Err(error) if is_passing(&error) && began.elapsed() < LOOKUP_TIMEOUT => {
                Handle::current().block_on(tokio::time::sleep(LOOKUP_EVERY));
            }
            result => return result,
        }
    }
}

fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(Code::NotLeaderForPartition | Code::LeaderNotAvailable)
    )
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
    let mut reader = KafkaReader::new(cluster, "reader")?;
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

/// Reads stretches of single partitions, from one time to another.
pub struct ByTime<'a> {
    cluster: &'a Cluster,
    lookup: BaseConsumer,
    reader: KafkaReader,
}

impl<'a> ByTime<'a> {
    /// A reader on `cluster`.
    ///
    /// # Errors
    ///
    /// A setting is refused.
    pub fn new(cluster: &'a Cluster) -> anyhow::Result<Self> {
        Ok(Self {
            cluster,
            // As for the ends of topics.
            lookup: settings::reader(cluster, "read_uncommitted").create()?,
            reader: KafkaReader::new(cluster, "reader")?,
        })
    }

    /// Hands over what is committed in one partition, from the first record of the time `from_ms` or later to the
    /// first of `until_ms` or later (Unix milliseconds; to the end that the partition has now when `None`), or until
    /// `each` has seen enough. Blocks.
    ///
    /// # Errors
    ///
    /// The broker does not answer, there is no such topic, or `each` fails.
    pub fn read(
        &mut self,
        (service, topic, partition): (Service, Topic, Partition),
        from_ms: i64,
        until_ms: Option<i64>,
        mut each: impl FnMut(Input) -> anyhow::Result<ControlFlow<()>>,
    ) -> anyhow::Result<()> {
        let name = self.cluster.topic(service, topic);
        let place = || format!("topic {name} at {}", self.cluster.bootstrap);
        let look = || {
            self.lookup
                .fetch_watermarks(&name, partition, LOOKUP_TIMEOUT)
        };
        let (_, end) = patiently(look).with_context(place)?;
        let from = self.offset_at(&name, partition, from_ms, end)?;
        let until = match until_ms {
            Some(until_ms) => self.offset_at(&name, partition, until_ms, end)?,
            None => end,
        };
        self.reader.open(&name, partition, from, until)?;
        let mut inputs = Vec::new();
        let mut progress = Progress::More;
        while progress == Progress::More {
            progress = self
                .reader
                .read(READ_WAIT, &mut inputs)
                .with_context(place)?;
            for input in inputs.drain(..) {
                if input.offset >= until || each(input)?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The first offset of that time or later; `end` when there is none yet.
    fn offset_at(
        &self,
        name: &str,
        partition: Partition,
        time_ms: i64,
        end: i64,
    ) -> anyhow::Result<i64> {
        let look = || {
            let mut times = TopicPartitionList::new();
            times.add_partition_offset(name, partition, Offset::Offset(time_ms.max(0)))?;
            self.lookup.offsets_for_times(times, LOOKUP_TIMEOUT)
        };
        let found = patiently(look)
            .with_context(|| format!("topic {name} at {}", self.cluster.bootstrap))?;
        let offset = found
            .find_partition(name, partition)
            .map(|found| found.offset());
        Ok(match offset {
            Some(Offset::Offset(offset)) => offset.min(end),
            _ => end,
        })
    }
}
