//! Owners, lag and blocked partitions, from the broker.

use std::collections::BTreeSet;

use contracts::Service;
use serde::Serialize;

use lag::ProbeResult;

/// The consumer groups as the broker reports them. The fields are keys of `--json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Groups {
    /// Bootstrap servers.
    pub broker: String,
    /// Why the probe failed.
    pub failure: Option<String>,
    /// The partitions of every service by owner; those without an owner come last.
    pub groups: Vec<PartitionGroup>,
    /// Partitions whose last stable offset does not advance because of an open transaction.
    pub held_up: Vec<BlockedPartition>,
    /// Topics with dead letters.
    pub dead_letters: Vec<DeadLetters>,
    /// Whether the dead letters of all topics are counted.
    pub all_counted: bool,
}

/// The partitions of a command topic that one instance owns, or that have no owner. The fields are keys of `--json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PartitionGroup {
    /// The service.
    pub service: &'static str,
    /// The instance; `None` when the partitions have no owner.
    pub owner: Option<String>,
    /// The partitions.
    pub partitions: Vec<i32>,
    /// Number of offsets that are not processed.
    pub lag_records: i64,
    /// Age of the oldest of them; 0 when there is none, `None` when not known.
    pub lag_seconds: Option<f64>,
}

/// A partition that consumers cannot read past an open transaction. The fields are keys of `--json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BlockedPartition {
    /// The topic, without prefix.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// How long the last stable offset has not advanced.
    pub seconds: f64,
}

/// A topic with dead letters. The fields are keys of `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeadLetters {
    /// The topic, without prefix.
    pub topic: String,
    /// Number of dead letters.
    pub records: usize,
}

impl Groups {
    /// Groups the result of a probe of the broker.
    pub fn new(broker: &str, probe: &Result<ProbeResult, String>, partitions: u16) -> Self {
        let probe = match probe {
            Ok(probe) => probe,
            Err(failure) => {
                return Self {
                    broker: broker.to_owned(),
                    failure: Some(failure.clone()),
                    ..Self::default()
                };
            }
        };
        let held_up = probe.ends.iter().filter(|end| !end.unstable.is_zero());
        let with_records = probe
            .dead_letters
            .iter()
            .filter(|(_, records)| *records > 0);
        Self {
            broker: broker.to_owned(),
            failure: None,
            groups: Service::ALL
                .into_iter()
                .flat_map(|service| partition_groups(probe, service, partitions))
                .collect(),
            held_up: held_up
                .map(|end| BlockedPartition {
                    topic: end.topic(),
                    partition: end.partition,
                    seconds: end.unstable.as_secs_f64(),
                })
                .collect(),
            dead_letters: with_records
                .map(|(topic, records)| DeadLetters {
                    topic: topic.clone(),
                    records: *records,
                })
                .collect(),
            all_counted: probe.dead_letters.len() == Service::ALL.len(),
        }
    }
}

fn partition_groups(probe: &ProbeResult, service: Service, partitions: u16) -> Vec<PartitionGroup> {
    let group_of = |owner: Option<&str>, partitions: Vec<i32>| {
        let own = || {
            probe
                .lags
                .iter()
                .filter(|lag| lag.service == service && partitions.contains(&lag.partition))
        };
        PartitionGroup {
            service: service.name(),
            owner: owner.map(str::to_owned),
            lag_records: own().map(|lag| lag.records).sum(),
            lag_seconds: own()
                .map(|lag| lag.seconds)
                .try_fold(0.0, |oldest, seconds| Some(f64::max(oldest, seconds?))),
            partitions,
        }
    };
    let mut unowned: BTreeSet<_> = (0..i32::from(partitions)).collect();
    let mut partition_groups = Vec::new();
    let group = probe.groups.iter().find(|group| group.service == service);
    for member in group.into_iter().flat_map(|group| &group.members) {
        for partition in &member.partitions {
            unowned.remove(partition);
        }
        partition_groups.push(group_of(Some(&member.name), member.partitions.clone()));
    }
    if !unowned.is_empty() {
        partition_groups.push(group_of(None, unowned.into_iter().collect()));
    }
    partition_groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use lag::{Group, Lag, Member};

    #[test]
    fn partitions_without_an_owner_form_a_group() {
        let lag = |partition: i32, records: i64| Lag {
            service: Service::Orders,
            partition,
            records,
            seconds: Some(records as f64 / 10.0),
        };
        let member = Member {
            name: "host-1".into(),
            partitions: vec![0, 2],
        };
        let probe = ProbeResult {
            lags: vec![lag(0, 5), lag(1, 70), lag(2, 30)],
            groups: vec![Group {
                service: Service::Orders,
                members: vec![member],
            }],
            dead_letters: vec![("orders.dlq".into(), 0), ("payments.dlq".into(), 2)],
            ..ProbeResult::default()
        };
        let groups = Groups::new("here:1", &Ok(probe), 3);
        let orders = &groups.groups[..2];
        assert_eq!(orders[0].owner.as_deref(), Some("host-1"));
        assert_eq!(
            (orders[0].lag_records, orders[0].lag_seconds),
            (35, Some(3.0))
        );
        assert_eq!((&orders[1].owner, &orders[1].partitions), (&None, &vec![1]));
        assert_eq!(orders[1].lag_records, 70);
        assert_eq!(groups.groups[2].service, "inventory");
        assert_eq!(groups.groups[2].partitions, [0, 1, 2]);
        assert_eq!(groups.dead_letters.len(), 1);
        assert!(!groups.all_counted, "two topics are not counted yet");
    }

    #[test]
    fn a_failed_probe_gives_its_error_and_no_groups() {
        let groups = Groups::new("here:1", &Err("refused".into()), 4);
        assert_eq!(groups.failure.as_deref(), Some("refused"));
        assert!(groups.groups.is_empty());
    }
}
