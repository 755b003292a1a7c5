//! Address of a cluster and the names of its topics and groups.

use contracts::{Service, Topic};

use super::{Partition, partitioner};

/// Address of a Kafka cluster, and the part of it that belongs to this system.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Bootstrap servers.
    pub bootstrap: String,
    /// Prefix of every topic, group and transactional id.
    pub prefix: String,
    /// Partitions of every topic.
    pub partitions: u16,
}

impl Cluster {
    /// Full name of a topic.
    pub fn topic(&self, service: Service, topic: Topic) -> String {
        topic.of(service, &self.prefix)
    }

    /// Full name of the group of a service's workers.
    pub fn group(&self, service: Service) -> String {
        format!("{}{service}", self.prefix)
    }

    /// The partition that `key` belongs to.
    pub fn partition_of(&self, key: &[u8]) -> Partition {
        partitioner::partition_of(key, self.partitions)
    }
}
