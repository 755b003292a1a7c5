//! A worker's log on the simulated broker: the client side, in place of librdkafka.

mod clients;
mod consumer;
mod transaction;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use contracts::{Service, Topic};

use super::TopicPartition;
use super::broker::Broker;
use super::fault_injector::{FaultInjector, FaultPoint, StepOutcome};
use super::group::{Generation, MemberError};
use crate::log::limits::SLOW_TRANSACTION_CALL;
use crate::log::replacement::FailureTracker;
use crate::log::{
    Appended, Ends, Error, Failure, Input, Log, Membership, Partition, PartitionWrites, Peek,
    Progress, Signal,
};

pub use clients::ClientKind;
use consumer::Delivery;

/// Attempts of a request to a busy coordinator.
const MAX_ATTEMPTS: usize = 20;
/// Between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);
/// A process that was frozen receives the state of its group no later than this.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);

/// A safeguard that the log lacks, so that a test can show its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogDefect {
    /// Offsets are committed outside of the transaction.
    OffsetsOutsideTransaction,
    /// Offsets carry no generation: the group accepts them from a member that it has replaced or removed.
    OffsetsWithoutGeneration,
    /// Take-over reads the ends of states and events before the committed offset.
    StateBeforeOffset,
    /// Take-over reads to the last stable offset, not to the high watermark.
    ReadToStableEnd,
    /// Take-over sees the end of commands at the committed offset: the answers behind it stay unread.
    AnswersUnread,
    /// A producer stays in use after a transaction that ended slowly or without an answer.
    UnclearProducerKept,
    /// A disconnected client is not replaced.
    DisconnectedClientsKept,
}

/// One worker's log.
pub struct SimulatedLog {
    broker: Broker,
    faults: Rc<dyn FaultInjector>,
    service: Service,
    instance: String,
    transactional_id: String,
    disabled_safeguard: Option<LogDefect>,
    /// The process has crashed; later calls of its worker have no effect.
    crashed: bool,
    probe: Probe,
    generation: Option<Generation>,
    /// The group has removed the member; reset by the next assignment.
    lost_membership: bool,
    fenced: bool,
    /// For how long disconnected clients have failed.
    failures: BTreeMap<ClientKind, FailureTracker>,
    owned: BTreeMap<Partition, Delivery>,
    /// The epoch of the producer; `None` after an unclear end.
    epoch: Option<u32>,
    bounded_read: Option<BoundedRead>,
    /// Ends that were read before the committed offset, see [`LogDefect::StateBeforeOffset`].
    early_ends: BTreeMap<(Topic, Partition), Ends>,
    /// The committed offsets that were read last.
    last_committed: BTreeMap<Partition, i64>,
    /// When the last point was reached.
    reached_at: Duration,
    /// When the process last continued after a pause.
    resumed_at: Duration,
}

/// The part of a worker's log that a scheduler reads and controls.
#[derive(Clone, Debug, Default)]
pub struct Probe {
    /// Member id, for heartbeats.
    pub member_id: Rc<Cell<u64>>,
    /// The worker waits until then. Waits advance only the worker's own clock.
    pub waits_until: Rc<Cell<Duration>>,
    /// Clients that have lost their connection for good.
    pub disconnected: Rc<RefCell<BTreeSet<ClientKind>>>,
}

impl Probe {
    /// Whether the member's heartbeats reach the group.
    pub fn sends_heartbeats(&self) -> bool {
        !self.disconnected.borrow().contains(&ClientKind::Consumer)
    }
}

/// A read of a partition up to a bound.
struct BoundedRead {
    tp: TopicPartition,
    next: i64,
    until: i64,
}

