//! A worker's log on the simulated broker: what librdkafka does on its side.

mod transaction;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use contracts::{Service, Topic};

use super::TopicPartition;
use super::broker::Broker;
use super::fault_injector::{FaultInjector, Point, StepOutcome};
use super::group::{Generation, MembershipReply};
use crate::log::kafka::settings::SUSPICIOUS;
use crate::log::replacement::Failing;
use crate::log::{
    Appended, Ends, Error, Failure, Input, Log, Membership, Partition, PartitionWrites, Peek,
    Progress, Signal,
};

/// How often a busy coordinator is asked before its caller gives up.
const TRIES: usize = 20;
/// Between two of these.
const PAUSE: Duration = Duration::from_millis(5);
/// A process that has been frozen hears of its group again after this.
const HEARTBEATS: Duration = Duration::from_secs(2);

/// A protection that the log does without, so that a test can show what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisabledSafeguard {
    /// Offsets are committed beside the transaction, not in it.
    OffsetsOutside,
    /// Nobody vouches for the offsets: the group does not see that it has gone on without their sender.
    NobodyVouches,
    /// Take-over looks at states and events first, and at the committed offset afterwards.
    StateBeforeOffset,
    /// Take-over reads to the last stable offset, not to the high watermark.
    OnlyToStable,
    /// The commands at take-over seem to end where the partition starts.
    AnswersUnread,
    /// A producer is used on after a transaction that ended slowly or without an answer.
    UnclearKept,
    /// A client that has lost the broker for good is kept.
    LostClientsKept,
}

/// A client of a worker's log, which may lose the broker for good although that is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    /// Hears of no rebalance, sends no heartbeat, delivers nothing.
    Consumer,
    /// Ends no transaction.
    Producer,
    /// Tells no ends.
    Lookups,
    /// Reads nothing at take-over.
    Reader,
}

impl Client {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Consumer, Self::Producer, Self::Lookups, Self::Reader];
}

/// One worker's log.
pub struct SimulatedLog {
    broker: Broker,
    fate: Rc<dyn FaultInjector>,
    service: Service,
    instance: String,
    transactional_id: String,
    weakness: Option<DisabledSafeguard>,
    /// The process has ended; nothing that its worker still asks for is done.
    crashed: bool,
    pulse: Probe,
    generation: Option<Generation>,
    /// The place in the group is lost until the next assignment.
    lost: bool,
    fenced: bool,
    /// For how long clients that answer look-ups have failed.
    failing: BTreeMap<Client, Failing>,
    owned: BTreeMap<Partition, Delivery>,
    /// The epoch of the producer; `None` after an unclear end.
    epoch: Option<u32>,
    read: Option<Read>,
    /// Ends that were seen too early.
    early: BTreeMap<(Topic, Partition), Ends>,
    committed_seen: BTreeMap<Partition, i64>,
    seen: Duration,
    thawed: Duration,
}

/// What a scheduler sees of a worker's log from outside.
#[derive(Clone, Debug, Default)]
pub struct Probe {
    /// Its member id, for heartbeats.
    pub member: Rc<Cell<u64>>,
    /// Waits take time on the worker's own clock; others may not have come so far. It has nothing to do before.
    pub ahead: Rc<Cell<Duration>>,
    /// Clients that have lost the broker.
    pub lost: Rc<RefCell<BTreeSet<Client>>>,
}

impl Probe {
    /// Whether the member's heartbeats reach the group.
    pub fn beats(&self) -> bool {
        !self.lost.borrow().contains(&Client::Consumer)
    }
}

/// How the commands of a partition are delivered.
#[derive(Default)]
struct Delivery {
    /// Where it goes on; `None` before the first start.
    next: Option<i64>,
    paused: bool,
    /// Something has been delivered or passed since the start.
    known: bool,
    told: Option<i64>,
}

struct Read {
    place: TopicPartition,
    next: i64,
    until: i64,
}

impl SimulatedLog {
    /// Joins the service's group as `instance` and makes the producer under the same name.
    ///
    /// # Errors
    ///
    /// The broker does not answer, or is still busy with what a former producer left open.
    pub fn new(
        broker: Broker,
        fate: Rc<dyn FaultInjector>,
        service: Service,
        instance: &str,
        weakness: Option<DisabledSafeguard>,
    ) -> Result<Self, Error> {
        if broker.is_away() {
            return Err(Error::Unavailable("the broker is away".into()));
        }
        let member = broker.join(service, instance);
        let now = broker.clock().elapsed();
        let mut log = Self {
            transactional_id: format!("{service}.{instance}"),
            instance: instance.to_owned(),
            broker,
            fate,
            service,
            weakness,
            crashed: false,
            pulse: Probe {
                member: Rc::new(Cell::new(member)),
                ahead: Rc::new(Cell::new(now)),
                lost: Rc::default(),
            },
            generation: None,
            lost: false,
            fenced: false,
            failing: BTreeMap::new(),
            owned: BTreeMap::new(),
            epoch: None,
            read: None,
            early: BTreeMap::new(),
            committed_seen: BTreeMap::new(),
            seen: now,
            thawed: Duration::ZERO,
        };
        log.recreate()?;
        Ok(log)
    }

