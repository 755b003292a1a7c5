//! The Kafka implementation of the log does what every implementation must.

use std::sync::Arc;

use contracts::{Service, Topic};
use engine::Cluster;
use engine::log::kafka::KafkaLog;
use engine::log::{Input, Partition};
use harness::conformance::{self, PARTITIONS, SERVICE};
use harness::{KafkaFixture, kafka_fixture};

struct Kafka {
    stand: KafkaFixture,
}

struct Open {
    open: kafka_fixture::Open,
    cluster: Arc<Cluster>,
}

fn kafka() -> Kafka {
    Kafka {
        stand: KafkaFixture::new(PARTITIONS),
    }
}

fn record(partition: Partition, payload: &str) -> Input {
    Input {
        partition,
        payload: Some(payload.as_bytes().to_vec()),
        ..Input::default()
    }
}

impl conformance::World for Kafka {
    type Log = KafkaLog;
    type Open = Open;

    fn join(&self, instance: &str) -> KafkaLog {
        KafkaLog::new(Arc::clone(&self.stand.cluster), SERVICE, instance).unwrap()
    }

    fn append(&self, topic: Topic, partition: Partition, payload: &str) {
        self.stand
            .write(SERVICE, topic, &record(partition, payload));
    }

    fn begin(&self) -> Open {
        Open {
            open: self.stand.begin(),
            cluster: Arc::clone(&self.stand.cluster),
        }
    }

    fn visible(&self, service: Service, topic: Topic, partition: Partition) -> Vec<String> {
        let inputs = self.stand.read(service, topic);
        let there = inputs
            .into_iter()
            .filter(|input| input.partition == partition);
        there
            .map(|input| String::from_utf8(input.payload.unwrap()).unwrap())
            .collect()
    }

    fn end(&self, topic: Topic, partition: Partition) -> i64 {
        self.stand.end(SERVICE, topic, partition)
    }
}

impl conformance::Open for Open {
    fn append(&self, topic: Topic, partition: Partition, payload: &str) {
        self.open.write(
            &self.cluster.topic(SERVICE, topic),
            &record(partition, payload),
        );
    }

    fn commit(self) {
        self.open.commit();
    }

    fn abort(self) {
        self.open.abort();
    }
}

harness::conformance!(kafka());