impl SimulatedLog {
    /// Joins the service's group as `instance` and creates the producer under the same name.
    ///
    /// # Errors
    ///
    /// The broker does not answer, or is still ending the transaction of a former producer.
    pub fn new(
        broker: Broker,
        faults: Rc<dyn FaultInjector>,
        service: Service,
        instance: &str,
        disabled_safeguard: Option<LogDefect>,
    ) -> Result<Self, Error> {
        if broker.is_unavailable() {
            return Err(Error::Unavailable("the broker is unavailable".into()));
        }
        let member = broker.join(service, instance);
        let now = broker.clock().elapsed();
        let mut log = Self {
            transactional_id: format!("{service}.{instance}"),
            instance: instance.to_owned(),
            broker,
            faults,
            service,
            disabled_safeguard,
            crashed: false,
            probe: Probe {
                member_id: Rc::new(Cell::new(member)),
                waits_until: Rc::new(Cell::new(now)),
                disconnected: Rc::default(),
            },
            generation: None,
            lost_membership: false,
            fenced: false,
            failures: BTreeMap::new(),
            owned: BTreeMap::new(),
            epoch: None,
            bounded_read: None,
            early_ends: BTreeMap::new(),
            last_committed: BTreeMap::new(),
            reached_at: now,
            resumed_at: Duration::ZERO,
        };
        log.recreate()?;
        Ok(log)
    }

    /// A handle on the state that a scheduler needs.
    pub fn probe(&self) -> Probe {
        self.probe.clone()
    }

    /// A call reaches a point: the fault injector may run other processes, and decides whether the call continues.
    fn reach(&mut self, point: FaultPoint) -> Result<(), Error> {
        if self.crashed {
            return Err(crash_error());
        }
        let outcome = self.faults.reach(&self.instance, point);
        let now = self.broker.clock().elapsed();
        if now.saturating_sub(self.reached_at) > Duration::from_secs(1) {
            self.resumed_at = now;
        }
        self.reached_at = now;
        match outcome {
            StepOutcome::Crash => {
                self.crashed = true;
                Err(crash_error())
            }
            StepOutcome::Unavailable => {
                Err(Error::Unavailable("the broker does not answer".into()))
            }
            StepOutcome::Continue if self.broker.is_unavailable() => {
                Err(Error::Unavailable("the broker is unavailable".into()))
            }
            StepOutcome::Continue => Ok(()),
        }
    }

    /// Advances the worker's own clock.
    fn wait(&mut self, wait: Duration) {
        self.probe.waits_until.set(self.now() + wait);
    }

    fn is_disabled(&self, safeguard: LogDefect) -> bool {
        self.disabled_safeguard == Some(safeguard)
    }
}

fn unconfirmed(reason: &str) -> Membership {
    Membership::Unconfirmed {
        reason: reason.to_owned(),
        lasts: Duration::ZERO,
    }
}

fn crash_error() -> Error {
    Error::Fenced("the process has crashed".into())
}

impl Log for SimulatedLog {
    type Generation = Generation;

    fn poll(
        &mut self,
        max: usize,
        wait: Duration,
        inputs: &mut Vec<Input>,
    ) -> Result<Vec<Signal>, Error> {
        let mut signals = Vec::new();
        match self.reach(FaultPoint::Poll) {
            Ok(()) => {}
            Err(Error::Unavailable(_)) => {
                self.wait(wait);
                return Ok(vec![Signal::Disconnected]);
            }
            Err(error) => return Err(error),
        }
        if self.is_disconnected(ClientKind::Consumer) {
            self.wait(wait);
            return Ok(signals);
        }
        let len_before = inputs.len();
        // Records that were fetched before a rebalance may be delivered together with it.
        let delivers_first = self.faults.flip_coin();
        if !delivers_first {
            self.poll_membership(&mut signals)?;
        }
        if signals.is_empty() {
            self.deliver(max, inputs)?;
        }
        if delivers_first {
            self.poll_membership(&mut signals)?;
        }
        if signals.is_empty() {
            self.report_positions(&mut signals);
        }
        if inputs.len() == len_before && signals.is_empty() {
            self.wait(wait);
        }
        Ok(signals)
    }

    fn generation(&mut self) -> Option<Generation> {
        self.generation.clone()
    }

