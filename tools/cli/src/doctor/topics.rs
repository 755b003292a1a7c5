//! Checks that the topics exist with the partitions and settings with which they were created.

use engine::Cluster;
use engine::topics::{self, Drift, Error};
use terminal::count;

use super::CheckResult;
use super::broker::unreachable;

pub const PART: &str = "topics";

/// Advice when topics are missing.
pub const CREATE_HINT: &str = "make them with: ordermesh topics apply";

pub async fn check(cluster: &Cluster) -> CheckResult {
    let cluster_copy = cluster.clone();
    // The Kafka clients block.
    let checked = tokio::task::spawn_blocking(move || topics::check(&cluster_copy)).await;
    match checked {
        Ok(Ok(())) => settings(cluster).await,
        Ok(Err(error)) => error_result(&error),
        Err(error) => CheckResult::failed(PART, error.to_string(), CREATE_HINT),
    }
}

async fn settings(cluster: &Cluster) -> CheckResult {
    match topics::drifted(cluster).await {
        Ok(drifted) => evaluate(cluster, &drifted),
        Err(error) => error_result(&error),
    }
}

fn evaluate(cluster: &Cluster, drifted: &[Drift]) -> CheckResult {
    let all = count(platform_client::all_topics().len());
    let Some(first) = drifted.first() else {
        let partitions = count(cluster.partitions);
        return CheckResult::ok(
            PART,
            format!("{all} with {partitions} partitions each, settings as they were made"),
        );
    };
    let mut detail = format!(
        "{}: {} is {}, not {}",
        first.topic, first.setting, first.found, first.wanted
    );
    if drifted.len() > 1 {
        detail.push_str(&format!(", and {} more", count(drifted.len() - 1)));
    }
    CheckResult::warning(PART, detail, "set it back with Kafka's own tools")
}

fn error_result(error: &Error) -> CheckResult {
    match error {
        Error::Broker { bootstrap, reason } => unreachable(PART, bootstrap, reason),
        Error::Missing { topics } => {
            let all = count(platform_client::all_topics().len());
            let missing = count(topics.len());
            let first = topics.first().map_or("", String::as_str);
            CheckResult::failed(
                PART,
                format!("{missing} of {all} are missing, the first is {first}"),
                CREATE_HINT,
            )
        }
        Error::PartitionCount {
            topic,
            found,
            wanted,
        } => CheckResult::failed(
            PART,
            format!("{topic} has {found} partitions, not {wanted}"),
            "the count is fixed for life: set --partitions back, or use another --prefix",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Health;

    fn cluster() -> Cluster {
        Cluster {
            bootstrap: "here:1".into(),
            prefix: String::new(),
            partitions: 4,
        }
    }

    #[test]
    fn a_changed_setting_is_named() {
        assert_eq!(evaluate(&cluster(), &[]).health, Health::Ok);
        let drift = Drift {
            topic: "orders.events".into(),
            setting: "retention.ms",
            found: "1000".into(),
            wanted: "-1",
        };
        let result = evaluate(&cluster(), &[drift.clone(), drift]);
        assert_eq!(result.health, Health::Warning);
        assert_eq!(
            result.detail,
            "orders.events: retention.ms is 1000, not -1, and 1 more"
        );
    }

    #[test]
    fn the_advice_for_missing_topics_is_a_command() {
        let topics = vec!["a.orders.events".to_owned()];
        let result = error_result(&Error::Missing { topics });
        assert!(result.detail.contains("1 of 20"), "{result:?}");
        assert!(result.advice.contains("topics apply"), "{result:?}");
    }
}
