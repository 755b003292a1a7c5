//! Counts dead letters.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use contracts::{Service, Topic};
use engine::Cluster;
use engine::log::Partition;
use engine::log::kafka::settings;
use platform_client::kafka::{Client, client};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::broker_probe::TIMEOUT;
use super::oldest::MAX_SILENT_PROBES;

/// Longest time that one probe reads.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for the next record.
const POLL_TIMEOUT: Duration = Duration::from_millis(20);

/// Counts dead letters by reading each one once. Offsets cannot be counted, because transaction markers have offsets
/// too.
pub struct DeadLetters {
    cluster: Cluster,
    reader: Client,
    /// Consecutive probes in which the reader returned nothing before the ends, while the broker answered the rest of
    /// the probe.
    silent_probes: u32,
    /// Empty until the start offsets are known.
    partitions: BTreeMap<(Service, Partition), PartitionDeadLetters>,
}

/// The dead letters of a partition.
#[derive(Debug, Default)]
struct PartitionDeadLetters {
    /// Offsets of the dead letters.
    offsets: VecDeque<i64>,
    /// End offset at the last probe.
    end: i64,
    /// Whether it has been read to its end at least once.
    is_read: bool,
}

impl DeadLetters {
    /// A counter that has read nothing yet.
    ///
    /// # Errors
    ///
    /// A setting is refused.
    pub fn new(cluster: &Cluster) -> KafkaResult<Self> {
        Ok(Self {
            cluster: cluster.clone(),
            reader: Self::reader(cluster)?,
            silent_probes: 0,
            partitions: BTreeMap::new(),
        })
    }

    fn reader(cluster: &Cluster) -> KafkaResult<Client> {
        let mut config = settings::reader(cluster, "read_committed");
        config
            .set("queued.max.messages.kbytes", "4096")
            // It prefetches between the probes, so latency does not matter.
            .set("fetch.wait.max.ms", "1000");
        client(config)
    }

    /// The number of dead letters by topic name without the prefix; only of topics that have been read to their end.
    /// End offsets are fetched with `ends`: on the reader's connection a request waits for the fetch in progress.
    ///
    /// # Errors
    ///
    /// The broker does not answer.
    pub fn count(&mut self, ends: &Client) -> KafkaResult<Vec<(String, usize)>> {
        let read = self.update_offsets(ends).and_then(|()| self.read());
        if self.silent_probes >= MAX_SILENT_PROBES {
            self.reader = Self::reader(&self.cluster)?;
            self.silent_probes = 0;
            // Count from the beginning.
            self.partitions.clear();
        }
        match read {
            // Records that were not read yet have been deleted: count from the beginning.
            Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset)) => {
                self.partitions.clear();
            }
            read => read?,
        }
        let dead_letters = |service: Service| {
            let own = || {
                self.partitions
                    .iter()
                    .filter(move |((owner, _), _)| *owner == service)
                    .map(|(_, dead_letters)| dead_letters)
            };
            let is_read = own().next().is_some() && own().all(|dead_letters| dead_letters.is_read);
            let count = own().map(|dead_letters| dead_letters.offsets.len()).sum();
            is_read.then(|| (Topic::Dlq.of(service, ""), count))
        };
        Ok(Service::ALL.into_iter().filter_map(dead_letters).collect())
    }

    /// Updates the start and end of each partition, and drops dead letters that have been deleted.
    fn update_offsets(&mut self, ends: &Client) -> KafkaResult<()> {
        let mut starts = TopicPartitionList::new();
        let is_new = self.partitions.is_empty();
        let mut partitions = std::mem::take(&mut self.partitions);
        for service in Service::ALL {
            let topic = self.cluster.topic(service, Topic::Dlq);
            for partition in 0..Partition::from(self.cluster.partitions) {
                let (low, end) = ends.fetch_watermarks(&topic, partition, TIMEOUT)?;
                starts.add_partition_offset(&topic, partition, Offset::Offset(low))?;
                let dead_letters = partitions.entry((service, partition)).or_default();
                dead_letters.end = end;
                dead_letters.is_read |= low == end;
                while dead_letters
                    .offsets
                    .front()
                    .is_some_and(|offset| *offset < low)
                {
                    dead_letters.offsets.pop_front();
                }
            }
        }
        if is_new {
            self.reader.assign(&starts)?;
        }
        self.partitions = partitions;
        Ok(())
    }

    fn read(&mut self) -> KafkaResult<()> {
        let mut has_received = false;
        let deadline = Instant::now() + READ_TIMEOUT;
        while Instant::now() < deadline {
            match self.reader.poll(POLL_TIMEOUT) {
                Some(Ok(message)) => {
                    has_received = true;
                    let dead_letters =
                        self.partitions
                            .iter_mut()
                            .find(|((service, partition), _)| {
                                *partition == message.partition()
                                    && self.cluster.topic(*service, Topic::Dlq) == message.topic()
                            });
                    if let Some((_, dead_letters)) = dead_letters {
                        dead_letters.offsets.push_back(message.offset());
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(
                    error @ KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset),
                )) => return Err(error),
                // An outdated error, or an unreachable broker, which the rest of the probe reports.
                Some(Err(error)) => tracing::debug!(%error, "dead letters cannot be read"),
                None => {
                    self.mark_read_partitions()?;
                    if self
                        .partitions
                        .values()
                        .all(|dead_letters| dead_letters.is_read)
                    {
                        break;
                    }
                }
            }
        }
        let is_read = self
            .partitions
            .values()
            .all(|dead_letters| dead_letters.is_read);
        self.silent_probes = if has_received || is_read {
            0
        } else {
            self.silent_probes + 1
        };
        Ok(())
    }

    /// Marks the partitions that are read to their end. Positions include the markers that were passed.
    fn mark_read_partitions(&mut self) -> KafkaResult<()> {
        let positions = self.reader.position()?;
        for ((service, partition), dead_letters) in &mut self.partitions {
            let topic = self.cluster.topic(*service, Topic::Dlq);
            let position = positions.find_partition(&topic, *partition);
            dead_letters.is_read |= position.is_some_and(|position| {
                matches!(position.offset(), Offset::Offset(offset) if offset >= dead_letters.end)
            });
        }
        Ok(())
    }
}
