//! The worker's consumer: a static member of the service's group.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use contracts::{Service, Topic};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Statistics};

use super::context::{Reports, log};
use super::settings::{HEARTBEAT_INTERVAL, STATISTICS_INTERVAL};
use super::{
    Cluster, Error, Input, LOOKUP_TIMEOUT, Membership, Partition, Signal, error, input, native,
    settings,
};

/// The coordinator confirms the member's place with each answer to a heartbeat; without one for so long, it does not.
const CONFIRMED_WITHIN: Duration = HEARTBEAT_INTERVAL.saturating_mul(3);
/// Statistics that are older than this say nothing: librdkafka's own thread makes them.
const STATISTICS_HOLD: Duration = STATISTICS_INTERVAL.saturating_mul(5);

/// Ids of members, shared by all consumers of one log. There is a new one whenever a consumer joins anew.
pub type MemberIds = Arc<Mutex<HashSet<String>>>;

pub struct GroupConsumer {
    consumer: BaseConsumer<Rebalances>,
    topic: String,
    /// When a poll ended last.
    polled: Instant,
    /// Positions that the worker has been told.
    told: HashMap<Partition, i64>,
}

/// Carries out rebalances inside the poll that meets them and tells the worker afterwards.
#[derive(Default)]
struct Rebalances {
    reports: Reports,
    signals: Mutex<Vec<Signal>>,
    /// Last stable offsets, as of the last statistics.
    stable_ends: Mutex<HashMap<Partition, i64>>,
    /// As of the last rebalance; `None` before the first, and while the assignment is lost.
    generation: Mutex<Option<Arc<ConsumerGroupMetadata>>>,
    /// What the broker has called this process's members of the group so far.
    member_ids: MemberIds,
    /// The client's view of its group, as of the last statistics.
    group: Mutex<Option<GroupView>>,
}

/// What librdkafka's statistics tell of the group.
struct GroupView {
    at: Instant,
    /// Whether the coordinator is known and connected, in librdkafka's words.
    state: String,
    /// For how long the state has been that.
    state_age: Duration,
    /// How far joining has come, in librdkafka's words.
    join_state: String,
    /// Since the coordinator's last answer; `None` before the first.
    silent: Option<Duration>,
}

impl GroupView {
    /// Until the next statistics.
    fn confirmed() -> Self {
        Self {
            at: Instant::now(),
            state: "up".to_owned(),
            state_age: Duration::ZERO,
            join_state: "steady".to_owned(),
            silent: Some(Duration::ZERO),
        }
    }

    fn of(statistics: &Statistics) -> Option<Self> {
        let group = statistics.cgrp.as_ref()?;
        // The coordinator has a connection of its own, which has no node's name.
        let coordinator = statistics
            .brokers
            .values()
            .find(|broker| broker.source == "logical");
        let silent_us = coordinator.and_then(|broker| u64::try_from(broker.rxidle).ok());
        let state_age_ms = u64::try_from(group.stateage).unwrap_or_default();
        Some(Self {
            at: Instant::now(),
            state: group.state.clone(),
            state_age: Duration::from_millis(state_age_ms),
            join_state: group.join_state.clone(),
            silent: silent_us.map(Duration::from_micros),
        })
    }

    /// As of a poll: statistics are delivered by polls, however long ago they were made.
    fn membership(&self, polled: Instant) -> Membership {
        let unconfirmed =
            |reason: String, lasts: Duration| Membership::Unconfirmed { reason, lasts };
        let age = polled.saturating_duration_since(self.at);
        if age > STATISTICS_HOLD {
            return unconfirmed("the client tells nothing of its group".to_owned(), age);
        }
        if self.state != "up" {
            let reason = format!("the group's coordinator is not connected ({})", self.state);
            return unconfirmed(reason, self.state_age);
        }
        match self.join_state.as_str() {
            "steady" => {
                let silent = self.silent.unwrap_or(self.state_age);
                if silent <= CONFIRMED_WITHIN {
                    Membership::Confirmed
                } else {
                    let seconds = silent.as_secs_f64();
                    let reason =
                        format!("the group's coordinator has not answered for {seconds:.1} s");
                    unconfirmed(reason, silent)
                }
            }
            "init" => {
                let reason = "the client does not join its group".to_owned();
                unconfirmed(reason, Duration::ZERO)
            }
            _ => Membership::Joining,
        }
    }
}

impl ClientContext for Rebalances {
    fn error(&self, error: KafkaError, reason: &str) {
        self.reports.tell(&error, reason);
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        if let Some(view) = GroupView::of(&statistics) {
            *self.group.lock().expect("no holder panics") = Some(view);
        }
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
        if generation.is_some() {
            // The coordinator has just answered.
            *self.group.lock().expect("no holder panics") = Some(GroupView::confirmed());
        }
        *self.generation.lock().expect("no holder panics") = generation;
        if let Some(member_id) = native::member_id(consumer) {
            let mut known = self.member_ids.lock().expect("no holder panics");
            known.insert(member_id);
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

impl GroupConsumer {
    pub fn join(
        cluster: &Cluster,
        service: Service,
        group: &str,
        instance: &str,
        (client_id, member_ids): (&str, &MemberIds),
    ) -> Result<Self, Error> {
        let topic = cluster.topic(service, Topic::Commands);
        let consumer: BaseConsumer<Rebalances> = settings::group_member(cluster, group, instance)
            .set("client.id", client_id)
            .create_with_context(Rebalances {
                member_ids: Arc::clone(member_ids),
                ..Rebalances::default()
            })
            .map_err(error)?;
        consumer.subscribe(&[&topic]).map_err(error)?;
        Ok(Self {
            consumer,
            topic,
            polled: Instant::now(),
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
                    // librdkafka reports lost connections here and reconnects by itself. Reports of an outage that is
                    // over may still wait here: whether there is one is for the worker's own look-ups to tell.
                    Error::Unavailable(reason) => {
                        tracing::debug!(reason, "consumer disturbed");
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
        self.polled = Instant::now();
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

    /// See [`crate::log::Log::membership`].
    pub fn membership(&self) -> Membership {
        let view = self.consumer.context().group.lock();
        view.expect("no holder panics").as_ref().map_or_else(
            || Membership::Unconfirmed {
                reason: "joining the group".to_owned(),
                lasts: Duration::ZERO,
            },
            |view| view.membership(self.polled),
        )
    }

    /// Why this consumer is refused for good; it does nothing more then.
    pub fn fenced(&self) -> Option<String> {
        let fatal = self.consumer.client().fatal_error();
        fatal.map(|(_, reason)| reason)
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