    fn committed(&mut self, partition: Partition) -> Result<Option<i64>, Error> {
        if self.is_disabled(LogDefect::StateBeforeOffset) {
            for topic in [Topic::State, Topic::Events] {
                // Sees the records that are committed now.
                let tp = (self.service, topic, partition);
                let mut ends = self.broker.ends(tp);
                ends.high = self.broker.stable_end(tp);
                self.early_ends.insert((topic, partition), ends);
            }
        }
        for _ in 0..MAX_ATTEMPTS {
            self.reach(FaultPoint::Committed)?;
            if self.is_disconnected(ClientKind::Consumer) {
                return Err(Error::Unavailable("Consumer is disconnected".into()));
            }
            match self.broker.group_committed(self.service, partition) {
                Ok(committed) => {
                    if let Some(offset) = committed {
                        self.last_committed.insert(partition, offset);
                    }
                    return Ok(committed);
                }
                Err(()) => self.wait(RETRY_INTERVAL),
            }
        }
        Err(Error::Unavailable("an offset commit is pending".into()))
    }

    fn ends(&mut self, topic: Topic, partition: Partition) -> Result<Ends, Error> {
        self.reach_with(ClientKind::Lookups, FaultPoint::Ends)?;
        let tp = (self.service, topic, partition);
        let mut ends = self.broker.ends(tp);
        let stable = self.broker.stable_end(tp);
        if stable < ends.high {
            let (id, topic) = (&self.transactional_id, topic.name());
            let journal = self.broker.journal();
            journal.note(format_args!(
                "{id} looks up {topic}/{partition}: high watermark {}, last stable offset {stable}",
                ends.high
            ));
        }
        if let Some(early) = self.early_ends.remove(&(topic, partition)) {
            ends = early;
        }
        if self.is_disabled(LogDefect::ReadToStableEnd) && topic != Topic::Commands {
            ends.high = stable;
        }
        if self.is_disabled(LogDefect::AnswersUnread) && topic == Topic::Commands {
            ends.high = self
                .last_committed
                .get(&partition)
                .map_or(0, |offset| *offset);
        }
        Ok(ends)
    }

    fn stable_end(&self, partition: Partition) -> Option<i64> {
        let tp = (self.service, Topic::Commands, partition);
        (!self.broker.is_unavailable()).then(|| self.broker.stable_end(tp))
    }

    fn start(&mut self, partition: Partition, offset: i64) -> Result<(), Error> {
        if self.crashed {
            return Err(crash_error());
        }
        let Some(delivery) = self.owned.get_mut(&partition) else {
            return Err(Error::Unavailable("the partition has been revoked".into()));
        };
        *delivery = Delivery {
            position: Some(offset),
            ..Delivery::default()
        };
        Ok(())
    }

    fn pause(&mut self, partition: Partition) -> Result<(), Error> {
        if let Some(delivery) = self.owned.get_mut(&partition) {
            delivery.paused = true;
            delivery.reported = None;
        }
        Ok(())
    }

    fn open(
        &mut self,
        topic: Topic,
        partition: Partition,
        from: i64,
        until: i64,
    ) -> Result<(), Error> {
        self.bounded_read = Some(BoundedRead {
            tp: (self.service, topic, partition),
            next: from,
            until,
        });
        Ok(())
    }

    fn read(&mut self, wait: Duration, inputs: &mut Vec<Input>) -> Result<Progress, Error> {
        self.reach_with(ClientKind::Reader, FaultPoint::Read)?;
        let Some(read) = &mut self.bounded_read else {
            return Ok(Progress::Done);
        };
        if read.next >= read.until {
            self.bounded_read = None;
            return Ok(Progress::Done);
        }
        if self.broker.stable_end(read.tp) < read.until {
            self.wait(wait);
            return Ok(Progress::More);
        }
        // As on Kafka, the read ends at the end of the partition, which may be beyond the bound.
        let mut fetched = self.broker.fetch(read.tp, read.next, usize::MAX);
        let size = match fetched.inputs.len() {
            0 => 0,
            available => self.faults.fetch_size(available),
        };
        if size < fetched.inputs.len() {
            fetched.inputs.truncate(size);
            read.next = fetched.inputs[size - 1].offset + 1;
            inputs.append(&mut fetched.inputs);
            return Ok(Progress::More);
        }
        inputs.append(&mut fetched.inputs);
        self.bounded_read = None;
        Ok(Progress::Done)
    }

