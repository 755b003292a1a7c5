//! Whose the partitions are, and how far their owners lie behind.

use std::collections::BTreeSet;

use contracts::Service;
use serde::Serialize;

use lag::ProbeResult;

/// What the broker tells.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Groups {
    /// Where it was asked.
    pub broker: String,
    /// Why it told nothing.
    pub failure: Option<String>,
    /// Of every service, by owner; the partitions that nobody owns stand last.
    pub groups: Vec<Share>,
    /// Partitions in which a transaction has not ended for a while, and for how many seconds.
    pub held_up: Vec<HeldUp>,
    /// Of the topics that have some.
    pub dead_letters: Vec<DeadLetters>,
    /// Whether the dead letters of every topic have been counted.
    pub all_counted: bool,
}

/// Some partitions of a service's commands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Share {
    /// Whose commands.
    pub service: &'static str,
    /// The instance; `None`: nobody.
    pub owner: Option<String>,
    /// Which ones.
    pub partitions: Vec<i32>,
    /// Offsets that are not processed.
    pub lag_records: i64,
    /// Age of the oldest of them; 0 when there is none, `None` when it is not known.
    pub lag_seconds: Option<f64>,
}

/// A partition that nobody can read on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeldUp {
    /// Without the prefix.
    pub topic: String,
    /// Which one.
    pub partition: i32,
    /// For how long.
    pub seconds: f64,
}

/// A topic with dead letters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeadLetters {
    /// Without the prefix.
    pub topic: String,
    /// How many.
    pub records: usize,
}

impl Groups {
    /// From a look at the broker.
    pub fn new(broker: &str, look: &Result<ProbeResult, String>, partitions: u16) -> Self {
        let look = match look {
            Ok(look) => look,
            Err(failure) => {
                return Self {
                    broker: broker.to_owned(),
                    failure: Some(failure.clone()),
                    ..Self::default()
                };
            }
        };
        let held_up = look.ends.iter().filter(|end| !end.unstable.is_zero());
        let dead = look.dead_letters.iter().filter(|(_, records)| *records > 0);
        Self {
            broker: broker.to_owned(),
            failure: None,
            groups: Service::ALL
                .into_iter()
                .flat_map(|service| shares(look, service, partitions))
                .collect(),
            held_up: held_up
                .map(|end| HeldUp {
                    topic: end.topic(),
                    partition: end.partition,
                    seconds: end.unstable.as_secs_f64(),
                })
                .collect(),
            dead_letters: dead
                .map(|(topic, records)| DeadLetters {
                    topic: topic.clone(),
                    records: *records,
                })
                .collect(),
            all_counted: look.dead_letters.len() == Service::ALL.len(),
        }
    }
}

fn shares(look: &ProbeResult, service: Service, partitions: u16) -> Vec<Share> {
    let share = |owner: Option<&str>, partitions: Vec<i32>| {
        let own = || {
            look.lags
                .iter()
                .filter(|lag| lag.service == service && partitions.contains(&lag.partition))
        };
        Share {
            service: service.name(),
            owner: owner.map(str::to_owned),
            lag_records: own().map(|lag| lag.records).sum(),
            lag_seconds: own()
                .map(|lag| lag.seconds)
                .try_fold(0.0, |oldest, seconds| Some(f64::max(oldest, seconds?))),
            partitions,
        }
    };
    let mut free: BTreeSet<_> = (0..i32::from(partitions)).collect();
    let mut shares = Vec::new();
    let group = look.groups.iter().find(|group| group.service == service);
    for member in group.into_iter().flat_map(|group| &group.members) {
        for partition in &member.partitions {
            free.remove(partition);
        }
        shares.push(share(Some(&member.name), member.partitions.clone()));
    }
    if !free.is_empty() {
        shares.push(share(None, free.into_iter().collect()));
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use lag::{Group, Lag, Member};

    #[test]
    fn partitions_without_an_owner_are_shown_as_such() {
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
        let look = ProbeResult {
            lags: vec![lag(0, 5), lag(1, 70), lag(2, 30)],
            groups: vec![Group {
                service: Service::Orders,
                members: vec![member],
            }],
            dead_letters: vec![("orders.dlq".into(), 0), ("payments.dlq".into(), 2)],
            ..ProbeResult::default()
        };
        let groups = Groups::new("here:1", &Ok(look), 3);
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
        assert!(!groups.all_counted, "two topics are still read");
    }

    #[test]
    fn a_broker_that_is_away_owns_nothing_and_says_why() {
        let groups = Groups::new("here:1", &Err("refused".into()), 4);
        assert_eq!(groups.failure.as_deref(), Some("refused"));
        assert!(groups.groups.is_empty());
    }
}
