//! The worker's consumer: a static member of the service's group.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use contracts::{Service, Topic};
use parking_lot::Mutex;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Statistics};

use super::client::BackgroundDrop;
use super::context::{Reports, log};
use super::settings::STATISTICS_INTERVAL;
use super::{
    Cluster, Error, Input, LOOKUP_TIMEOUT, Membership, Partition, Signal, error, input, native,
    settings,
};
use crate::log::limits::HEARTBEAT_INTERVAL;

/// Longest time without a coordinator answer during which the membership counts as confirmed.
const CONFIRMED_WITHIN: Duration = HEARTBEAT_INTERVAL.saturating_mul(3);
/// Older statistics are ignored: librdkafka's own thread, which makes them, may be stuck.
const STATISTICS_MAX_AGE: Duration = STATISTICS_INTERVAL.saturating_mul(5);

/// Member ids of all consumers of one log. Each new join gets a new one.
pub type MemberIds = Arc<Mutex<HashSet<String>>>;

pub struct GroupConsumer {
    consumer: BackgroundDrop<BaseConsumer<GroupContext>>,
    topic: String,
    /// When the last poll ended.
    last_poll: Instant,
    /// Positions that were reported to the worker.
    reported_positions: HashMap<Partition, i64>,
}

/// Handles rebalances inside the poll that receives them, and keeps the signals for the worker.
#[derive(Default)]
struct GroupContext {
    reports: Reports,
    signals: Mutex<Vec<Signal>>,
    /// Last stable offsets, as of the last statistics.
    stable_ends: Mutex<HashMap<Partition, i64>>,
    /// As of the last rebalance; `None` before the first, and while the assignment is lost.
    generation: Mutex<Option<Arc<ConsumerGroupMetadata>>>,
    /// Member ids that the broker has given to this process so far.
    member_ids: MemberIds,
    /// As of the last statistics.
    statistics: Mutex<Option<GroupStatistics>>,
}

/// The group part of librdkafka's statistics.
struct GroupStatistics {
    at: Instant,
    /// librdkafka's state of the coordinator connection.
    state: String,
    /// Time since the last change of the state.
    state_age: Duration,
    /// librdkafka's state of the join.
    join_state: String,
    /// Time since the coordinator's last answer; `None` before the first.
    since_answer: Option<Duration>,
}

impl GroupStatistics {
    /// A confirmed membership, until the next statistics.
    fn confirmed() -> Self {
        Self {
            at: Instant::now(),
            state: "up".to_owned(),
            state_age: Duration::ZERO,
            join_state: "steady".to_owned(),
            since_answer: Some(Duration::ZERO),
        }
    }

    fn of(statistics: &Statistics) -> Option<Self> {
        let group = statistics.cgrp.as_ref()?;
        // The coordinator has a separate connection without a node name.
        let coordinator = statistics
            .brokers
            .values()
            .find(|broker| broker.source == "logical");
        let idle_us = coordinator.and_then(|broker| u64::try_from(broker.rxidle).ok());
        let state_age_ms = u64::try_from(group.stateage).unwrap_or_default();
        Some(Self {
            at: Instant::now(),
            state: group.state.clone(),
            state_age: Duration::from_millis(state_age_ms),
            join_state: group.join_state.clone(),
            since_answer: idle_us.map(Duration::from_micros),
        })
    }

