//! One look at the broker: where each group stands, how far its topic reaches, who is in it. No group is joined.

use std::time::{Duration, Instant};

use contracts::{Service, Topic};
use engine::Cluster;
use engine::log::Partition;
use engine::log::kafka::client::Renewable;
use engine::log::kafka::settings;
use platform_client::kafka::{Silent, client, committed};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

use super::dead_letters::DeadLetters;
use super::members::{self, Member};
use super::oldest::Oldest;
use super::stability::Stability;

/// Longest wait for one answer.
pub const TIMEOUT: Duration = Duration::from_secs(3);
/// The topics whose transactions hold readers up: the workers', and the projector's.
const READ: [Topic; 2] = [Topic::Commands, Topic::Events];

/// What was seen.
#[derive(Debug, Default)]
pub struct ProbeResult {
    /// Of every group and partition.
    pub lags: Vec<Lag>,
    /// Every service's.
    pub groups: Vec<Group>,
    /// Of commands and events.
    pub ends: Vec<End>,
    /// Dead letters by topic, without the prefix; of those topics that have been read to their end.
    pub dead_letters: Vec<(String, usize)>,
}

/// How far a service's group lies behind in a partition of its commands.
#[derive(Clone, Debug, PartialEq)]
pub struct Lag {
    /// Whose group.
    pub service: Service,
    /// The partition.
    pub partition: Partition,
    /// Offsets between the committed one and the high watermark.
    pub records: i64,
    /// Age of the oldest record that has not been processed; 0 when there is none, `None` when it could not be read.
    pub seconds: Option<f64>,
}

impl Lag {
    /// The topic without the prefix.
    pub fn topic(&self) -> String {
        Topic::Commands.of(self.service, "")
    }
}

/// A service's group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Whose.
    pub service: Service,
    /// By name.
    pub members: Vec<Member>,
}

/// How far a partition reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Whose topic.
    pub service: Service,
    /// Which one.
    pub topic: Topic,
    /// The partition.
    pub partition: Partition,
    /// High watermark.
    pub high: i64,
    /// For how long the last stable offset has stood still behind it.
    pub unstable: Duration,
}

impl End {
    /// The topic without the prefix.
    pub fn topic(&self) -> String {
        self.topic.of(self.service, "")
    }
}

/// Looks again and again, and remembers what makes the next look cheaper. Blocks.
pub struct BrokerProbe {
    cluster: Cluster,
    /// In the name of each group, so that its offsets can be asked for; nothing is subscribed, so none is joined.
    groups: Vec<(Service, BaseConsumer<Silent>)>,
    /// Is told last stable offsets where the others are told high watermarks.
    stable: BaseConsumer<Silent>,
    stability: Stability<(Service, Topic, Partition)>,
    oldest: Oldest,
    dead_letters: DeadLetters,
}

impl BrokerProbe {
    /// One that is replaced when it fails although a fresh one does not. Dropping it does not wait for the broker.
    ///
    /// # Errors
    ///
    /// A setting is refused.
    pub fn renewable(cluster: Cluster) -> KafkaResult<Renewable<Self>> {
        Renewable::new(format!("{}lag", cluster.prefix), move |client_id| {
            Self::new(&cluster, client_id)
        })
    }

    /// Has not looked yet.
    fn new(cluster: &Cluster, client_id: &str) -> KafkaResult<Self> {
        // Committed offsets are told as they stand, also while a transaction is about to move them.
        let group = |service: Service| {
            let mut config = settings::reader(cluster, "read_uncommitted");
            config
                .set("group.id", cluster.group(service))
                .set("client.id", client_id);
            Ok((service, client(config)?))
        };
        let mut stable = settings::reader(cluster, "read_committed");
        stable.set("client.id", client_id);
        Ok(Self {
            cluster: cluster.clone(),
            groups: Service::ALL
                .into_iter()
                .map(group)
                .collect::<KafkaResult<_>>()?,
            stable: client(stable)?,
            stability: Stability::default(),
            oldest: Oldest::new(cluster)?,
            dead_letters: DeadLetters::new(cluster)?,
        })
    }

    /// Looks at everything.
    ///
    /// # Errors
    ///
    /// The broker does not answer, or a topic is missing: nothing was seen then.
    pub fn look(&mut self) -> KafkaResult<ProbeResult> {
        let looked = self.see();
        if looked.is_err() {
            // Nobody knows what has moved meanwhile.
            self.stability = Stability::default();
        }
        looked
    }

