//! When the oldest record was appended that a group has not processed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use contracts::{Service, Topic};
use engine::Cluster;
use engine::log::Partition;
use engine::log::kafka::settings;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::look::{Silent, Waiting, client};

/// Longest wait for the records of one look.
const PATIENCE: Duration = Duration::from_secs(2);
/// One record of each partition is enough.
const FETCH_BYTES: &str = "16384";

type Place = (Service, Partition);

/// Reads the first record at or behind the position of each group. A group that stands still is read once.
pub struct Oldest {
    cluster: Cluster,
    reader: BaseConsumer<Silent>,
    /// Position, and the append time of the first record from there on, in Unix milliseconds.
    known: HashMap<Place, (i64, i64)>,
}

impl Oldest {
    /// Has read nothing yet.
    ///
    /// # Errors
    ///
    /// A setting is refused.
    pub fn new(cluster: &Cluster) -> KafkaResult<Self> {
        let mut config = settings::reader(cluster, "read_committed");
        config
            .set("fetch.message.max.bytes", FETCH_BYTES)
            .set("queued.max.messages.kbytes", "1024");
        Ok(Self {
            cluster: cluster.clone(),
            reader: client(config)?,
            known: HashMap::new(),
        })
    }

    /// The append times of the oldest records, in Unix milliseconds. Markers and aborted records are no records, so a
    /// partition may have none although its group is not at the end.
    ///
    /// # Errors
    ///
    /// The broker does not answer.
    pub fn appended(&mut self, waiting: &[Waiting]) -> KafkaResult<HashMap<Place, i64>> {
        let known = &mut self.known;
        let mut unknown = HashMap::new();
        for waiting in waiting {
            let place = (waiting.service, waiting.partition);
            let is_known = known
                .get(&place)
                .is_some_and(|(position, _)| *position == waiting.position);
            if waiting.position >= waiting.stable {
                known.remove(&place);
            } else if !is_known {
                known.remove(&place);
                unknown.insert(place, *waiting);
            }
        }
        if !unknown.is_empty() {
            self.read(unknown)?;
        }
        Ok(self
            .known
            .iter()
            .map(|(place, (_, appended_ms))| (*place, *appended_ms))
            .collect())
    }

    /// Reads until every partition has told its first record, or that there is none.
    fn read(&mut self, mut unknown: HashMap<Place, Waiting>) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for waiting in unknown.values() {
            let topic = self.cluster.topic(waiting.service, Topic::Commands);
            list.add_partition_offset(&topic, waiting.partition, Offset::Offset(waiting.position))?;
        }
        self.reader.assign(&list)?;
        let read = self.first_records(&mut unknown);
        self.reader.unassign()?;
        read
    }

    fn first_records(&mut self, unknown: &mut HashMap<Place, Waiting>) -> KafkaResult<()> {
        let end = Instant::now() + PATIENCE;
        while !unknown.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            match self.reader.poll(left) {
                Some(Ok(message)) => {
                    let place = self.place(message.topic(), message.partition());
                    let waiting = place.and_then(|place| unknown.remove(&place));
                    if let (Some(waiting), Some(appended_ms)) =
                        (waiting, message.timestamp().to_millis())
                    {
                        let place = (waiting.service, waiting.partition);
                        self.known.insert(place, (waiting.position, appended_ms));
                    }
                }
                // The client does not say of which topic: those in which nothing but markers was passed.
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    let reached = self.reader.position()?;
                    unknown.retain(|_, waiting| {
                        let topic = self.cluster.topic(waiting.service, Topic::Commands);
                        let reached = reached.find_partition(&topic, waiting.partition);
                        !reached.is_some_and(|reached| {
                            matches!(reached.offset(), Offset::Offset(offset) if offset >= waiting.stable)
                        })
                    });
                }
                Some(Err(error)) => return Err(error),
                None => break,
            }
        }
        Ok(())
    }

    fn place(&self, topic: &str, partition: Partition) -> Option<Place> {
        Service::ALL
            .into_iter()
            .find(|service| self.cluster.topic(*service, Topic::Commands) == topic)
            .map(|service| (service, partition))
    }
}
