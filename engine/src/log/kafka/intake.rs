//! The worker's consumer: a static member of the service's group.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use contracts::{Service, Topic};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Statistics};

use super::context::report;
use super::{
    Cluster, Error, Input, LOOKUP_TIMEOUT, Partition, Signal, error, input, native, settings,
};

pub struct Intake {
    consumer: BaseConsumer<Rebalances>,
    topic: String,
    /// Positions that the worker has been told.
    told: HashMap<Partition, i64>,
}

/// Carries out rebalances inside the poll that meets them and tells the worker afterwards.
#[derive(Default)]
struct Rebalances {
    signals: Mutex<Vec<Signal>>,
    /// Last stable offsets, as of the last statistics.
    stable_ends: Mutex<HashMap<Partition, i64>>,
    /// As of the last rebalance; `None` before the first, and while the assignment is lost.
    generation: Mutex<Option<Arc<ConsumerGroupMetadata>>>,
    /// What the broker called this member last.
    member_id: Mutex<Option<String>>,
}

impl ClientContext for Rebalances {
    fn error(&self, error: KafkaError, reason: &str) {
        report(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let mut ends = self.stable_ends.lock().expect("no holder panics");
        ends.clear();
        for (number, partition) in statistics
            .topics
            .values()
            .flat_map(|topic| &topic.partitions)
        {
            // Negative while nothing is known.
            if partition.ls_offset >= 0 {
                ends.insert(*number, partition.ls_offset);
            }
        }
    }
}

impl ConsumerContext for Rebalances {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        error: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let generation = if consumer.assignment_lost() {
            None
        } else {
            consumer.group_metadata().map(Arc::new)
        };
        *self.generation.lock().expect("no holder panics") = generation;
        if let Some(member_id) = native::member_id(consumer) {
            *self.member_id.lock().expect("no holder panics") = Some(member_id);
        }
        let numbers: Vec<_> = partitions
            .elements()
            .iter()
            .map(|element| element.partition())
            .collect();
        // The incremental calls are the only ones that fit a cooperative group, and no transaction can be open
        // here: the worker polls only between its transactions.
        let (done, signal) = match error {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                give_offsets(consumer, partitions);
                let assigned = consumer
                    .incremental_assign(partitions)
                    .and_then(|()| consumer.pause(partitions));
                (assigned, Signal::Assigned(numbers))
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => (
                consumer.incremental_unassign(partitions),
                Signal::Revoked(numbers),
            ),
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

/// Where a partition starts is for take-over to say, and until then it is silent; but librdkafka wants an offset, and
/// may fetch from it before the pause takes hold.
///
/// It is a number, because a name ("beginning") is looked up behind our back, and an answer that comes after the seek
/// undoes it. It is an offset that exists, because one that retention has deleted is an error. When nobody answers, the
/// name has to do: what it brings again lies below the worker's position and is passed over.
fn give_offsets(consumer: &BaseConsumer<Rebalances>, partitions: &mut TopicPartitionList) {
    let assigned: Vec<_> = partitions
        .elements()
        .iter()
        .map(|element| (element.topic().to_owned(), element.partition()))
        .collect();
    let mut answered = true;
    for (topic, partition) in assigned {
        let end = answered
            .then(|| {
                consumer
                    .fetch_watermarks(&topic, partition, LOOKUP_TIMEOUT)
                    .ok()
            })
            .flatten();
        answered = end.is_some();
        let offset = end.map_or(Offset::Beginning, |(_, end)| Offset::Offset(end));
        partitions
            .set_partition_offset(&topic, partition, offset)
            .expect("an end is a valid offset");
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
        Ok(Self {
            consumer,
            topic,
            told: HashMap::new(),
        })
    }

    pub fn poll(
        &mut self,
        max: usize,
        wait: Duration,
        inputs: &mut Vec<Input>,
    ) -> Result<Vec<Signal>, Error> {
        let deadline = Instant::now() + wait;
        let mut signals = Vec::new();
        let mut disconnected = None;
        let mut taken = 0;
        while taken < max {
            // Wait for the first input only; then take what is there.
            let wait = if taken == 0 && signals.is_empty() {
                deadline.saturating_duration_since(Instant::now())
            } else {
                Duration::ZERO
            };
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    inputs.push(input(&message));
                    taken += 1;
                }
                Some(Err(failure)) => match error(failure) {
                    // librdkafka reports lost connections here and reconnects by itself.
                    Error::Unavailable(reason) => {
                        // Many of them wait when nobody has polled for a while; they all say the same.
                        if disconnected.is_none() {
                            tracing::warn!(reason, "consumer in trouble");
                        }
                        disconnected = Some(Signal::Disconnected);
                    }
                    error => return Err(error),
                },
                None => {
                    signals.append(
                        &mut self
                            .consumer
                            .context()
                            .signals
                            .lock()
                            .expect("no holder panics"),
                    );
                    if taken > 0 || !signals.is_empty() || Instant::now() >= deadline {
                        break;
                    }
                }
            }
        }
        signals.append(
            &mut self
                .consumer
                .context()
                .signals
                .lock()
                .expect("no holder panics"),
        );
        if signals.is_empty() {
            self.note_positions(&mut signals)?;
        }
        signals.extend(disconnected);
        Ok(signals)
    }

