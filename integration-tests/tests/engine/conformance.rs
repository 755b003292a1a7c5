//! The conformance suite on Kafka.

use std::sync::Arc;

use contracts::{Service, Topic};
use engine::Cluster;
use engine::log::kafka::KafkaLog;
use engine::log::{Input, Partition};
use harness::conformance::{self, PARTITIONS, SERVICE};
use harness::{KafkaFixture, kafka_fixture};

struct Kafka {
    fixture: KafkaFixture,
}

struct KafkaTransaction {
    open: kafka_fixture::OpenTransaction,
    cluster: Arc<Cluster>,
}

fn kafka() -> Kafka {
    Kafka {
        fixture: KafkaFixture::new(PARTITIONS),
    }
}

fn record(partition: Partition, payload: &str) -> Input {
    Input {
        partition,
        payload: Some(payload.as_bytes().to_vec()),
        ..Input::default()
    }
}

impl conformance::LogEnvironment for Kafka {
    type Log = KafkaLog;
    type Transaction = KafkaTransaction;

    fn join(&self, instance: &str) -> KafkaLog {
        KafkaLog::new(Arc::clone(&self.fixture.cluster), SERVICE, instance).unwrap()
    }

    fn append(&self, topic: Topic, partition: Partition, payload: &str) {
        self.fixture
            .write(SERVICE, topic, &record(partition, payload));
    }

    fn begin(&self) -> KafkaTransaction {
        KafkaTransaction {
            open: self.fixture.begin(),
            cluster: Arc::clone(&self.fixture.cluster),
        }
    }

    fn visible(&self, service: Service, topic: Topic, partition: Partition) -> Vec<String> {
        let inputs = self.fixture.read(service, topic);
        let there = inputs
            .into_iter()
            .filter(|input| input.partition == partition);
        there
            .map(|input| String::from_utf8(input.payload.unwrap()).unwrap())
            .collect()
    }

    fn end(&self, topic: Topic, partition: Partition) -> i64 {
        self.fixture.end(SERVICE, topic, partition)
    }
}

impl conformance::ExternalTransaction for KafkaTransaction {
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
