//! The topics of the system: made once, checked ever after.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use contracts::{Service, Topic};
use rdkafka::admin::{
    AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::types::RDKafkaErrorCode;

use crate::log::kafka::client::drop_in_background;
use crate::log::kafka::context::Quiet;
use crate::log::kafka::{Cluster, settings};

const TIMEOUT: Duration = Duration::from_secs(15);
/// The broker is asked so often for its topics, so long each time.
const TRIES: u32 = 4;
const TRY: Duration = Duration::from_secs(4);

/// What [`apply`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Made just now.
    pub created: Vec<String>,
    /// Stood already.
    pub present: Vec<String>,
}

/// Why the topics are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The broker does not answer or refuses.
    #[error("broker at {bootstrap}: {reason}")]
    Broker {
        /// Where.
        bootstrap: String,
        /// What it said.
        reason: String,
    },
    /// The partition count is fixed for life: keys would move to other partitions.
    #[error(
        "topic {topic} has {found} partitions, not {wanted}: the partition count is fixed for life; \
         set it back, or use another prefix"
    )]
    PartitionCount {
        /// Which topic.
        topic: String,
        /// What it has.
        found: usize,
        /// What the configuration says.
        wanted: u16,
    },
    /// Some topics are missing.
    #[error("topics are missing: {}; run `ordermesh topics apply`", .topics.join(", "))]
    Missing {
        /// Which ones.
        topics: Vec<String>,
    },
}

/// A topic's setting that is not the one it was made with: somebody has changed it since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// Which topic.
    pub topic: String,
    /// Name of the setting.
    pub setting: &'static str,
    /// What it is; empty when the broker does not know the setting.
    pub found: String,
    /// What [`apply`] sets.
    pub wanted: &'static str,
}

/// Makes the topics that are missing; running it again changes nothing.
///
/// # Errors
///
/// When the broker does not answer, or a topic has another number of partitions. Nothing is made then.
pub async fn apply(cluster: &Cluster, replication: i32) -> Result<Applied, Error> {
    let found = partition_counts(cluster)?;
    let mut applied = Applied::default();
    for (service, topic) in all() {
        let name = cluster.topic(service, topic);
        match found.get(&name) {
            Some(count) if *count != usize::from(cluster.partitions) => {
                return Err(Error::PartitionCount {
                    topic: name,
                    found: *count,
                    wanted: cluster.partitions,
                });
            }
            Some(_) => applied.present.push(name),
            None => applied.created.push(name),
        }
    }
    if applied.created.is_empty() {
        return Ok(applied);
    }
    let broker = |reason: String| broken(cluster, reason);
    let admin = admin(cluster)?;
    let names: Vec<_> = all()
        .map(|(service, topic)| (topic, cluster.topic(service, topic)))
        .filter(|(_, name)| applied.created.contains(name))
        .collect();
    let new: Vec<_> = names
        .iter()
        .map(|(topic, name)| {
            settings_of(*topic).iter().fold(
                NewTopic::new(
                    name,
                    i32::from(cluster.partitions),
                    TopicReplication::Fixed(replication),
                ),
                |new, (key, value)| new.set(key, value),
            )
        })
        .collect();
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
    let results = admin
        .create_topics(&new, &options)
        .await
        .map_err(|error| broker(error.to_string()))?;
    for result in results {
        match result {
            // Somebody else was quicker.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(broker(format!("{topic}: {code}"))),
        }
    }
    shown(cluster).await?;
    Ok(applied)
}

/// Waits until the broker shows its clients what it has just made; a consumer that comes earlier is told that there is
/// no such topic.
async fn shown(cluster: &Cluster) -> Result<(), Error> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match check(cluster) {
            Err(Error::Missing { .. } | Error::PartitionCount { .. })
                if Instant::now() < deadline =>
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            result => return result,
        }
    }
}

/// Checks that every topic stands with the configured number of partitions.
///
/// # Errors
///
/// What is not as it should be.
pub fn check(cluster: &Cluster) -> Result<(), Error> {
    let found = partition_counts(cluster)?;
    let mut missing = Vec::new();
    for (service, topic) in all() {
        let name = cluster.topic(service, topic);
        match found.get(&name) {
            None => missing.push(name),
            Some(count) if *count != usize::from(cluster.partitions) => {
                return Err(Error::PartitionCount {
                    topic: name,
                    found: *count,
                    wanted: cluster.partitions,
                });
            }
            Some(_) => {}
        }
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Error::Missing { topics: missing })
    }
}