    /// How it does.
    pub fn pulse(&self) -> Probe {
        self.pulse.clone()
    }

    /// A call has come to a point; others may have run since.
    fn reach(&mut self, point: Point) -> Result<(), Error> {
        if self.crashed {
            return Err(crash());
        }
        let verdict = self.fate.reach(&self.instance, point);
        let now = self.broker.clock().elapsed();
        if now.saturating_sub(self.seen) > Duration::from_secs(1) {
            self.thawed = now;
        }
        self.seen = now;
        match verdict {
            StepOutcome::Crash => {
                self.crashed = true;
                Err(crash())
            }
            StepOutcome::Unavailable => {
                Err(Error::Unavailable("the broker does not answer".into()))
            }
            StepOutcome::Go if self.broker.is_away() => {
                Err(Error::Unavailable("the broker is away".into()))
            }
            StepOutcome::Go => Ok(()),
        }
    }

    fn has_lost(&self, client: Client) -> bool {
        self.pulse.lost.borrow().contains(&client)
    }

    /// A client is replaced by a fresh one.
    fn renew(&mut self, client: Client) {
        if self.pulse.lost.borrow_mut().remove(&client) {
            let id = &self.transactional_id;
            let journal = self.broker.journal();
            journal.note(format_args!("{id} replaces its {client:?}"));
        }
    }

    /// Asks through a client that is replaced by the rule when it has lost the broker.
    fn reach_by(&mut self, client: Client, point: Point) -> Result<(), Error> {
        self.reach(point)?;
        if !self.has_lost(client) {
            return Ok(());
        }
        let now = self.now();
        let is_kept = self.is(DisabledSafeguard::LostClientsKept);
        let failing = self.failing.entry(client).or_default();
        if is_kept || !failing.failed(now) {
            return Err(Error::Unavailable(format!(
                "{client:?} has lost the broker"
            )));
        }
        failing.answered();
        self.renew(client);
        Ok(())
    }

    fn wait(&mut self, wait: Duration) {
        self.pulse.ahead.set(self.now() + wait);
    }

    fn is(&self, weakness: DisabledSafeguard) -> bool {
        self.weakness == Some(weakness)
    }

    /// Hears what the group has to say.
    fn listen(&mut self, signals: &mut Vec<Signal>) -> Result<(), Error> {
        if self.fenced {
            return Err(Error::Fenced("another member has the instance id".into()));
        }
        match self
            .broker
            .word(self.service, &self.instance, self.pulse.member.get())
        {
            MembershipReply::Nothing => {}
            MembershipReply::Fenced => {
                self.fenced = true;
                return Err(Error::Fenced("another member has the instance id".into()));
            }
            MembershipReply::Unknown => {
                self.generation = None;
                self.lost = true;
                let gone = std::mem::take(&mut self.owned).into_keys().collect();
                signals.push(Signal::Revoked(gone));
                let member = self.broker.join(self.service, &self.instance);
                self.pulse.member.set(member);
            }
            MembershipReply::Revoke(gone, generation) => {
                self.generation = Some(generation);
                self.owned.retain(|partition, _| !gone.contains(partition));
                signals.push(Signal::Revoked(gone));
            }
            MembershipReply::Assign(came, generation) => {
                self.generation = Some(generation);
                self.lost = false;
                for partition in &came {
                    self.owned.insert(*partition, Delivery::default());
                }
                signals.push(Signal::Assigned(came));
            }
        }
        Ok(())
    }

    fn deliver(&mut self, max: usize, inputs: &mut Vec<Input>) -> Result<(), Error> {
        let mut room = max;
        for (partition, delivery) in &mut self.owned {
            let Some(next) = delivery.next.filter(|_| !delivery.paused && room > 0) else {
                continue;
            };
            let place = (self.service, Topic::Commands, *partition);
            let ends = self.broker.ends(place);
            if next < ends.low || next > ends.high {
                return Err(Error::Damaged(format!(
                    "position {next} of partition {partition} lies outside of the log"
                )));
            }
            let mut fetched = self.broker.fetch(place, next, room);
            if !fetched.inputs.is_empty() {
                let portion = self.fate.portion(fetched.inputs.len());
                if portion < fetched.inputs.len() {
                    fetched.inputs.truncate(portion);
                    fetched.position = fetched.inputs[portion - 1].offset + 1;
                }
            }
            let behind = fetched.inputs.last().map_or(next, |last| last.offset + 1);
            // What stands behind the last record may be passed now or with the next fetch.
            let full = fetched.inputs.len() == room;
            let position = if fetched.position > behind && (full || !self.fate.toss()) {
                behind
            } else {
                fetched.position
            };
            delivery.known |= position > next;
            delivery.next = Some(position);
            room -= fetched.inputs.len();
            inputs.append(&mut fetched.inputs);
        }
        Ok(())
    }
}

