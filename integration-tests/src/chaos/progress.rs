//! Offsets of groups and topics, read from the broker without joining a group.

use std::collections::BTreeMap;

use contracts::{Service, Topic};
use rdkafka::Offset;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::PARTITIONS;
use std::time::Duration;

const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// Reads offsets from a broker.
pub struct Offsets {
    prefix: String,
    groups: BTreeMap<&'static str, BaseConsumer>,
}

impl Offsets {
    /// For the topics and groups with this prefix.
    pub fn new(bootstrap: &str, prefix: &str) -> Self {
        let group = |service: Service| {
            let consumer = ClientConfig::new()
                .set("bootstrap.servers", bootstrap)
                .set("group.id", format!("{prefix}{service}"))
                .set("isolation.level", "read_uncommitted")
                .set("reconnect.backoff.max.ms", "500")
                .set("log_level", "0")
                .create()
                .expect("the settings are valid");
            (service.name(), consumer)
        };
        Self {
            prefix: prefix.to_owned(),
            groups: Service::ALL.into_iter().map(group).collect(),
        }
    }

    /// Committed offset of each partition of these services' groups; -1 where it is unknown.
    pub fn committed(&self, services: &[Service]) -> Vec<i64> {
        let ask = |service: &Service| {
            let topic = Topic::Commands.of(*service, &self.prefix);
            let mut asked = TopicPartitionList::new();
            asked.add_partition_range(&topic, 0, PARTITIONS.cast_signed() - 1);
            let answer = self.groups[service.name()].committed_offsets(asked, LOOKUP_TIMEOUT);
            let answer = answer.unwrap_or_default();
            (0..PARTITIONS.cast_signed())
                .map(|partition| {
                    let element = answer.find_partition(&topic, partition);
                    match element.map(|element| element.offset()) {
                        Some(Offset::Offset(offset)) => offset,
                        _ => -1,
                    }
                })
                .collect::<Vec<_>>()
        };
        services.iter().flat_map(ask).collect()
    }

    /// Partitions with lag, of each group and of the read model, whose positions are given.
    pub fn lagging(&self, positions: &BTreeMap<String, i64>) -> Vec<String> {
        let mut lagging = Vec::new();
        for service in Service::ALL {
            let committed = self.committed(&[service]);
            for (partition, committed) in (0..).zip(committed) {
                let commands = Topic::Commands.of(service, &self.prefix);
                let events = Topic::Events.of(service, &self.prefix);
                // A partition without any record has no committed offset.
                if self.end_offset(service, &commands, partition) > committed.max(0) {
                    lagging.push(format!("{commands} {partition}"));
                }
                let source = format!("{events} {partition}");
                let projected = positions.get(&source).copied().unwrap_or(0);
                if self.end_offset(service, &events, partition) > projected {
                    lagging.push(source);
                }
            }
        }
        lagging
    }

    /// Number of offsets of a service's commands that its group has not processed.
    pub fn backlog(&self, service: Service) -> i64 {
        let commands = Topic::Commands.of(service, &self.prefix);
        let committed = self.committed(&[service]);
        (0..)
            .zip(committed)
            .map(|(partition, committed)| {
                self.end_offset(service, &commands, partition) - committed.max(0)
            })
            .sum()
    }

    /// Number of offsets of a service's events.
    pub fn events(&self, service: Service) -> i64 {
        let events = Topic::Events.of(service, &self.prefix);
        (0..PARTITIONS.cast_signed())
            .map(|partition| self.end_offset(service, &events, partition))
            .sum()
    }

    /// The high watermark, or `i64::MAX` when the broker does not answer.
    fn end_offset(&self, service: Service, topic: &str, partition: i32) -> i64 {
        let ends = self.groups[service.name()].fetch_watermarks(topic, partition, LOOKUP_TIMEOUT);
        ends.map_or(i64::MAX, |(_, high)| high)
    }
}
