//! Whether the broker answers, and who it is.

use std::sync::Arc;
use std::time::Duration;

use engine::Cluster;
use engine::log::kafka::settings;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::Finding;
use terminal::count;

pub const PART: &str = "broker";

/// Less than the deadline: librdkafka tries again and again until then.
pub const PATIENCE: Duration = Duration::from_secs(4);

/// Librdkafka asks for the broker's version only to speak with it, and tells nobody.
pub async fn examine(cluster: &Cluster) -> Finding {
    let cluster = Arc::new(cluster.clone());
    let bootstrap = cluster.bootstrap.clone();
    // The clients of the log block.
    let looked = tokio::task::spawn_blocking(move || look(&cluster)).await;
    match looked {
        Ok(Ok(detail)) => Finding::ok(PART, format!("{bootstrap}: {detail}")),
        Ok(Err(error)) => unreachable(PART, &bootstrap, &super::chain(&error)),
        Err(error) => unreachable(PART, &bootstrap, &error.to_string()),
    }
}

fn look(cluster: &Cluster) -> Result<String, rdkafka::error::KafkaError> {
    let client: BaseConsumer = settings::admin(cluster).create()?;
    let metadata = client.fetch_metadata(None, PATIENCE)?;
    let brokers = match metadata.brokers().len() {
        1 => "1 broker".to_owned(),
        brokers => format!("{} brokers", count(brokers)),
    };
    let cluster_id = client.client().fetch_cluster_id(PATIENCE);
    Ok(match cluster_id {
        Some(id) => format!("{brokers} of cluster {id}"),
        None => brokers,
    })
}

/// What every part that stands on the broker says without it.
pub fn unreachable(part: &'static str, bootstrap: &str, reason: &str) -> Finding {
    Finding::failed(
        part,
        format!("the broker at {bootstrap} does not answer: {reason}"),
        "start it (make up), or name another with --kafka",
    )
}