fn unconfirmed(reason: &str) -> Membership {
    Membership::Unconfirmed {
        reason: reason.to_owned(),
        lasts: Duration::ZERO,
    }
}

fn crash() -> Error {
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
        match self.reach(Point::Poll) {
            Ok(()) => {}
            Err(Error::Unavailable(_)) => {
                self.wait(wait);
                return Ok(vec![Signal::Disconnected]);
            }
            Err(error) => return Err(error),
        }
        if self.has_lost(Client::Consumer) {
            self.wait(wait);
            return Ok(signals);
        }
        let before = inputs.len();
        // What was fetched before a rebalance may be delivered together with it.
        let fetched = self.fate.toss();
        if !fetched {
            self.listen(&mut signals)?;
        }
        if signals.is_empty() {
            self.deliver(max, inputs)?;
        }
        if fetched {
            self.listen(&mut signals)?;
        }
        if signals.is_empty() {
            for (partition, delivery) in &mut self.owned {
                if let Some(offset) = delivery.next.filter(|_| delivery.known)
                    && delivery.told.replace(offset) != Some(offset)
                {
                    signals.push(Signal::Reached {
                        partition: *partition,
                        offset,
                    });
                }
            }
        }
        if inputs.len() == before && signals.is_empty() {
            self.wait(wait);
        }
        Ok(signals)
    }

    fn generation(&mut self) -> Option<Generation> {
        self.generation.clone()
    }

    fn committed(&mut self, partition: Partition) -> Result<Option<i64>, Error> {
        if self.is(DisabledSafeguard::StateBeforeOffset) {
            for topic in [Topic::State, Topic::Events] {
                // Who reads now reads what has been committed by now.
                let place = (self.service, topic, partition);
                let mut ends = self.broker.ends(place);
                ends.high = self.broker.stable_end(place);
                self.early.insert((topic, partition), ends);
            }
        }
        for _ in 0..TRIES {
            self.reach(Point::Committed)?;
            if self.has_lost(Client::Consumer) {
                return Err(Error::Unavailable("Consumer has lost the broker".into()));
            }
            match self.broker.group_committed(self.service, partition) {
                Ok(committed) => {
                    if let Some(offset) = committed {
                        self.committed_seen.insert(partition, offset);
                    }
                    return Ok(committed);
                }
                Err(()) => self.wait(PAUSE),
            }
        }
        Err(Error::Unavailable("an offset commit is pending".into()))
    }

    fn ends(&mut self, topic: Topic, partition: Partition) -> Result<Ends, Error> {
        self.reach_by(Client::Lookups, Point::Ends)?;
        let place = (self.service, topic, partition);
        let mut ends = self.broker.ends(place);
        let stable = self.broker.stable_end(place);
        if stable < ends.high {
            let (id, topic) = (&self.transactional_id, topic.name());
            let journal = self.broker.journal();
            journal.note(format_args!(
                "{id} sees {topic}/{partition} end at {}, stable to {stable}",
                ends.high
            ));
        }
        if let Some(early) = self.early.remove(&(topic, partition)) {
            ends = early;
        }
        if self.is(DisabledSafeguard::OnlyToStable) && topic != Topic::Commands {
            ends.high = stable;
        }
        if self.is(DisabledSafeguard::AnswersUnread) && topic == Topic::Commands {
            ends.high = self.committed_seen.get(&partition).map_or(0, |seen| *seen);
        }
        Ok(ends)
    }

    fn stable_end(&self, partition: Partition) -> Option<i64> {
        let place = (self.service, Topic::Commands, partition);
        (!self.broker.is_away()).then(|| self.broker.stable_end(place))
    }

    fn start(&mut self, partition: Partition, offset: i64) -> Result<(), Error> {
        if self.crashed {
            return Err(crash());
        }
        let Some(delivery) = self.owned.get_mut(&partition) else {
            return Err(Error::Unavailable(
                "the partition has been taken away".into(),
            ));
        };
        *delivery = Delivery {
            next: Some(offset),
            ..Delivery::default()
        };
        Ok(())
    }

    fn pause(&mut self, partition: Partition) -> Result<(), Error> {
        if let Some(delivery) = self.owned.get_mut(&partition) {
            delivery.paused = true;
            delivery.told = None;
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
        self.read = Some(Read {
            place: (self.service, topic, partition),
            next: from,
            until,
        });
        Ok(())
    }

    fn read(&mut self, wait: Duration, inputs: &mut Vec<Input>) -> Result<Progress, Error> {
        self.reach_by(Client::Reader, Point::Read)?;
        let Some(read) = &mut self.read else {
            return Ok(Progress::Done);
        };
        if read.next >= read.until {
            self.read = None;
            return Ok(Progress::Done);
        }
        if self.broker.stable_end(read.place) < read.until {
            self.wait(wait);
            return Ok(Progress::More);
        }
        // Like the one on Kafka it ends at the end of the partition, which may lie behind the bound.
        let mut fetched = self.broker.fetch(read.place, read.next, usize::MAX);
        let portion = match fetched.inputs.len() {
            0 => 0,
            there => self.fate.portion(there),
        };
        if portion < fetched.inputs.len() {
            fetched.inputs.truncate(portion);
            read.next = fetched.inputs[portion - 1].offset + 1;
            inputs.append(&mut fetched.inputs);
            return Ok(Progress::More);
        }
        inputs.append(&mut fetched.inputs);
        self.read = None;
        Ok(Progress::Done)
    }

    fn commit(
        &mut self,
        generation: &Generation,
        shares: Vec<PartitionWrites>,
    ) -> Result<Vec<Appended>, Failure> {
        if self.epoch.is_none() {
            return Err(Failure::Unclear(
                "the producer has to be made anew first".into(),
            ));
        }
        if self.has_lost(Client::Producer) {
            self.epoch = None;
            return Err(Failure::Unclear("Producer has lost the broker".into()));
        }
        // By the broker's clock: the worker's own may be ahead by what it has waited.
        let begun = self.broker.clock().elapsed();
        match self.transact(generation, shares) {
            Ok((_, took)) if took > SUSPICIOUS && !self.is(DisabledSafeguard::UnclearKept) => {
                self.epoch = None;
                Err(Failure::Unclear(format!(
                    "the commit took {} ms",
                    took.as_millis()
                )))
            }
            Ok((appended, _)) => Ok(appended),
            Err(trouble) => {
                let age = self.now().saturating_sub(begun);
                Err(self.give_up(trouble, age))
            }
        }
    }

    fn recreate(&mut self) -> Result<(), Error> {
        self.epoch = None;
        self.renew(Client::Producer);
        for _ in 0..TRIES {
            self.reach(Point::Recreate)?;
            match self.broker.init(&self.transactional_id) {
                Ok(epoch) => {
                    self.epoch = Some(epoch);
                    return Ok(());
                }
                Err(_) => self.wait(PAUSE),
            }
        }
        Err(Error::Unavailable("the coordinator is busy".into()))
    }

    fn rejoin(&mut self) -> Result<(), Error> {
        self.reach(Point::Recreate)?;
        self.renew(Client::Consumer);
        self.owned.clear();
        self.generation = None;
        self.lost = false;
        let member = self.broker.join(self.service, &self.instance);
        self.pulse.member.set(member);
        Ok(())
    }

    fn is_member(&mut self) -> Result<bool, Error> {
        if self.crashed {
            return Err(crash());
        }
        let heard = self.now().saturating_sub(self.thawed) >= HEARTBEATS || self.fate.toss();
        if heard && !self.broker.is_away() {
            let place = self
                .broker
                .holds(self.service, &self.instance, self.pulse.member.get());
            match place {
                Err(true) => self.fenced = true,
                Err(false) => return Ok(false),
                Ok(()) => {}
            }
        }
        if self.fenced {
            return Err(Error::Fenced("another member has the instance id".into()));
        }
        Ok(!self.lost)
    }

    fn membership(&self) -> Membership {
        if self.has_lost(Client::Consumer) {
            return unconfirmed("the client hears nothing of its group");
        }
        if self.broker.is_away() {
            return unconfirmed("the coordinator does not answer");
        }
        if self.lost || self.generation.is_none() {
            Membership::Joining
        } else {
            Membership::Confirmed
        }
    }

    fn ask_coordinator(&mut self) -> Result<(), Error> {
        self.reach_by(Client::Lookups, Point::Coordinator)?;
        let member = self.pulse.member.get();
        match self.broker.holds(self.service, &self.instance, member) {
            Err(true) => Err(Error::Fenced("another member has the instance id".into())),
            Err(false) | Ok(()) => Ok(()),
        }
    }

    fn peek(&mut self, partition: Partition, offset: i64) -> Result<Peek, Error> {
        self.reach(Point::Peek)?;
        let place = (self.service, Topic::Commands, partition);
        let stable = self.broker.stable_end(place);
        Ok(if stable <= offset {
            Peek::Held(stable)
        } else {
            Peek::Readable
        })
    }

    fn now(&self) -> Duration {
        self.pulse.ahead.get().max(self.broker.clock().elapsed())
    }

    fn unix_ms(&self) -> i64 {
        self.broker.clock().unix_ms()
    }
}