    /// Behind the last record stand transaction markers and aborted records. librdkafka's position counts them in as
    /// soon as it has passed them, and never a record that has not been delivered.
    fn note_positions(&mut self, signals: &mut Vec<Signal>) -> Result<(), Error> {
        for element in self.consumer.position().map_err(error)?.elements() {
            let partition = element.partition();
            // Unknown after a seek until something has been delivered.
            if let Offset::Offset(offset) = element.offset()
                && self.told.insert(partition, offset) != Some(offset)
            {
                signals.push(Signal::Reached { partition, offset });
            }
        }
        Ok(())
    }

    /// The generation of the last assignment that the worker has been told of, never a later one: librdkafka knows
    /// the next one before it says what it means for the assignment.
    pub fn generation(&self) -> Option<Arc<ConsumerGroupMetadata>> {
        self.consumer
            .context()
            .generation
            .lock()
            .expect("no holder panics")
            .clone()
    }

    pub fn committed(&self, partition: Partition) -> Result<Option<i64>, Error> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition(&self.topic, partition);
        let answer = self
            .consumer
            .committed_offsets(asked, LOOKUP_TIMEOUT)
            .map_err(error)?;
        let Some(element) = answer.find_partition(&self.topic, partition) else {
            return Err(Error::Unavailable(
                "no answer for the committed offset".into(),
            ));
        };
        element.error().map_err(error)?;
        Ok(match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        })
    }

    pub fn stable_end(&self, partition: Partition) -> Option<i64> {
        let ends = &self.consumer.context().stable_ends;
        ends.lock()
            .expect("no holder panics")
            .get(&partition)
            .copied()
    }

    pub fn start(&mut self, partition: Partition, offset: i64) -> Result<(), Error> {
        self.told.remove(&partition);
        self.seek(partition, offset)?;
        self.consumer.resume(&self.only(partition)).map_err(error)
    }

    pub fn pause(&mut self, partition: Partition) -> Result<(), Error> {
        self.told.remove(&partition);
        self.consumer.pause(&self.only(partition)).map_err(error)
    }

    /// Why this consumer is refused for good; it does nothing more then.
    pub fn fenced(&self) -> Option<String> {
        let fatal = self.consumer.client().fatal_error();
        fatal.map(|(_, reason)| reason)
    }

    /// What the broker called this member last; the client forgets it when its session ends.
    pub fn member_id(&self) -> Option<String> {
        let member_id = &self.consumer.context().member_id;
        member_id.lock().expect("no holder panics").clone()
    }

    /// One that was silent for too long has lost its assignment until it has joined again.
    pub fn is_assigned(&self) -> bool {
        !self.consumer.assignment_lost()
    }

    fn seek(&self, partition: Partition, offset: i64) -> Result<(), Error> {
        match self.consumer.seek(
            &self.topic,
            partition,
            Offset::Offset(offset),
            LOOKUP_TIMEOUT,
        ) {
            // "Erroneous state": the partition has just been taken away; the next poll says so.
            Err(failure) if failure.rdkafka_error_code() == Some(RDKafkaErrorCode::State) => {
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
