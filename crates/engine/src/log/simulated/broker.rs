//! The broker: everything that the members share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use contracts::{Service, Topic};

use super::group::{Generation, Group, MembershipReply};
use super::journal::Journal;
use super::records::{New, Records};
use super::transactions::{Refusal, Target, Transaction};
use super::{Clock, TopicPartition};
use crate::log::kafka::MAX_RECORD_BYTES;
use crate::log::{Ends, Header, Input, Output, Partition};

/// A simulated broker; clones are the same one.
#[derive(Clone)]
pub struct Broker {
    clock: Clock,
    journal: Journal,
    partitions: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<TopicPartition, Records>,
    transactions: BTreeMap<String, Transaction>,
    groups: BTreeMap<Service, Group>,
    late: Vec<Late>,
    away: bool,
}

/// A request to end a transaction that is still under way.
struct Late {
    transactional_id: String,
    epoch: u32,
    commit: bool,
    arrives_ms: i64,
}

/// Something that the broker does by itself, sooner or later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PendingAction {
    /// A marker of an ended transaction reaches one of the places that took part in it.
    Marker(String, Target),
    /// A group completes its rebalance.
    Rebalance(Service),
    /// A group goes on without a silent member.
    Remove(Service, String),
    /// A transaction that was abandoned is aborted.
    Expire(String),
    /// A request that was held up arrives; the number counts those under way.
    Arrive(usize),
    /// A state topic is compacted.
    Compact(Service, Partition),
}

impl PendingAction {
    /// Where a marker goes, unless it goes to a group's offsets.
    pub fn place(&self) -> Option<TopicPartition> {
        match self {
            Self::Marker(_, Target::Data(place)) => Some(*place),
            _ => None,
        }
    }
}

/// Records that a reader outside of any group fetched.
#[derive(Debug, Default)]
pub struct Fetched {
    /// In order.
    pub inputs: Vec<Input>,
    /// Behind the last of them or, when there are no more, the last stable offset.
    pub position: i64,
}

/// Why a record of a transaction was not written, or something did not join it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Coordinator(Refusal),
    /// The group does not know the generation (any more).
    Generation,
    /// Another member has the instance id.
    Instance,
    TooLarge,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::Coordinator(refusal)
    }
}

impl Broker {
    /// A broker with empty topics.
    pub fn new(clock: Clock, journal: Journal, partitions: u16) -> Self {
        Self {
            clock,
            journal,
            partitions,
            state: Arc::default(),
        }
    }

    /// Its clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Where its history is taken down.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Partitions of every topic.
    pub fn partitions(&self) -> u16 {
        self.partitions
    }

    /// Whether it answers nobody now.
    pub fn is_away(&self) -> bool {
        self.state().away
    }

    /// It stops to answer, or answers again. Nobody is silent to a broker that is away.
    pub fn set_away(&self, away: bool) {
        let now_ms = self.clock.unix_ms();
        let mut state = self.state();
        state.away = away;
        for group in state.groups.values_mut() {
            group.forgive(now_ms);
        }
    }

    /// Appends a record outside of any transaction; its offset.
    pub fn append(
        &self,
        place: TopicPartition,
        key: Option<Vec<u8>>,
        payload: Option<Vec<u8>>,
        headers: Vec<Header>,
    ) -> i64 {
        let now_ms = self.clock.unix_ms();
        self.written(place, key.as_deref(), payload.as_deref());
        let new = New {
            key,
            payload,
            headers,
        };
        self.state().records(place).append(now_ms, new, None)
    }

    /// Somebody else's transaction.
    pub fn begin(&self, transactional_id: &str) -> Foreign {
        let transactional_id = transactional_id.to_owned();
        let epoch = loop {
            match self.init(&transactional_id) {
                Ok(epoch) => break epoch,
                Err(_) => self.settle(),
            }
        };
        Foreign {
            broker: self.clone(),
            transactional_id,
            epoch,
        }
    }

    /// Committed records of a partition from `from` on, at most `most`.
    pub fn fetch(&self, place: TopicPartition, from: i64, most: usize) -> Fetched {
        let (inputs, position) = self.state().records(place).committed(place.2, from, most);
        Fetched { inputs, position }
    }

    /// Every record of a partition, those of aborted and open transactions too, and whether it is committed.
    pub fn all(&self, place: TopicPartition) -> Vec<(Input, bool)> {
        self.state().records(place).all(place.2)
    }

    /// The ends of a partition, without regard to transactions.
    pub fn ends(&self, place: TopicPartition) -> Ends {
        let mut state = self.state();
        let records = state.records(place);
        Ends {
            low: records.low(),
            high: records.high(),
        }
    }

    /// The last stable offset.
    pub fn stable_end(&self, place: TopicPartition) -> i64 {
        self.state().records(place).stable()
    }

    /// What a group has committed, whatever is pending.
    pub fn committed(&self, service: Service, partition: Partition) -> Option<i64> {
        let mut state = self.state();
        state.group(service).committed(partition).ok().flatten()
    }

