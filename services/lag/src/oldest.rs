//! When the oldest record was appended that a group has not processed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use contracts::{Service, Topic};
use engine::Cluster;
use engine::log::Partition;
use engine::log::kafka::client::drop_in_background;
use engine::log::kafka::settings;
use platform_client::kafka::{Silent, client};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::broker_probe::Waiting;

/// Longest wait for the records of one look.
const PATIENCE: Duration = Duration::from_secs(2);
/// The reader is replaced after so many silent looks in a row.
pub const SILENT_LOOKS: u32 = 2;
/// One record of each partition is enough.
const FETCH_BYTES: &str = "16384";

type Place = (Service, Partition);

/// Reads the first record at or behind the position of each group; once for each position.
pub struct Oldest {
    cluster: Cluster,
    reader: BaseConsumer<Silent>,
    /// Looks in a row in which the reader brought nothing although there was something, and the broker answered the
    /// rest of the look.
    silent_looks: u32,
    known: HashMap<Place, Known>,
}

/// What was read of a partition.
struct Known {
    position: i64,
    stable: i64,
    /// Append time of the first record from the position on, in Unix milliseconds; `None` when there is none below the
    /// last stable offset.
    appended_ms: Option<i64>,
}

impl Known {
    /// A record stays the first one; that there is none holds until more can be read.
    fn holds(&self, waiting: &Waiting) -> bool {
        self.position == waiting.position
            && (self.appended_ms.is_some() || self.stable == waiting.stable)
    }
}

impl Oldest {
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
            known: HashMap::new(),
        })
    }

    fn reader(cluster: &Cluster) -> KafkaResult<BaseConsumer<Silent>> {
        let mut config = settings::reader(cluster, "read_committed");
        config
            .set("fetch.message.max.bytes", FETCH_BYTES)
            .set("queued.max.messages.kbytes", "1024");
        client(config)
    }

    /// The append times of the oldest records, in Unix milliseconds. Markers and aborted records are no records, so a
    /// partition may have none (`None`) although its group is not at the end. What was not read in time is absent.
    ///
    /// # Errors
    ///
    /// The broker does not answer.
    pub fn appended(&mut self, waiting: &[Waiting]) -> KafkaResult<HashMap<Place, Option<i64>>> {
        // What was reported while nothing was assigned is old news.
        while self.reader.poll(Duration::ZERO).is_some() {}
        let mut unknown = HashMap::new();
        for waiting in waiting {
            let place = (waiting.service, waiting.partition);
            if self
                .known
                .get(&place)
                .is_some_and(|known| known.holds(waiting))
            {
                continue;
            }
            if waiting.position >= waiting.stable {
                self.know(waiting, None);
            } else {
                self.known.remove(&place);
                unknown.insert(place, *waiting);
            }
        }
        if !unknown.is_empty() {
            self.read(unknown)?;
        }
        let known = self.known.iter();
        Ok(known
            .map(|(place, known)| (*place, known.appended_ms))
            .collect())
    }

    fn know(&mut self, waiting: &Waiting, appended_ms: Option<i64>) {
        let known = Known {
            position: waiting.position,
            stable: waiting.stable,
            appended_ms,
        };
        self.known
            .insert((waiting.service, waiting.partition), known);
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
        self.silent_looks = if read? { 0 } else { self.silent_looks + 1 };
        if self.silent_looks >= SILENT_LOOKS {
            let fresh = Self::reader(&self.cluster)?;
            drop_in_background(std::mem::replace(&mut self.reader, fresh));
            self.silent_looks = 0;
        }
        Ok(())
    }

    /// Whether anything was heard.
    fn first_records(&mut self, unknown: &mut HashMap<Place, Waiting>) -> KafkaResult<bool> {
        let mut is_heard = false;
        let end = Instant::now() + PATIENCE;
        while !unknown.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            match self.reader.poll(left) {
                Some(Ok(message)) => {
                    is_heard = true;
                    let place = self.place(message.topic(), message.partition());
                    let waiting = place.and_then(|place| unknown.remove(&place));
                    let appended_ms = message.timestamp().to_millis();
                    if let (Some(waiting), Some(_)) = (waiting, appended_ms) {
                        self.know(&waiting, appended_ms);
                    }
                }
                // The client does not say of which topic: those in which nothing but markers was passed.
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    is_heard = true;
                    let reached = self.reader.position()?;
                    let is_passed = |waiting: &Waiting| {
                        let topic = self.cluster.topic(waiting.service, Topic::Commands);
                        let reached = reached.find_partition(&topic, waiting.partition);
                        reached.is_some_and(|reached| {
                            matches!(reached.offset(), Offset::Offset(offset) if offset >= waiting.stable)
                        })
                    };
                    let passed: Vec<_> = unknown
                        .extract_if(|_, waiting| is_passed(waiting))
                        .collect();
                    for (_, waiting) in passed {
                        self.know(&waiting, None);
                    }
                }
                // A broker that is away does not answer the rest of the look either.
                Some(Err(error)) => tracing::debug!(%error, "the oldest records cannot be read"),
                None => break,
            }
        }
        Ok(is_heard)
    }

    fn place(&self, topic: &str, partition: Partition) -> Option<Place> {
        Service::ALL
            .into_iter()
            .find(|service| self.cluster.topic(*service, Topic::Commands) == topic)
            .map(|service| (service, partition))
    }
}