    fn see(&mut self) -> KafkaResult<ProbeResult> {
        self.listen();
        let mut look = ProbeResult::default();
        let mut waiting = Vec::new();
        for (service, client) in &self.groups {
            let name = self.cluster.group(*service);
            look.groups.push(Group {
                service: *service,
                members: members(client, &name)?,
            });
            let committed = committed(client, &self.cluster, *service, TIMEOUT)?;
            for topic in READ {
                let name = self.cluster.topic(*service, topic);
                for partition in 0..Partition::from(self.cluster.partitions) {
                    // Stable first: the other way round, what ends in between would look held up.
                    let (_, stable) = self.stable.fetch_watermarks(&name, partition, TIMEOUT)?;
                    let (low, high) = client.fetch_watermarks(&name, partition, TIMEOUT)?;
                    let place = (*service, topic, partition);
                    let unstable = self.stability.held_up(place, stable, high, Instant::now());
                    look.ends.push(End {
                        service: *service,
                        topic,
                        partition,
                        high,
                        unstable,
                    });
                    if topic == Topic::Commands {
                        // Whoever has committed nothing begins at the beginning.
                        let position = committed.get(&partition).copied().unwrap_or(low).max(low);
                        waiting.push(Waiting {
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
        let appended = self.oldest.appended(&waiting)?;
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let lag = |waiting: &Waiting| {
            let oldest = appended.get(&(waiting.service, waiting.partition));
            waiting.lag(oldest.copied(), now_ms)
        };
        look.lags = waiting.iter().map(lag).collect();
        look.dead_letters = self.dead_letters.count(&self.stable)?;
        Ok(look)
    }

    /// What a client reports is kept until it is polled.
    fn listen(&self) {
        let groups = self.groups.iter().map(|(_, client)| client);
        for client in groups.chain([&self.stable]) {
            while client.poll(Duration::ZERO).is_some() {}
        }
    }
}

/// Where a group stands in a partition of its commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Whose group.
    pub service: Service,
    /// The partition.
    pub partition: Partition,
    /// The first offset that has not been processed.
    pub position: i64,
    /// The first that cannot be read yet.
    pub stable: i64,
    /// The end.
    pub high: i64,
    /// For how long `stable` has stood still before it.
    pub unstable: Duration,
}

impl Waiting {
    /// `oldest` is the append time of the oldest record that can be read, `Some(None)` when there is none, `None` when
    /// it is not known. Behind the last stable offset a record waits for as long as that stands still.
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

fn members(client: &BaseConsumer<Silent>, group: &str) -> KafkaResult<Vec<Member>> {
    let list = client.client().fetch_group_list(Some(group), TIMEOUT)?;
    let found = list.groups().iter().find(|found| found.name() == group);
    Ok(found.map_or_else(Vec::new, |found| members::of(found, &format!("{group}."))))
}

/// Whether nobody has answered: any other failure is an answer, if not the one that was hoped for.
pub fn is_silence(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::OperationTimedOut
                // The client was told of no leader; it did not ask.
                | RDKafkaErrorCode::UnknownPartition
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_record_waits_since_its_append_or_since_nobody_may_read_it() {
        let waiting = |position, stable, high, unstable| Waiting {
            service: Service::Orders,
            partition: 0,
            position,
            stable,
            high,
            unstable: Duration::from_secs(unstable),
        };
        let lag = |waiting: Waiting, oldest| {
            let lag = waiting.lag(oldest, 60_000);
            (lag.records, lag.seconds)
        };
        assert_eq!(lag(waiting(7, 7, 7, 0), None), (0, Some(0.0)));
        assert_eq!(
            lag(waiting(4, 7, 7, 0), Some(Some(50_000))),
            (3, Some(10.0))
        );
        // Markers only, and a transaction that does not end.
        assert_eq!(lag(waiting(6, 7, 7, 0), Some(None)), (1, Some(0.0)));
        assert_eq!(lag(waiting(7, 7, 9, 5), Some(None)), (2, Some(5.0)));
        assert_eq!(lag(waiting(4, 7, 9, 5), Some(Some(58_000))), (5, Some(5.0)));
        // Not read in time: no age is better than a wrong one.
        assert_eq!(lag(waiting(4, 7, 7, 0), None), (3, None));
        // The broker's clock is ahead.
        assert_eq!(lag(waiting(4, 7, 7, 0), Some(Some(61_000))), (3, Some(0.0)));
    }
}
