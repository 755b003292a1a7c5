//! The worker's consumer: a static member of the service's group.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use contracts::{Service, Topic};
use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use super::context::report;
use super::{Cluster, Error, Input, LOOKUP_TIMEOUT, Partition, Signal, error, input, settings};

pub struct Intake {
    consumer: BaseConsumer<Rebalances>,
    topic: String,
    /// Partitions whose end has been met, until a poll brings nothing more of them.
    at_end: BTreeSet<Partition>,
}

/// Carries out rebalances inside the poll that meets them and tells the worker afterwards.
#[derive(Default)]
struct Rebalances {
    signals: Mutex<Vec<Signal>>,
}

impl ClientContext for Rebalances {
    fn error(&self, error: KafkaError, reason: &str) {
        report(&error, reason);
    }
}

impl ConsumerContext for Rebalances {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        error: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let numbers: Vec<_> =
            partitions.elements().iter().map(|element| element.partition()).collect();
        // The incremental calls are the only ones that fit a cooperative group, and no transaction can be open
        // here: the worker polls only between its transactions.
        let (done, signal) = match error {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                // Where a partition starts is for take-over to say; until then nothing may be fetched, so the
                // offset given here is never used.
                for number in &numbers {
                    let topic = partitions.elements()[0].topic().to_owned();
                    let _ = partitions.set_partition_offset(&topic, *number, Offset::Beginning);
                }
                let assigned = consumer
                    .incremental_assign(partitions)
                    .and_then(|()| consumer.pause(partitions));
                (assigned, Signal::Assigned(numbers))
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                (consumer.incremental_unassign(partitions), Signal::Revoked(numbers))
            }
            error => {
                tracing::warn!(error = ?error, "rebalance failed");
                return;
            }
        };
        if let Err(error) = done {
            tracing::error!(%error, ?signal, "assignment could not be changed");
        }
        self.signals.lock().expect("no holder panics").push(signal);
    }
}

impl Intake {
    pub fn join(
        cluster: &Cluster,
        service: Service,
        group: &str,
        instance: &str,
    ) -> Result<Self, Error> {
        let topic = cluster.topic(service, Topic::Commands);
        let consumer: BaseConsumer<Rebalances> = settings::group_member(cluster, group, instance)
            .create_with_context(Rebalances::default())
            .map_err(error)?;
        consumer.subscribe(&[&topic]).map_err(error)?;
        Ok(Self { consumer, topic, at_end: BTreeSet::new() })
    }

    pub fn poll(
        &mut self,
        max: usize,
        wait: Duration,
        inputs: &mut Vec<Input>,
    ) -> Result<Vec<Signal>, Error> {
        let deadline = Instant::now() + wait;
        let mut signals = Vec::new();
        let mut delivered = BTreeSet::new();
        let mut taken = 0;
        while taken < max {
            // Wait for the first input only; then take what is there.
            let wait = if taken == 0 && signals.is_empty() && self.at_end.is_empty() {
                deadline.saturating_duration_since(Instant::now())
            } else {
                Duration::ZERO
            };
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    delivered.insert(message.partition());
                    inputs.push(input(&message));
                    taken += 1;
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.at_end.insert(partition);
                }
                Some(Err(failure)) => match error(failure) {
                    // librdkafka reports lost connections here and reconnects by itself.
                    Error::Unavailable(reason) => tracing::warn!(reason, "consumer in trouble"),
                    error => return Err(error),
                },
                None => {
                    signals.append(
                        &mut self.consumer.context().signals.lock().expect("no holder panics"),
                    );
                    let told = !signals.is_empty() || !self.at_end.is_empty();
                    if taken > 0 || told || Instant::now() >= deadline {
                        break;
                    }
                }
            }
        }
        signals.append(&mut self.consumer.context().signals.lock().expect("no holder panics"));
        if signals.is_empty() {
            self.note_ends(&delivered, &mut signals)?;
        }
        Ok(signals)
    }

    /// Where a partition ends with markers or aborted records, its real position lies behind them. librdkafka counts
    /// them in once it has passed them, which an end-of-partition event says; the position may be older than that
    /// event, never newer than what has been delivered.
    fn note_ends(
        &mut self,
        delivered: &BTreeSet<Partition>,
        signals: &mut Vec<Signal>,
    ) -> Result<(), Error> {
        let quiet: Vec<_> = self.at_end.difference(delivered).copied().collect();
        if quiet.is_empty() {
            return Ok(());
        }
        let positions = self.consumer.position().map_err(error)?;
        for partition in quiet {
            self.at_end.remove(&partition);
            let position = positions.find_partition(&self.topic, partition);
            if let Some(Offset::Offset(offset)) = position.map(|element| element.offset()) {
                signals.push(Signal::Reached { partition, offset });
            }
        }
        Ok(())
    }

    /// Under the classic protocol a snapshot from before joining would be accepted unfenced: none is given then.
    pub fn generation(&self) -> Option<ConsumerGroupMetadata> {
        let joined = self.consumer.assignment().is_ok_and(|assigned| assigned.count() > 0);
        if joined { self.consumer.group_metadata() } else { None }
    }

    pub fn committed(&self, partition: Partition) -> Result<Option<i64>, Error> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition(&self.topic, partition);
        let answer = self.consumer.committed_offsets(asked, LOOKUP_TIMEOUT).map_err(error)?;
        let Some(element) = answer.find_partition(&self.topic, partition) else {
            return Err(Error::Unavailable("no answer for the committed offset".into()));
        };
        element.error().map_err(error)?;
        Ok(match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        })
    }

    pub fn start(&mut self, partition: Partition, offset: i64) -> Result<(), Error> {
        self.at_end.remove(&partition);
        self.seek(partition, offset)?;
        self.consumer.resume(&self.only(partition)).map_err(error)
    }

    pub fn pause(&mut self, partition: Partition) -> Result<(), Error> {
        self.at_end.remove(&partition);
        self.consumer.pause(&self.only(partition)).map_err(error)
    }

    pub fn is_member(&self) -> bool {
        // A member that lost its place meets it here: the coordinator answers heartbeats with an error that
        // librdkafka turns into a fatal one or into a lost assignment.
        self.consumer.client().fatal_error().is_none() && !self.consumer.assignment_lost()
    }

    fn seek(&self, partition: Partition, offset: i64) -> Result<(), Error> {
        match self.consumer.seek(&self.topic, partition, Offset::Offset(offset), LOOKUP_TIMEOUT) {
            // "Erroneous state": the partition has just been taken away; the next poll says so.
            Err(failure)
                if failure.rdkafka_error_code() == Some(RDKafkaErrorCode::State) =>
            {
                Err(Error::Unavailable(failure.to_string()))
            }
            result => result.map_err(error),
        }
    }

    fn only(&self, partition: Partition) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, partition);
        list
    }
}
