//! How many dead letters there are.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use contracts::{Service, Topic};
use engine::Cluster;
use engine::log::Partition;
use engine::log::kafka::client::drop_in_background;
use engine::log::kafka::settings;
use platform_client::kafka::{Silent, client};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::broker_probe::TIMEOUT;
use super::oldest::SILENT_LOOKS;

/// How long one look reads at most.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a look waits for one more record.
const WAIT: Duration = Duration::from_millis(20);

/// Counts dead letters by reading them, each once: offsets are taken by transaction markers too.
pub struct DeadLetters {
    cluster: Cluster,
    reader: BaseConsumer<Silent>,
    /// Looks in a row in which the reader brought nothing although it was not at the ends, and the broker answered the
    /// rest of the look.
    silent_looks: u32,
    /// Empty until it is known where each partition begins.
    partitions: BTreeMap<(Service, Partition), Letters>,
}

/// The dead letters of a partition.
#[derive(Debug, Default)]
struct Letters {
    /// Their offsets.
    offsets: VecDeque<i64>,
    /// Where the partition ended at the last look.
    end: i64,
    /// It has been read to its end at least once.
    is_read: bool,
}

impl DeadLetters {
    /// Has read nothing yet.
    ///
    /// # Errors
    ///
    /// A setting is refused.
    pub fn new(cluster: &Cluster) -> KafkaResult<Self> {
        Ok(Self {
            cluster: cluster.clone(),
            reader: Self::reader(cluster)?,
            silent_looks: 0,
            partitions: BTreeMap::new(),
        })
    }

    fn reader(cluster: &Cluster) -> KafkaResult<BaseConsumer<Silent>> {
        let mut config = settings::reader(cluster, "read_committed");
        config
            .set("queued.max.messages.kbytes", "4096")
            // It reads on between the looks, and is in no hurry.
            .set("fetch.wait.max.ms", "1000");
        client(config)
    }

    /// The number of dead letters by topic, without the prefix; of those topics that have been read to their end.
    /// `ends` is asked where they are: on the reader's own connection every question waits for the fetch under way.
    ///
    /// # Errors
    ///
    /// The broker does not answer.
    pub fn count(&mut self, ends: &BaseConsumer<Silent>) -> KafkaResult<Vec<(String, usize)>> {
        let read = self.look_at_ends(ends).and_then(|()| self.read());
        if self.silent_looks >= SILENT_LOOKS {
            let fresh = Self::reader(&self.cluster)?;
            drop_in_background(std::mem::replace(&mut self.reader, fresh));
            self.silent_looks = 0;
            // All over again.
            self.partitions.clear();
        }
        match read {
            // What was not read yet has been deleted: all over again.
            Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset)) => {
                self.partitions.clear();
            }
            read => read?,
        }
        let letters = |service: Service| {
            let own = || {
                self.partitions
                    .iter()
                    .filter(move |((owner, _), _)| *owner == service)
                    .map(|(_, letters)| letters)
            };
            let is_read = own().next().is_some() && own().all(|letters| letters.is_read);
            let count = own().map(|letters| letters.offsets.len()).sum();
            is_read.then(|| (Topic::Dlq.of(service, ""), count))
        };
        Ok(Service::ALL.into_iter().filter_map(letters).collect())
    }

    /// Where each partition begins and ends now; what has been deleted at its beginning is forgotten.
    fn look_at_ends(&mut self, ends: &BaseConsumer<Silent>) -> KafkaResult<()> {
        let mut starts = TopicPartitionList::new();
        let is_new = self.partitions.is_empty();
        let mut partitions = std::mem::take(&mut self.partitions);
        for service in Service::ALL {
            let topic = self.cluster.topic(service, Topic::Dlq);
            for partition in 0..Partition::from(self.cluster.partitions) {
                let (low, end) = ends.fetch_watermarks(&topic, partition, TIMEOUT)?;
                starts.add_partition_offset(&topic, partition, Offset::Offset(low))?;
                let letters = partitions.entry((service, partition)).or_default();
                letters.end = end;
                letters.is_read |= low == end;
                while letters.offsets.front().is_some_and(|offset| *offset < low) {
                    letters.offsets.pop_front();
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
        let mut is_heard = false;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.reader.poll(WAIT) {
                Some(Ok(message)) => {
                    is_heard = true;
                    let letters = self
                        .partitions
                        .iter_mut()
                        .find(|((service, partition), _)| {
                            *partition == message.partition()
                                && self.cluster.topic(*service, Topic::Dlq) == message.topic()
                        });
                    if let Some((_, letters)) = letters {
                        letters.offsets.push_back(message.offset());
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(
                    error @ KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset),
                )) => return Err(error),
                // Old news, or a broker that is away, which the rest of the look tells.
                Some(Err(error)) => tracing::debug!(%error, "dead letters cannot be read"),
                None => {
                    self.note_ends()?;
                    if self.partitions.values().all(|letters| letters.is_read) {
                        break;
                    }
                }
            }
        }
        let is_read = self.partitions.values().all(|letters| letters.is_read);
        self.silent_looks = if is_heard || is_read {
            0
        } else {
            self.silent_looks + 1
        };
        Ok(())
    }

    /// Positions count markers too, as soon as they are passed.
    fn note_ends(&mut self) -> KafkaResult<()> {
        let positions = self.reader.position()?;
        for ((service, partition), letters) in &mut self.partitions {
            let topic = self.cluster.topic(*service, Topic::Dlq);
            let position = positions.find_partition(&topic, *partition);
            letters.is_read |= position.is_some_and(|position| {
                matches!(position.offset(), Offset::Offset(offset) if offset >= letters.end)
            });
        }
        Ok(())
    }
}
