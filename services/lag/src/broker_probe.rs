//! Probes the broker: positions, end offsets and members of each group. It joins no group.

use std::time::{Duration, Instant};

use contracts::{Service, Topic};
use engine::Cluster;
use engine::log::Partition;
use engine::log::kafka::client::ReplaceableClient;
use engine::log::kafka::settings;
use platform_client::kafka::{Client, client, committed};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

use super::dead_letters::DeadLetters;
use super::members::{self, Member};
use super::oldest::OldestRecords;
use super::stability::StabilityTracker;

/// Longest wait for one response.
pub const TIMEOUT: Duration = Duration::from_secs(3);
/// The topics whose open transactions delay their readers: workers and projector.
const READ_TOPICS: [Topic; 2] = [Topic::Commands, Topic::Events];

/// The result of one probe.
#[derive(Debug, Default)]
pub struct ProbeResult {
    /// Lag of every group and partition.
    pub lags: Vec<Lag>,
    /// The group of every service.
    pub groups: Vec<Group>,
    /// End offsets of commands and events topics.
    pub ends: Vec<End>,
    /// Dead letters by topic name without the prefix. A topic is absent until it has been read to its end.
    pub dead_letters: Vec<(String, usize)>,
}

/// The lag of a service's group in a partition of its commands.
#[derive(Clone, Debug, PartialEq)]
pub struct Lag {
    /// The service of the group.
    pub service: Service,
    /// The partition.
    pub partition: Partition,
    /// Offsets between the committed one and the high watermark.
    pub records: i64,
    /// Age of the oldest record that is not processed; 0 when there is none, `None` when it could not be read.
    pub seconds: Option<f64>,
}

impl Lag {
    /// Topic name without the prefix.
    pub fn topic(&self) -> String {
        Topic::Commands.of(self.service, "")
    }
}

/// A service's group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The service.
    pub service: Service,
    /// Members, sorted by name.
    pub members: Vec<Member>,
}

/// The end of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The service of the topic.
    pub service: Service,
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: Partition,
    /// High watermark.
    pub high: i64,
    /// For how long the last stable offset has not advanced while it is below the high watermark.
    pub unstable: Duration,
}

impl End {
    /// Topic name without the prefix.
    pub fn topic(&self) -> String {
        self.topic.of(self.service, "")
    }
}

/// Probes the broker; caches what makes the next probe cheaper. Blocks.
pub struct BrokerProbe {
    cluster: Cluster,
    /// Configured with the id of each group, to fetch its offsets; they subscribe to nothing, so they join no group.
    groups: Vec<(Service, Client)>,
    /// A `read_committed` client: it gets last stable offsets where the others get high watermarks.
    committed_reader: Client,
    stability: StabilityTracker<(Service, Topic, Partition)>,
    oldest: OldestRecords,
    dead_letters: DeadLetters,
}

impl BrokerProbe {
    /// A probe that is replaced when it fails while a fresh one gets answers. Dropping it does not wait for the broker.
    ///
    /// # Errors
    ///
    /// A setting is refused.
    pub fn replaceable(cluster: Cluster) -> KafkaResult<ReplaceableClient<Self>> {
        ReplaceableClient::new(format!("{}lag", cluster.prefix), move |client_id| {
            Self::new(&cluster, client_id)
        })
    }

    fn new(cluster: &Cluster, client_id: &str) -> KafkaResult<Self> {
        // `read_uncommitted`: committed offsets are returned even while a transaction is about to move them.
        let group = |service: Service| {
            let mut config = settings::reader(cluster, "read_uncommitted");
            config
                .set("group.id", cluster.group(service))
                .set("client.id", client_id);
            Ok((service, client(config)?))
        };
        let mut committed_reader = settings::reader(cluster, "read_committed");
        committed_reader.set("client.id", client_id);
        Ok(Self {
            cluster: cluster.clone(),
            groups: Service::ALL
                .into_iter()
                .map(group)
                .collect::<KafkaResult<_>>()?,
            committed_reader: client(committed_reader)?,
            stability: StabilityTracker::default(),
            oldest: OldestRecords::new(cluster)?,
            dead_letters: DeadLetters::new(cluster)?,
        })
    }

    /// Probes the broker.
    ///
    /// # Errors
    ///
    /// The broker does not answer, or a topic is missing.
    pub fn probe(&mut self) -> KafkaResult<ProbeResult> {
        let result = self.query_broker();
        if result.is_err() {
            // Offsets may have advanced meanwhile.
            self.stability = StabilityTracker::default();
        }
        result
    }

