//! Whether the topics stand as they were made.

use engine::Cluster;
use engine::topics::{self, Drift, Error};

use super::Finding;
use super::broker::unreachable;
use terminal::count;

pub const PART: &str = "topics";

/// What makes them.
pub const MAKE: &str = "make them with: ordermesh topics apply";

pub async fn examine(cluster: &Cluster) -> Finding {
    let asked = cluster.clone();
    // The clients of the log block.
    let checked = tokio::task::spawn_blocking(move || topics::check(&asked)).await;
    match checked {
        Ok(Ok(())) => settings(cluster).await,
        Ok(Err(error)) => amiss(&error),
        Err(error) => Finding::failed(PART, error.to_string(), MAKE),
    }
}

async fn settings(cluster: &Cluster) -> Finding {
    match topics::drifted(cluster).await {
        Ok(drifted) => judge(cluster, &drifted),
        Err(error) => amiss(&error),
    }
}

fn judge(cluster: &Cluster, drifted: &[Drift]) -> Finding {
    let all = count(platform_client::all_topics().len());
    let Some(first) = drifted.first() else {
        let partitions = count(cluster.partitions);
        return Finding::ok(
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
    Finding::warning(PART, detail, "set it back with Kafka's own tools")
}

fn amiss(error: &Error) -> Finding {
    match error {
        Error::Broker { bootstrap, reason } => unreachable(PART, bootstrap, reason),
        Error::Missing { topics } => {
            let all = count(platform_client::all_topics().len());
            let missing = count(topics.len());
            let first = topics.first().map_or("", String::as_str);
            Finding::failed(
                PART,
                format!("{missing} of {all} are missing, the first is {first}"),
                MAKE,
            )
        }
        Error::PartitionCount {
            topic,
            found,
            wanted,
        } => Finding::failed(
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
    fn a_setting_that_somebody_has_changed_is_named() {
        assert_eq!(judge(&cluster(), &[]).health, Health::Ok);
        let drift = Drift {
            topic: "orders.events".into(),
            setting: "retention.ms",
            found: "1000".into(),
            wanted: "-1",
        };
        let finding = judge(&cluster(), &[drift.clone(), drift]);
        assert_eq!(finding.health, Health::Warning);
        assert_eq!(
            finding.detail,
            "orders.events: retention.ms is 1000, not -1, and 1 more"
        );
    }

    #[test]
    fn missing_topics_are_made_by_a_command() {
        let topics = vec!["a.orders.events".to_owned()];
        let finding = amiss(&Error::Missing { topics });
        assert!(finding.detail.contains("1 of 20"), "{finding:?}");
        assert!(finding.advice.contains("topics apply"), "{finding:?}");
    }
}