    /// What the broker may do by itself now, without the compaction of states.
    pub fn chores(&self) -> Vec<PendingAction> {
        let now_ms = self.clock.unix_ms();
        let state = self.state();
        let mut chores = Vec::new();
        if state.away {
            return chores;
        }
        for (id, transaction) in &state.transactions {
            if let Some((_, targets)) = transaction.markers() {
                let markers = targets.iter();
                chores.extend(markers.map(|target| PendingAction::Marker(id.clone(), *target)));
            }
            if transaction.is_overdue(now_ms) {
                chores.push(PendingAction::Expire(id.clone()));
            }
        }
        for (service, group) in &state.groups {
            if group.is_rebalancing() {
                chores.push(PendingAction::Rebalance(*service));
            }
            let silent = group.silent(now_ms).into_iter();
            chores.extend(silent.map(|name| PendingAction::Remove(*service, name)));
        }
        let due = state.late.iter().enumerate();
        let due = due.filter(|(_, late)| late.arrives_ms <= now_ms);
        chores.extend(due.map(|(index, _)| PendingAction::Arrive(index)));
        chores
    }

    /// Does one of them.
    pub fn perform(&self, chore: &PendingAction) {
        let now_ms = self.clock.unix_ms();
        let mut state = self.state();
        match chore {
            PendingAction::Marker(id, target) => {
                let Some(transaction) = state.transactions.get_mut(id) else {
                    return;
                };
                let Some((commit, _)) = transaction.markers() else {
                    return;
                };
                let (producer, epoch) = (transaction.producer, transaction.epoch);
                transaction.arrived(*target);
                match target {
                    Target::Data(place) => {
                        state.records(*place).mark(now_ms, producer, epoch, commit);
                    }
                    Target::Offsets(service) => state.group(*service).mark(producer, commit),
                }
                self.journal.note(format_args!(
                    "broker: {} of {id} reaches {}",
                    if commit { "commit" } else { "abort" },
                    Shown(*target)
                ));
            }
            PendingAction::Rebalance(service) => {
                state.group(*service).rebalance(self.partitions);
                self.journal
                    .note(format_args!("broker: group {service} has a new generation"));
            }
            PendingAction::Remove(service, name) => {
                state.group(*service).remove(name);
                self.journal.note(format_args!(
                    "broker: group {service} goes on without {name}"
                ));
            }
            PendingAction::Expire(id) => {
                if let Some(transaction) = state.transactions.get_mut(id) {
                    transaction.expire();
                }
                self.journal
                    .note(format_args!("broker: transaction of {id} has expired"));
            }
            PendingAction::Arrive(index) => {
                if *index >= state.late.len() {
                    return;
                }
                let late = state.late.remove(*index);
                let ended = state
                    .transactions
                    .get_mut(&late.transactional_id)
                    .map(|transaction| transaction.end(late.epoch, late.commit));
                self.journal.note(format_args!(
                    "broker: a late end of {} arrives: {ended:?}",
                    late.transactional_id
                ));
            }
            PendingAction::Compact(service, partition) => {
                state
                    .records((*service, Topic::State, *partition))
                    .compact();
                self.journal.note(format_args!(
                    "broker: {service}.state/{partition} compacted"
                ));
            }
        }
    }

    /// Does everything that there is to do.
    pub fn settle(&self) {
        loop {
            let chores = self.chores();
            if chores.is_empty() {
                return;
            }
            for chore in &chores {
                self.perform(chore);
            }
        }
    }

    pub(super) fn init(&self, id: &str) -> Result<u32, Refusal> {
        let mut state = self.state();
        let next = state.transactions.len() as u64 + 1;
        state
            .transactions
            .entry(id.to_owned())
            .or_insert_with(|| Transaction::new(next))
            .init()
    }

    /// A record joins the transaction and is written.
    pub(super) fn produce(&self, id: &str, epoch: u32, output: Output) -> Result<i64, Refused> {
        let Output {
            service,
            topic,
            partition,
            key,
            payload,
            headers,
        } = output;
        let place = (service, topic, partition);
        if payload.as_ref().map_or(0, Vec::len) > MAX_RECORD_BYTES {
            return Err(Refused::TooLarge);
        }
        let now_ms = self.clock.unix_ms();
        let mut state = self.state();
        let producer = state.transaction(id)?.producer;
        let verified = state.transaction(id)?.verifies(epoch, place);
        let records = state.records(place);
        if !records.admits(producer, epoch) {
            return Err(Refusal::Fenced.into());
        }
        if !records.is_open(producer) && !verified {
            return Err(Refusal::Invalid.into());
        }
        self.written(place, key.as_deref(), payload.as_deref());
        let new = New {
            key,
            payload,
            headers,
        };
        Ok(records.append(now_ms, new, Some((producer, epoch))))
    }

    pub(super) fn add(&self, id: &str, epoch: u32, place: TopicPartition) -> Result<(), Refused> {
        let now_ms = self.clock.unix_ms();
        let mut state = self.state();
        let target = Target::Data(place);
        Ok(state.transaction(id)?.add(epoch, target, now_ms)?)
    }

