//! Reads topics of the log: completely up to their current ends, or a time range.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use contracts::{Service, Topic};
use engine::Cluster;
use engine::log::kafka::{KafkaReader, settings};
use engine::log::{Ends, Input, Partition, Progress};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::runtime::Handle;

use crate::kafka::{Client, client};

/// Longest wait for one lookup at the broker.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
const LOOKUP_INTERVAL: Duration = Duration::from_millis(50);
const READ_TIMEOUT: Duration = Duration::from_millis(200);

/// The ends of every partition of a topic, in partition order, including open and aborted transactions. Blocks: call it
/// on a thread of the runtime that may block.
///
/// # Errors
///
/// The broker does not answer, or there is no such topic.
pub fn ends(cluster: &Cluster, service: Service, topic: Topic) -> anyhow::Result<Vec<Ends>> {
    // A read_committed consumer would get the last stable offsets instead.
    let consumer = client(settings::reader(cluster, "read_uncommitted"))?;
    let name = cluster.topic(service, topic);
    (0..i32::from(cluster.partitions))
        .map(|partition| {
            let lookup = || consumer.fetch_watermarks(&name, partition, LOOKUP_TIMEOUT);
            let (low, high) = retry_without_leader(lookup)
                .with_context(|| format!("topic {name} at {}", cluster.bootstrap))?;
            Ok(Ends { low, high })
        })
        .collect()
}

/// Runs a lookup at the broker, and retries it while a partition has no leader, as shortly after the broker's start.
fn retry_without_leader<T>(lookup: impl Fn() -> KafkaResult<T>) -> KafkaResult<T> {
    let start = Instant::now();
    loop {
        match lookup() {
            Err(error) if is_leader_missing(&error) && start.elapsed() < LOOKUP_TIMEOUT => {
                Handle::current().block_on(tokio::time::sleep(LOOKUP_INTERVAL));
            }
            result => return result,
        }
    }
}

fn is_leader_missing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(Code::NotLeaderForPartition | Code::LeaderNotAvailable)
    )
}

/// Passes every committed record up to `ends` to `each`, partition by partition. Blocks.
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
                .read(READ_TIMEOUT, &mut inputs)
                .with_context(|| format!("topic {name}"))?;
            inputs.drain(..).try_for_each(&mut each)?;
        }
    }
    Ok(())
}

/// Reads time ranges of single partitions.
pub struct TimeRangeReader<'a> {
    cluster: &'a Cluster,
    lookup: Client,
    reader: KafkaReader,
}

impl<'a> TimeRangeReader<'a> {
    /// A reader on `cluster`.
    ///
    /// # Errors
    ///
    /// A setting is refused.
    pub fn new(cluster: &'a Cluster) -> anyhow::Result<Self> {
        Ok(Self {
            cluster,
            // As in `ends`.
            lookup: client(settings::reader(cluster, "read_uncommitted"))?,
            reader: KafkaReader::new(cluster, "reader")?,
        })
    }

    /// Passes the committed records of one partition to `each`: from the first record at `from_ms` or later up to the
    /// first record at `until_ms` or later (Unix milliseconds; `None`: the current end), or until `each` breaks.
    /// Blocks.
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
        let location = || format!("topic {name} at {}", self.cluster.bootstrap);
        let lookup = || {
            self.lookup
                .fetch_watermarks(&name, partition, LOOKUP_TIMEOUT)
        };
        let (_, end) = retry_without_leader(lookup).with_context(location)?;
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
                .read(READ_TIMEOUT, &mut inputs)
                .with_context(location)?;
            for input in inputs.drain(..) {
                if input.offset >= until || each(input)?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The first offset at that time or later; `end` when there is none.
    fn offset_at(
        &self,
        name: &str,
        partition: Partition,
        time_ms: i64,
        end: i64,
    ) -> anyhow::Result<i64> {
        let lookup = || {
            let mut times = TopicPartitionList::new();
            times.add_partition_offset(name, partition, Offset::Offset(time_ms.max(0)))?;
            self.lookup.offsets_for_times(times, LOOKUP_TIMEOUT)
        };
        let found = retry_without_leader(lookup)
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
