//! Checks that the broker answers; reports the cluster.

use std::sync::Arc;
use std::time::Duration;

use engine::Cluster;
use engine::log::kafka::settings;
use platform_client::kafka::client;
use rdkafka::consumer::Consumer as _;
use terminal::count;

use super::CheckResult;

pub const PART: &str = "broker";

/// Less than [`super::DEADLINE`], so that the error of librdkafka, which retries until this timeout, is reported.
pub const TIMEOUT: Duration = Duration::from_secs(4);

/// Reports the number of brokers and the id of the cluster. Librdkafka does not expose the version of the broker.
pub async fn check(cluster: &Cluster) -> CheckResult {
    let cluster = Arc::new(cluster.clone());
    let bootstrap = cluster.bootstrap.clone();
    // The Kafka clients block.
    let probed = tokio::task::spawn_blocking(move || probe(&cluster)).await;
    match probed {
        Ok(Ok(detail)) => CheckResult::ok(PART, format!("{bootstrap}: {detail}")),
        Ok(Err(error)) => unreachable(PART, &bootstrap, &super::error_chain(&error)),
        Err(error) => unreachable(PART, &bootstrap, &error.to_string()),
    }
}

fn probe(cluster: &Cluster) -> Result<String, rdkafka::error::KafkaError> {
    let client = client(settings::admin(cluster))?;
    let metadata = client.fetch_metadata(None, TIMEOUT)?;
    let brokers = match metadata.brokers().len() {
        1 => "1 broker".to_owned(),
        brokers => format!("{} brokers", count(brokers)),
    };
    let cluster_id = client.client().fetch_cluster_id(TIMEOUT);
    Ok(match cluster_id {
        Some(id) => format!("{brokers} of cluster {id}"),
        None => brokers,
    })
}

/// The result of every check that needs the broker when it does not answer.
pub fn unreachable(part: &'static str, bootstrap: &str, reason: &str) -> CheckResult {
    CheckResult::failed(
        part,
        format!("the broker at {bootstrap} does not answer: {reason}"),
        "start it (make up), or name another with --kafka",
    )
}