    fn commit(
        &mut self,
        generation: &Generation,
        writes: Vec<PartitionWrites>,
    ) -> Result<Vec<Appended>, Failure> {
        if self.epoch.is_none() {
            return Err(Failure::Unclear(
                "the producer must be replaced first".into(),
            ));
        }
        if self.is_disconnected(ClientKind::Producer) {
            self.epoch = None;
            return Err(Failure::Unclear("Producer is disconnected".into()));
        }
        // By the broker's clock: the worker's own clock also includes its waits.
        let started = self.broker.clock().elapsed();
        match self.transact(generation, writes) {
            Ok((_, took))
                if took > SLOW_TRANSACTION_CALL
                    && !self.is_disabled(LogDefect::UnclearProducerKept) =>
            {
                self.epoch = None;
                Err(Failure::Unclear(format!(
                    "the commit took {} ms",
                    took.as_millis()
                )))
            }
            Ok((appended, _)) => Ok(appended),
            Err(error) => {
                let age = self.now().saturating_sub(started);
                Err(self.abort_failed(error, age))
            }
        }
    }

    fn recreate(&mut self) -> Result<(), Error> {
        self.epoch = None;
        self.replace_client(ClientKind::Producer);
        for _ in 0..MAX_ATTEMPTS {
            self.reach(FaultPoint::Recreate)?;
            match self.broker.init(&self.transactional_id) {
                Ok(epoch) => {
                    self.epoch = Some(epoch);
                    return Ok(());
                }
                Err(_) => self.wait(RETRY_INTERVAL),
            }
        }
        Err(Error::Unavailable("the coordinator is busy".into()))
    }

    fn rejoin(&mut self) -> Result<(), Error> {
        self.reach(FaultPoint::Recreate)?;
        self.replace_client(ClientKind::Consumer);
        self.owned.clear();
        self.generation = None;
        self.lost_membership = false;
        let member = self.broker.join(self.service, &self.instance);
        self.probe.member_id.set(member);
        Ok(())
    }

    fn is_member(&mut self) -> Result<bool, Error> {
        if self.crashed {
            return Err(crash_error());
        }
        let has_reply = self.now().saturating_sub(self.resumed_at) >= HEARTBEAT_INTERVAL
            || self.faults.flip_coin();
        if has_reply && !self.broker.is_unavailable() {
            let membership =
                self.broker
                    .check_member(self.service, &self.instance, self.probe.member_id.get());
            match membership {
                Err(MemberError::FencedInstance) => self.fenced = true,
                Err(_) => return Ok(false),
                Ok(()) => {}
            }
        }
        if self.fenced {
            return Err(Error::Fenced("another member has the instance id".into()));
        }
        Ok(!self.lost_membership)
    }

    fn membership(&self) -> Membership {
        if self.is_disconnected(ClientKind::Consumer) {
            return unconfirmed("the consumer is disconnected from its group");
        }
        if self.broker.is_unavailable() {
            return unconfirmed("the coordinator does not answer");
        }
        if self.lost_membership || self.generation.is_none() {
            Membership::Joining
        } else {
            Membership::Confirmed
        }
    }

    fn ask_coordinator(&mut self) -> Result<(), Error> {
        self.reach_with(ClientKind::Lookups, FaultPoint::Coordinator)?;
        let member = self.probe.member_id.get();
        match self
            .broker
            .check_member(self.service, &self.instance, member)
        {
            Err(MemberError::FencedInstance) => {
                Err(Error::Fenced("another member has the instance id".into()))
            }
            Err(_) | Ok(()) => Ok(()),
        }
    }

    fn peek(&mut self, partition: Partition, offset: i64) -> Result<Peek, Error> {
        self.reach(FaultPoint::Peek)?;
        let tp = (self.service, Topic::Commands, partition);
        let stable = self.broker.stable_end(tp);
        Ok(if stable <= offset {
            Peek::Held(stable)
        } else {
            Peek::Readable
        })
    }

    fn now(&self) -> Duration {
        self.probe
            .waits_until
            .get()
            .max(self.broker.clock().elapsed())
    }

    fn unix_ms(&self) -> i64 {
        self.broker.clock().unix_ms()
    }
}