/// The settings that are not as [`apply`] makes them.
///
/// # Errors
///
/// The broker does not answer, or a topic is missing.
pub async fn drifted(cluster: &Cluster) -> Result<Vec<Drift>, Error> {
    let names: Vec<_> = all()
        .map(|(service, topic)| (topic, cluster.topic(service, topic)))
        .collect();
    let resources: Vec<_> = names
        .iter()
        .map(|(_, name)| ResourceSpecifier::Topic(name))
        .collect();
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
    let described = admin(cluster)?
        .describe_configs(&resources, &options)
        .await
        .map_err(|error| broken(cluster, error.to_string()))?;
    let (mut drifted, mut missing) = (Vec::new(), Vec::new());
    for resource in described {
        let resource = resource.map_err(|code| broken(cluster, code.to_string()))?;
        let OwnedResourceSpecifier::Topic(name) = &resource.specifier else {
            continue;
        };
        let Some((topic, _)) = names.iter().find(|(_, known)| known == name) else {
            continue;
        };
        // The client tells of a topic that does not exist as one without any setting.
        if resource.entries.is_empty() {
            missing.push(name.clone());
            continue;
        }
        for &(setting, wanted) in settings_of(*topic) {
            let found = resource
                .get(setting)
                .and_then(|entry| entry.value.clone())
                .unwrap_or_default();
            if found != wanted {
                drifted.push(Drift {
                    topic: name.clone(),
                    setting,
                    found,
                    wanted,
                });
            }
        }
    }
    if missing.is_empty() {
        Ok(drifted)
    } else {
        Err(Error::Missing { topics: missing })
    }
}

fn admin(cluster: &Cluster) -> Result<AdminClient<DefaultClientContext>, Error> {
    settings::admin(cluster)
        .create()
        .map_err(|error| broken(cluster, error.to_string()))
}

fn broken(cluster: &Cluster, reason: String) -> Error {
    Error::Broker {
        bootstrap: cluster.bootstrap.clone(),
        reason,
    }
}

fn all() -> impl Iterator<Item = (Service, Topic)> {
    Service::ALL
        .into_iter()
        .flat_map(|service| Topic::ALL.into_iter().map(move |topic| (service, topic)))
}

fn partition_counts(cluster: &Cluster) -> Result<BTreeMap<String, usize>, Error> {
    let broker = |reason: String| broken(cluster, reason);
    let mut failure = String::new();
    for _ in 0..TRIES {
        // A fresh client for each try: one that was told of a broker that is fenced may not find it again.
        let client: BaseConsumer<Quiet> = settings::admin(cluster)
            .create_with_context(Quiet::default())
            .map_err(|error| broker(error.to_string()))?;
        let metadata = client.fetch_metadata(None, TRY);
        drop_in_background(client);
        match metadata {
            Ok(metadata) => {
                return Ok(metadata
                    .topics()
                    .iter()
                    .map(|topic| (topic.name().to_owned(), topic.partitions().len()))
                    .collect());
            }
            Err(error) => failure = error.to_string(),
        }
    }
    Err(broker(failure))
}

const fn settings_of(topic: Topic) -> &'static [(&'static str, &'static str)] {
    const WEEK_MS: &str = "604800000";
    match topic {
        Topic::Commands | Topic::Outcomes => &[
            ("cleanup.policy", "delete"),
            ("retention.ms", WEEK_MS),
            // Decisions take their time from here, never from a sender's clock.
            ("message.timestamp.type", "LogAppendTime"),
        ],
        Topic::Events | Topic::Dlq => &[
            ("cleanup.policy", "delete"),
            ("retention.ms", "-1"),
            ("retention.bytes", "-1"),
        ],
        Topic::State => &[
            ("cleanup.policy", "compact"),
            // Small segments, so that restore cost follows live data.
            ("segment.bytes", "33554432"),
            ("segment.ms", "600000"),
            ("min.cleanable.dirty.ratio", "0.1"),
        ],
    }
}