    /// Offsets join the transaction; `generation` is `None` when nobody vouches for them.
    pub(super) fn send_offsets(
        &self,
        id: &str,
        epoch: u32,
        (service, instance): (Service, &str),
        generation: Option<&Generation>,
        offsets: &[(Partition, i64)],
    ) -> Result<(), Refused> {
        let now_ms = self.clock.unix_ms();
        let mut state = self.state();
        let transaction = state.transaction(id)?;
        transaction.add(epoch, Target::Offsets(service), now_ms)?;
        let producer = transaction.producer;
        let group = state.group(service);
        vouched(group, instance, generation)?;
        group.send(producer, offsets);
        Ok(())
    }

    /// Offsets outside of any transaction.
    pub(super) fn store_offsets(
        &self,
        (service, instance): (Service, &str),
        generation: &Generation,
        offsets: &[(Partition, i64)],
    ) -> Result<(), Refused> {
        let mut state = self.state();
        let group = state.group(service);
        vouched(group, instance, Some(generation))?;
        group.store(offsets);
        Ok(())
    }

    pub(super) fn end(&self, id: &str, epoch: u32, commit: bool) -> Result<(), Refused> {
        let mut state = self.state();
        Ok(state.transaction(id)?.end(epoch, commit)?)
    }

    /// A request to end the transaction is held up.
    pub(super) fn hold_up(&self, id: &str, epoch: u32, commit: bool, arrives_ms: i64) {
        self.state().late.push(Late {
            transactional_id: id.to_owned(),
            epoch,
            commit,
            arrives_ms,
        });
    }

    /// A worker joins its group.
    pub(super) fn join(&self, service: Service, instance: &str) -> u64 {
        let now_ms = self.clock.unix_ms();
        self.state().group(service).join(instance, now_ms)
    }

    pub(super) fn word(&self, service: Service, instance: &str, member: u64) -> MembershipReply {
        let mut state = self.state();
        let group = state.group(service);
        group.heartbeat(instance, member, self.clock.unix_ms());
        group.word(instance, member)
    }

    /// A process is alive, whatever its worker is at.
    pub fn heartbeat(&self, service: Service, instance: &str, member: u64) {
        let now_ms = self.clock.unix_ms();
        let mut state = self.state();
        if !state.away {
            state.group(service).heartbeat(instance, member, now_ms);
        }
    }

    /// Whether a member has its place: `Err(true)` when another one has it.
    pub(super) fn holds(&self, service: Service, instance: &str, member: u64) -> Result<(), bool> {
        self.state().group(service).holds(instance, member)
    }

    pub(super) fn group_committed(
        &self,
        service: Service,
        partition: Partition,
    ) -> Result<Option<i64>, ()> {
        self.state().group(service).committed(partition)
    }

    fn written(&self, place: TopicPartition, key: Option<&[u8]>, payload: Option<&[u8]>) {
        self.journal.note(format_args!(
            "  {}.{}/{} << {}",
            place.0,
            place.1.name(),
            place.2,
            String::from_utf8_lossy(key.unwrap_or_default())
        ));
        self.journal.bytes(payload.unwrap_or_default());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

fn vouched(group: &Group, instance: &str, generation: Option<&Generation>) -> Result<(), Refused> {
    let Some(generation) = generation else {
        return Ok(());
    };
    group
        .vouches(instance, generation)
        .map_err(|replaced| match replaced {
            true => Refused::Instance,
            false => Refused::Generation,
        })
}

impl State {
    fn records(&mut self, place: TopicPartition) -> &mut Records {
        self.topics.entry(place).or_default()
    }

    fn group(&mut self, service: Service) -> &mut Group {
        self.groups.entry(service).or_default()
    }

    fn transaction(&mut self, id: &str) -> Result<&mut Transaction, Refusal> {
        self.transactions.get_mut(id).ok_or(Refusal::Invalid)
    }
}

/// Somebody else's open transaction.
pub struct Foreign {
    broker: Broker,
    transactional_id: String,
    epoch: u32,
}

impl Foreign {
    /// Writes a record in it.
    ///
    /// # Panics
    ///
    /// When it has been fenced.
    pub fn append(&self, place: TopicPartition, payload: &[u8]) {
        let output = Output {
            service: place.0,
            topic: place.1,
            partition: place.2,
            key: None,
            payload: Some(payload.to_vec()),
            headers: Vec::new(),
        };
        self.broker
            .add(&self.transactional_id, self.epoch, place)
            .and_then(|()| {
                self.broker
                    .produce(&self.transactional_id, self.epoch, output)
            })
            .expect("nobody has fenced it");
    }

    /// Ends it; its markers are still on their way then.
    ///
    /// # Panics
    ///
    /// When it has been fenced.
    pub fn end(self, commit: bool) {
        self.broker
            .end(&self.transactional_id, self.epoch, commit)
            .expect("nobody has fenced it");
    }
}

struct Shown(Target);

impl std::fmt::Display for Shown {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Target::Data((service, topic, partition)) => {
                write!(formatter, "{service}.{}/{partition}", topic.name())
            }
            Target::Offsets(service) => write!(formatter, "the offsets of {service}"),
        }
    }
}