    /// The membership as of a poll: polls deliver the statistics, however old they are.
    fn membership(&self, last_poll: Instant) -> Membership {
        let unconfirmed =
            |reason: String, lasts: Duration| Membership::Unconfirmed { reason, lasts };
        let age = last_poll.saturating_duration_since(self.at);
        if age > STATISTICS_MAX_AGE {
            return unconfirmed("the client reports no group statistics".to_owned(), age);
        }
        if self.state != "up" {
            let reason = format!("the group's coordinator is not connected ({})", self.state);
            return unconfirmed(reason, self.state_age);
        }
        match self.join_state.as_str() {
            "steady" => {
                let since_answer = self.since_answer.unwrap_or(self.state_age);
                if since_answer <= CONFIRMED_WITHIN {
                    Membership::Confirmed
                } else {
                    let seconds = since_answer.as_secs_f64();
                    let reason =
                        format!("the group's coordinator has not answered for {seconds:.1} s");
                    unconfirmed(reason, since_answer)
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

impl ClientContext for GroupContext {
    fn error(&self, error: KafkaError, reason: &str) {
        self.reports.report(&error, reason);
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        if let Some(statistics) = GroupStatistics::of(&statistics) {
            *self.statistics.lock() = Some(statistics);
        }
        let mut ends = self.stable_ends.lock();
        ends.clear();
        for (number, partition) in statistics
            .topics
            .values()
            .flat_map(|topic| &topic.partitions)
        {
            // Negative while unknown.
            if partition.ls_offset >= 0 {
                ends.insert(*number, partition.ls_offset);
            }
        }
    }
}

impl ConsumerContext for GroupContext {
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
            *self.statistics.lock() = Some(GroupStatistics::confirmed());
        }
        *self.generation.lock() = generation;
        if let Some(member_id) = native::member_id(consumer) {
            let mut known = self.member_ids.lock();
            known.insert(member_id);
        }
        let numbers: Vec<_> = partitions
            .elements()
            .iter()
            .map(|element| element.partition())
            .collect();
        // A cooperative group needs the incremental calls. No transaction is open here: the worker polls only between
        // transactions.
        let (result, signal) = match error {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                set_initial_offsets(consumer, partitions);
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
        if let Err(error) = result {
            tracing::error!(%error, ?signal, "assignment could not be changed");
        }
        self.signals.lock().push(signal);
    }
}

/// Sets the offsets of assigned partitions to their ends. Take-over selects the start offset later, and the partition
/// is paused until then; but librdkafka needs an offset, and may fetch from it before the pause takes effect.
///
/// The offset is a number: librdkafka resolves a name ("beginning") in the background, and an answer that arrives after
/// the seek would undo it. The end always exists; a deleted offset would be an error. When the broker does not
/// answer, "beginning" is used; the records that it delivers lie below the worker's position and are skipped.
fn set_initial_offsets(consumer: &BaseConsumer<GroupContext>, partitions: &mut TopicPartitionList) {
    let assigned: Vec<_> = partitions
        .elements()
        .iter()
        .map(|element| (element.topic().to_owned(), element.partition()))
        .collect();
    let mut is_available = true;
    for (topic, partition) in assigned {
        let end = is_available
            .then(|| {
                consumer
                    .fetch_watermarks(&topic, partition, LOOKUP_TIMEOUT)
                    .ok()
            })
            .flatten();
        is_available = end.is_some();
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
        let consumer: BaseConsumer<GroupContext> = settings::group_member(cluster, group, instance)
            .set("client.id", client_id)
            .create_with_context(GroupContext {
                member_ids: Arc::clone(member_ids),
                ..GroupContext::default()
            })
            .map_err(error)?;
        consumer.subscribe(&[&topic]).map_err(error)?;
        Ok(Self {
            consumer: BackgroundDrop::new(consumer),
            topic,
            last_poll: Instant::now(),
            reported_positions: HashMap::new(),
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
                    // librdkafka reports lost connections here and reconnects by itself. Reports of a past outage may
                    // still be queued: the worker's own lookups find out whether it continues.
                    Error::Unavailable(reason) => {
                        tracing::debug!(reason, "consumer disturbed");
                        disconnected = Some(Signal::Disconnected);
                    }
                    error => return Err(error),
                },
                None => {
                    signals.append(&mut self.consumer.context().signals.lock());
                    if taken > 0 || !signals.is_empty() || Instant::now() >= deadline {
                        break;
                    }
                }
            }
        }
        signals.append(&mut self.consumer.context().signals.lock());
        if signals.is_empty() {
            self.report_positions(&mut signals)?;
        }
        signals.extend(disconnected);
        self.last_poll = Instant::now();
        Ok(signals)
    }

    /// Transaction markers and aborted records follow the last record. librdkafka's position includes them as soon as
    /// it has passed them, and never includes a record that has not been delivered.
    fn report_positions(&mut self, signals: &mut Vec<Signal>) -> Result<(), Error> {
        for element in self.consumer.position().map_err(error)?.elements() {
            let partition = element.partition();
            // Unknown after a seek until something has been delivered.
            if let Offset::Offset(offset) = element.offset()
                && self.reported_positions.insert(partition, offset) != Some(offset)
            {
                signals.push(Signal::Reached { partition, offset });
            }
        }
        Ok(())
    }

    /// The generation of the last assignment that was signalled to the worker, never a later one: librdkafka knows the
    /// next generation before it delivers the new assignment.
    pub fn generation(&self) -> Option<Arc<ConsumerGroupMetadata>> {
        self.consumer.context().generation.lock().clone()
    }

    pub fn committed(&self, partition: Partition) -> Result<Option<i64>, Error> {
        let mut requested = TopicPartitionList::new();
        requested.add_partition(&self.topic, partition);
        let answer = self
            .consumer
            .committed_offsets(requested, LOOKUP_TIMEOUT)
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
        ends.lock().get(&partition).copied()
    }

    pub fn resume_from(&mut self, partition: Partition, offset: i64) -> Result<(), Error> {
        self.reported_positions.remove(&partition);
        self.seek(partition, offset)?;
        self.consumer
            .resume(&self.single_partition(partition))
            .map_err(error)
    }

    pub fn pause(&mut self, partition: Partition) -> Result<(), Error> {
        self.reported_positions.remove(&partition);
        self.consumer
            .pause(&self.single_partition(partition))
            .map_err(error)
    }

    /// See [`crate::log::Log::membership`].
    pub fn membership(&self) -> Membership {
        let statistics = self.consumer.context().statistics.lock();
        statistics.as_ref().map_or_else(
            || Membership::Unconfirmed {
                reason: "joining the group".to_owned(),
                lasts: Duration::ZERO,
            },
            |statistics| statistics.membership(self.last_poll),
        )
    }

    /// The fatal error of a fenced consumer; a fenced consumer no longer works.
    pub fn fatal_reason(&self) -> Option<String> {
        let fatal = self.consumer.client().fatal_error();
        fatal.map(|(_, reason)| reason)
    }

    /// `false` after a session time-out, until the consumer has joined again.
    pub fn has_assignment(&self) -> bool {
        !self.consumer.assignment_lost()
    }

    fn seek(&self, partition: Partition, offset: i64) -> Result<(), Error> {
        match self.consumer.seek(
            &self.topic,
            partition,
            Offset::Offset(offset),
            LOOKUP_TIMEOUT,
        ) {
            // "Erroneous state": the partition has just been revoked; the next poll signals it.
            Err(failure) if failure.rdkafka_error_code() == Some(RDKafkaErrorCode::State) => {
                Err(Error::Unavailable(failure.to_string()))
            }
            result => result.map_err(error),
        }
    }

    fn single_partition(&self, partition: Partition) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, partition);
        list
    }
}
