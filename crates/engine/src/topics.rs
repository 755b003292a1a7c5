//! Creates and checks the topics of the system.

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

use crate::log::Cluster;
use crate::log::kafka::client::BackgroundDrop;
use crate::log::kafka::context::LoggingContext;
use crate::log::kafka::settings;

const TIMEOUT: Duration = Duration::from_secs(15);
/// Tries to fetch the topics.
const METADATA_TRIES: u32 = 4;
/// Time-out of one try.
const METADATA_TIMEOUT: Duration = Duration::from_secs(4);

/// Result of [`apply`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Topics that were created.
    pub created: Vec<String>,
    /// Topics that existed already.
    pub present: Vec<String>,
}

/// Why the topics are unusable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The broker does not answer, or refuses the request.
    #[error("broker at {bootstrap}: {reason}")]
    Broker {
        /// Bootstrap servers.
        bootstrap: String,
        /// The failure.
        reason: String,
    },
    /// The partition count is fixed for life: keys would move to other partitions.
    #[error(
        "topic {topic} has {found} partitions, not {wanted}: the partition count is fixed for life; \
         set it back, or use another prefix"
    )]
    PartitionCount {
        /// Name of the topic.
        topic: String,
        /// Its partition count.
        found: usize,
        /// The configured partition count.
        wanted: u16,
    },
    /// Some topics are missing.
    #[error("topics are missing: {}; run `ordermesh topics apply`", .topics.join(", "))]
    Missing {
        /// Their names.
        topics: Vec<String>,
    },
}

/// A topic's setting that was changed after its creation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// Name of the topic.
    pub topic: String,
    /// Name of the setting.
    pub setting: &'static str,
    /// Its value; empty when the broker does not know the setting.
    pub found: String,
    /// The value that [`apply`] sets.
    pub wanted: &'static str,
}

/// Creates the missing topics; idempotent.
///
/// # Errors
///
/// The broker does not answer, or a topic has another number of partitions. No topic is created then.
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
    let broker = |reason: String| broker_error(cluster, reason);
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
            // Another process was faster.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(broker(format!("{topic}: {code}"))),
        }
    }
    wait_until_visible(cluster).await?;
    Ok(applied)
}

/// Waits until the new topics are in the broker's metadata; a consumer that subscribes earlier gets an unknown-topic
/// error.
async fn wait_until_visible(cluster: &Cluster) -> Result<(), Error> {
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

/// Checks that every topic exists with the configured number of partitions.
///
/// # Errors
///
/// The first wrong topic, or all missing ones.
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

/// The settings that differ from those of [`apply`].
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
        .map_err(|error| broker_error(cluster, error.to_string()))?;
    let (mut drifted, mut missing) = (Vec::new(), Vec::new());
    for resource in described {
        let resource = resource.map_err(|code| broker_error(cluster, code.to_string()))?;
        let OwnedResourceSpecifier::Topic(name) = &resource.specifier else {
            continue;
        };
        let Some((topic, _)) = names.iter().find(|(_, known)| known == name) else {
            continue;
        };
        // The client reports a missing topic as one without settings.
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

fn admin(cluster: &Cluster) -> Result<BackgroundDrop<AdminClient<DefaultClientContext>>, Error> {
    settings::admin(cluster)
        .create()
        .map(BackgroundDrop::new)
        .map_err(|error| broker_error(cluster, error.to_string()))
}

fn broker_error(cluster: &Cluster, reason: String) -> Error {
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
    let broker = |reason: String| broker_error(cluster, reason);
    let mut failure = String::new();
    for _ in 0..METADATA_TRIES {
        // A fresh client for each try: one that received the metadata of a fenced broker may not find it again.
        let client: BaseConsumer<LoggingContext> = settings::admin(cluster)
            .create_with_context(LoggingContext::default())
            .map_err(|error| broker(error.to_string()))?;
        match BackgroundDrop::new(client).fetch_metadata(None, METADATA_TIMEOUT) {
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
            // Decisions use this time, never a sender's clock.
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
            // Topics that were created together would roll all their segments at once: on a slow disk the broker
            // answers late while it does.
            ("segment.jitter.ms", "300000"),
            ("min.cleanable.dirty.ratio", "0.1"),
        ],
    }
}
