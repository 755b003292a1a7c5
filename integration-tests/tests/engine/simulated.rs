//! The conformance suite on the simulated log.

use std::rc::Rc;

use contracts::{Service, Topic};
use engine::log::Partition;
use engine::log::simulated::{Broker, Clock, ExternalTransaction, Journal, NoFaults, SimulatedLog};
use harness::conformance::{self, PARTITIONS, SERVICE};

struct SimulatedTransaction(ExternalTransaction);

struct Simulated {
    broker: Broker,
}

fn simulated() -> Simulated {
    let clock = Clock::default();
    let journal = Journal::new(clock.clone(), 0);
    Simulated {
        broker: Broker::new(clock, journal, PARTITIONS),
    }
}

impl conformance::LogEnvironment for Simulated {
    type Log = SimulatedLog;
    type Transaction = SimulatedTransaction;

    fn join(&self, instance: &str) -> SimulatedLog {
        let faults = Rc::new(NoFaults(self.broker.clone()));
        SimulatedLog::new(self.broker.clone(), faults, SERVICE, instance, None).unwrap()
    }

    fn append(&self, topic: Topic, partition: Partition, payload: &str) {
        let payload = Some(payload.as_bytes().to_vec());
        self.broker
            .append((SERVICE, topic, partition), None, payload, Vec::new());
    }

    fn begin(&self) -> SimulatedTransaction {
        SimulatedTransaction(self.broker.begin("another producer"))
    }

    fn visible(&self, service: Service, topic: Topic, partition: Partition) -> Vec<String> {
        self.broker.run_pending_actions();
        let fetched = self
            .broker
            .fetch((service, topic, partition), 0, usize::MAX);
        let payloads = fetched
            .inputs
            .into_iter()
            .map(|input| input.payload.unwrap());
        payloads
            .map(|payload| String::from_utf8(payload).unwrap())
            .collect()
    }

    fn end(&self, topic: Topic, partition: Partition) -> i64 {
        self.broker.run_pending_actions();
        self.broker.ends((SERVICE, topic, partition)).high
    }
}

impl conformance::ExternalTransaction for SimulatedTransaction {
    fn append(&self, topic: Topic, partition: Partition, payload: &str) {
        self.0
            .append((SERVICE, topic, partition), payload.as_bytes());
    }

    fn commit(self) {
        self.0.end(true);
    }

    fn abort(self) {
        self.0.end(false);
    }
}

harness::conformance!(simulated());
