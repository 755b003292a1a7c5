//! Append times of the oldest unprocessed records.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use contracts::{Service, Topic};
use engine::Cluster;
use engine::log::Partition;
use engine::log::kafka::settings;
use platform_client::kafka::{Client, client};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::broker_probe::GroupPosition;

/// Longest time that one probe reads.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// The reader is replaced after this number of consecutive silent probes.
pub const MAX_SILENT_PROBES: u32 = 2;
/// One record of each partition is enough.
const FETCH_BYTES: &str = "16384";

/// A partition of a service's commands.
type CommandsPartition = (Service, Partition);

/// Reads the first record at or after the position of each group, once for each position.
pub struct OldestRecords {
    cluster: Cluster,
    reader: Client,
    /// Consecutive probes in which the reader returned nothing although there were records, while the broker answered
    /// the rest of the probe.
    silent_probes: u32,
    cache: HashMap<CommandsPartition, CachedAppendTime>,
}

/// The cached append time of a partition's oldest record.
struct CachedAppendTime {
    position: i64,
    stable: i64,
    /// Append time of the first record from the position on, in Unix milliseconds; `None` when there is none below the
    /// last stable offset.
    appended_ms: Option<i64>,
}

impl CachedAppendTime {
    /// A first record stays the first one; its absence is valid until the last stable offset advances.
    fn is_valid(&self, position: &GroupPosition) -> bool {
        self.position == position.position
            && (self.appended_ms.is_some() || self.stable == position.stable)
    }
}

impl OldestRecords {
    /// A reader with an empty cache.
    ///
    /// # Errors
    ///
    /// A setting is refused.
    pub fn new(cluster: &Cluster) -> KafkaResult<Self> {
        Ok(Self {
            cluster: cluster.clone(),
            reader: Self::reader(cluster)?,
            silent_probes: 0,
            cache: HashMap::new(),
        })
    }

    fn reader(cluster: &Cluster) -> KafkaResult<Client> {
        let mut config = settings::reader(cluster, "read_committed");
        config
            .set("fetch.message.max.bytes", FETCH_BYTES)
            .set("queued.max.messages.kbytes", "1024");
        client(config)
    }

    /// Append times of the oldest records, in Unix milliseconds. A partition may have none (`None`) although its group
    /// is not at the end: markers and aborted records do not count. Partitions that were not read in time are absent.
    ///
    /// # Errors
    ///
    /// The broker does not answer.
    pub fn append_times(
        &mut self,
        positions: &[GroupPosition],
    ) -> KafkaResult<HashMap<CommandsPartition, Option<i64>>> {
        // Drop errors that were queued while nothing was assigned.
        while self.reader.poll(Duration::ZERO).is_some() {}
        let mut unknown = HashMap::new();
        for position in positions {
            let partition = (position.service, position.partition);
            if self
                .cache
                .get(&partition)
                .is_some_and(|cached| cached.is_valid(position))
            {
                continue;
            }
            if position.position >= position.stable {
                self.remember(position, None);
            } else {
                self.cache.remove(&partition);
                unknown.insert(partition, *position);
            }
        }
        if !unknown.is_empty() {
            self.read(unknown)?;
        }
        let cached = self.cache.iter();
        Ok(cached
            .map(|(partition, cached)| (*partition, cached.appended_ms))
            .collect())
    }

    fn remember(&mut self, position: &GroupPosition, appended_ms: Option<i64>) {
        let cached = CachedAppendTime {
            position: position.position,
            stable: position.stable,
            appended_ms,
        };
        self.cache
            .insert((position.service, position.partition), cached);
    }

    /// Reads until the first record of every partition is known, or its absence.
    fn read(&mut self, mut unknown: HashMap<CommandsPartition, GroupPosition>) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for position in unknown.values() {
            let topic = self.cluster.topic(position.service, Topic::Commands);
            list.add_partition_offset(
                &topic,
                position.partition,
                Offset::Offset(position.position),
            )?;
        }
        self.reader.assign(&list)?;
        let read = self.first_records(&mut unknown);
        self.reader.unassign()?;
        self.silent_probes = if read? { 0 } else { self.silent_probes + 1 };
        if self.silent_probes >= MAX_SILENT_PROBES {
            self.reader = Self::reader(&self.cluster)?;
            self.silent_probes = 0;
        }
        Ok(())
    }

    /// Returns whether the reader received anything.
    fn first_records(
        &mut self,
        unknown: &mut HashMap<CommandsPartition, GroupPosition>,
    ) -> KafkaResult<bool> {
        let mut has_received = false;
        let end = Instant::now() + READ_TIMEOUT;
        while !unknown.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            match self.reader.poll(left) {
                Some(Ok(message)) => {
                    has_received = true;
                    let partition = self.commands_partition(message.topic(), message.partition());
                    let position = partition.and_then(|partition| unknown.remove(&partition));
                    let appended_ms = message.timestamp().to_millis();
                    if let (Some(position), Some(_)) = (position, appended_ms) {
                        self.remember(&position, appended_ms);
                    }
                }
                // The error does not contain the topic: it concerns partitions in which only markers were passed.
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    has_received = true;
                    let reached = self.reader.position()?;
                    let is_passed = |position: &GroupPosition| {
                        let topic = self.cluster.topic(position.service, Topic::Commands);
                        let reached = reached.find_partition(&topic, position.partition);
                        reached.is_some_and(|reached| {
                            matches!(reached.offset(), Offset::Offset(offset) if offset >= position.stable)
                        })
                    };
                    let passed: Vec<_> = unknown
                        .extract_if(|_, position| is_passed(position))
                        .collect();
                    for (_, position) in passed {
                        self.remember(&position, None);
                    }
                }
                // An unreachable broker fails the rest of the probe too.
                Some(Err(error)) => tracing::debug!(%error, "the oldest records cannot be read"),
                None => break,
            }
        }
        Ok(has_received)
    }

    fn commands_partition(&self, topic: &str, partition: Partition) -> Option<CommandsPartition> {
        Service::ALL
            .into_iter()
            .find(|service| self.cluster.topic(*service, Topic::Commands) == topic)
            .map(|service| (service, partition))
    }
}