    fn query_broker(&mut self) -> KafkaResult<ProbeResult> {
        self.drain_events();
        let mut result = ProbeResult::default();
        let mut positions = Vec::new();
        for (service, client) in &self.groups {
            let name = self.cluster.group(*service);
            result.groups.push(Group {
                service: *service,
                members: members(client, &name)?,
            });
            let committed = committed(client, &self.cluster, *service, TIMEOUT)?;
            for topic in READ_TOPICS {
                let name = self.cluster.topic(*service, topic);
                for partition in 0..Partition::from(self.cluster.partitions) {
                    // The last stable offset first: otherwise a transaction that ends in between would look open.
                    let (_, stable) = self
                        .committed_reader
                        .fetch_watermarks(&name, partition, TIMEOUT)?;
                    let (low, high) = client.fetch_watermarks(&name, partition, TIMEOUT)?;
                    let source = (*service, topic, partition);
                    let unstable = self
                        .stability
                        .stalled_for(source, stable, high, Instant::now());
                    result.ends.push(End {
                        service: *service,
                        topic,
                        partition,
                        high,
                        unstable,
                    });
                    if topic == Topic::Commands {
                        // A group without a committed offset starts at the beginning.
                        let position = committed.get(&partition).copied().unwrap_or(low).max(low);
                        positions.push(GroupPosition {
                            service: *service,
                            partition,
                            position,
                            stable,
                            high,
                            unstable,
                        });
                    }
                }
            }
        }
        let append_times = self.oldest.append_times(&positions)?;
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let lag = |position: &GroupPosition| {
            let oldest = append_times.get(&(position.service, position.partition));
            position.lag(oldest.copied(), now_ms)
        };
        result.lags = positions.iter().map(lag).collect();
        result.dead_letters = self.dead_letters.count(&self.committed_reader)?;
        Ok(result)
    }

    /// Polls the clients: events of a client are queued until it is polled.
    fn drain_events(&self) {
        let groups = self.groups.iter().map(|(_, client)| client);
        for client in groups.chain([&self.committed_reader]) {
            while client.poll(Duration::ZERO).is_some() {}
        }
    }
}

/// The position of a group in a partition of its commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupPosition {
    /// The service of the group.
    pub service: Service,
    /// The partition.
    pub partition: Partition,
    /// First offset that is not processed.
    pub position: i64,
    /// Last stable offset: first offset that a `read_committed` reader cannot read yet.
    pub stable: i64,
    /// High watermark.
    pub high: i64,
    /// For how long `stable` has not advanced while it is below `high`.
    pub unstable: Duration,
}

impl GroupPosition {
    /// `oldest` is the append time of the oldest readable record, `Some(None)` when there is none, `None` when it is
    /// unknown. The age of a record at or after the last stable offset is the time for which that has not advanced.
    fn lag(&self, oldest: Option<Option<i64>>, now_ms: i64) -> Lag {
        let records = (self.high - self.position).max(0);
        let age = |appended_ms: i64| (now_ms - appended_ms).max(0) as f64 / 1000.0;
        let unstable = self.unstable.as_secs_f64();
        Lag {
            service: self.service,
            partition: self.partition,
            records,
            seconds: if records == 0 {
                Some(0.0)
            } else {
                oldest.map(|oldest| oldest.map_or(unstable, |ms| age(ms).max(unstable)))
            },
        }
    }
}

fn members(client: &Client, group: &str) -> KafkaResult<Vec<Member>> {
    let list = client.client().fetch_group_list(Some(group), TIMEOUT)?;
    let found = list.groups().iter().find(|found| found.name() == group);
    Ok(found.map_or_else(Vec::new, |found| members::of(found, &format!("{group}."))))
}

/// Whether the error means that the broker is unreachable. Any other error is a response of the broker.
pub fn is_unreachable(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::OperationTimedOut
                // The metadata has no leader; the client has not sent a request.
                | RDKafkaErrorCode::UnknownPartition
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_counts_from_the_append_or_from_the_stall_of_the_stable_offset() {
        let group_position = |position, stable, high, unstable| GroupPosition {
            service: Service::Orders,
            partition: 0,
            position,
            stable,
            high,
            unstable: Duration::from_secs(unstable),
        };
        let lag = |position: GroupPosition, oldest| {
            let lag = position.lag(oldest, 60_000);
            (lag.records, lag.seconds)
        };
        assert_eq!(lag(group_position(7, 7, 7, 0), None), (0, Some(0.0)));
        assert_eq!(
            lag(group_position(4, 7, 7, 0), Some(Some(50_000))),
            (3, Some(10.0))
        );
        // Only markers, and a transaction that stays open.
        assert_eq!(lag(group_position(6, 7, 7, 0), Some(None)), (1, Some(0.0)));
        assert_eq!(lag(group_position(7, 7, 9, 5), Some(None)), (2, Some(5.0)));
        assert_eq!(
            lag(group_position(4, 7, 9, 5), Some(Some(58_000))),
            (5, Some(5.0))
        );
        // Not read in time: the age is unknown.
        assert_eq!(lag(group_position(4, 7, 7, 0), None), (3, None));
        // The broker's clock is ahead.
        assert_eq!(
            lag(group_position(4, 7, 7, 0), Some(Some(61_000))),
            (3, Some(0.0))
        );
    }
}
