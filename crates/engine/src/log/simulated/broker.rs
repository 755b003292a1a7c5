//! The broker: topics, transactions and groups.

use std::collections::BTreeMap;
use std::sync::Arc;

use contracts::{Service, Topic};
use parking_lot::Mutex;

use super::group::{Generation, Group, MemberError, MembershipReply};
use super::journal::Journal;
use super::records::{NewRecord, Records};
use super::transactions::{CoordinatorError, MarkerTarget, Transaction};
use super::{Clock, TopicPartition};
use crate::log::limits::MAX_RECORD_BYTES;
use crate::log::{Ends, Header, Input, Output, Partition};

/// A simulated broker; clones share its state.
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
    delayed_ends: Vec<DelayedEnd>,
    is_unavailable: bool,
}

/// A delayed request to end a transaction.
struct DelayedEnd {
    transactional_id: String,
    epoch: u32,
    commit: bool,
    arrives_ms: i64,
}

/// Work that the broker does asynchronously.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PendingAction {
    /// Writes the marker of an ended transaction to one of its targets.
    WriteMarker(String, MarkerTarget),
    /// Completes the rebalance of a group.
    Rebalance(Service),
    /// Removes a member whose session has expired.
    RemoveMember(Service, String),
    /// Aborts a transaction that has timed out.
    ExpireTransaction(String),
    /// Delivers a delayed request to end a transaction, by its index among all delayed requests.
    DeliverEnd(usize),
    /// Compacts a partition of a state topic.
    Compact(Service, Partition),
}

impl PendingAction {
    /// The partition to which a marker is written; `None` for other actions and for the offsets of a group.
    pub fn marker_partition(&self) -> Option<TopicPartition> {
        match self {
            Self::WriteMarker(_, MarkerTarget::Data(tp)) => Some(*tp),
            _ => None,
        }
    }
}

/// The result of a fetch outside of any group.
#[derive(Debug, Default)]
pub struct Fetched {
    /// The records, in order.
    pub inputs: Vec<Input>,
    /// The next position: the offset after the last record or, when there are no more records, the last stable offset.
    pub position: i64,
}

/// Why a request within a transaction is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransactionError {
    Coordinator(CoordinatorError),
    /// The generation is not the current one of the group.
    IllegalGeneration,
    /// Another member has the instance id.
    FencedInstance,
    RecordTooLarge,
}

impl From<CoordinatorError> for TransactionError {
    fn from(refusal: CoordinatorError) -> Self {
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

    /// The journal to which its history is written.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Number of partitions of every topic.
    pub fn partitions(&self) -> u16 {
        self.partitions
    }

    /// Whether it answers no request now.
    pub fn is_unavailable(&self) -> bool {
        self.state.lock().is_unavailable
    }

    /// Makes it unavailable or available. Session timeouts restart.
    pub fn set_unavailable(&self, is_unavailable: bool) {
        let now_ms = self.clock.unix_ms();
        let mut state = self.state.lock();
        state.is_unavailable = is_unavailable;
        for group in state.groups.values_mut() {
            group.restart_sessions(now_ms);
        }
    }

    /// Appends a record outside of any transaction and returns its offset.
    pub fn append(
        &self,
        tp: TopicPartition,
        key: Option<Vec<u8>>,
        payload: Option<Vec<u8>>,
        headers: Vec<Header>,
    ) -> i64 {
        let now_ms = self.clock.unix_ms();
        self.note_append(tp, key.as_deref(), payload.as_deref());
        let new = NewRecord {
            key,
            payload,
            headers,
        };
        self.state.lock().records(tp).append(now_ms, new, None)
    }

    /// Begins a transaction of a producer outside of the simulated logs.
    pub fn begin(&self, transactional_id: &str) -> ExternalTransaction {
        let transactional_id = transactional_id.to_owned();
        let epoch = loop {
            match self.init(&transactional_id) {
                Ok(epoch) => break epoch,
                Err(_) => self.run_pending_actions(),
            }
        };
        ExternalTransaction {
            broker: self.clone(),
            transactional_id,
            epoch,
        }
    }

    /// At most `max` committed records of a partition, from `from` on.
    pub fn fetch(&self, tp: TopicPartition, from: i64, max: usize) -> Fetched {
        let (inputs, position) = self.state.lock().records(tp).committed(tp.2, from, max);
        Fetched { inputs, position }
    }

    /// All records of a partition, including those of aborted and open transactions, each with whether it is committed.
    pub fn all(&self, tp: TopicPartition) -> Vec<(Input, bool)> {
        self.state.lock().records(tp).all(tp.2)
    }

    /// Low and high watermark of a partition.
    pub fn ends(&self, tp: TopicPartition) -> Ends {
        let mut state = self.state.lock();
        let records = state.records(tp);
        Ends {
            low: records.low(),
            high: records.high(),
        }
    }

    /// The last stable offset.
    pub fn stable_end(&self, tp: TopicPartition) -> i64 {
        self.state.lock().records(tp).stable_end()
    }

    /// The committed offset of a group; `None` while an offset commit is pending.
    pub fn committed(&self, service: Service, partition: Partition) -> Option<i64> {
        let mut state = self.state.lock();
        state.group(service).committed(partition).ok().flatten()
    }

    /// The actions that can be performed now, without the compaction of states.
    pub fn pending_actions(&self) -> Vec<PendingAction> {
        let now_ms = self.clock.unix_ms();
        let state = self.state.lock();
        let mut pending_actions = Vec::new();
        if state.is_unavailable {
            return pending_actions;
        }
        for (id, transaction) in &state.transactions {
            if let Some((_, targets)) = transaction.markers() {
                let markers = targets.iter();
                pending_actions
                    .extend(markers.map(|target| PendingAction::WriteMarker(id.clone(), *target)));
            }
            if transaction.has_timed_out(now_ms) {
                pending_actions.push(PendingAction::ExpireTransaction(id.clone()));
            }
        }
        for (service, group) in &state.groups {
            if group.is_rebalancing() {
                pending_actions.push(PendingAction::Rebalance(*service));
            }
            let expired = group.expired_members(now_ms).into_iter();
            pending_actions.extend(expired.map(|name| PendingAction::RemoveMember(*service, name)));
        }
        let due = state.delayed_ends.iter().enumerate();
        let due = due.filter(|(_, end)| end.arrives_ms <= now_ms);
        pending_actions.extend(due.map(|(index, _)| PendingAction::DeliverEnd(index)));
        pending_actions
    }

    /// Performs one action.
    pub fn perform(&self, action: &PendingAction) {
        let now_ms = self.clock.unix_ms();
        let mut state = self.state.lock();
        match action {
            PendingAction::WriteMarker(id, target) => {
                let Some(transaction) = state.transactions.get_mut(id) else {
                    return;
                };
                let Some((commit, _)) = transaction.markers() else {
                    return;
                };
                let (producer, epoch) = (transaction.producer, transaction.epoch);
                transaction.marker_written(*target);
                match target {
                    MarkerTarget::Data(tp) => {
                        state
                            .records(*tp)
                            .append_marker(now_ms, producer, epoch, commit);
                    }
                    MarkerTarget::Offsets(service) => {
                        state.group(*service).end_transaction(producer, commit)
                    }
                }
                self.journal.note(format_args!(
                    "broker: {} of {id} reaches {}",
                    if commit { "commit" } else { "abort" },
                    target
                ));
            }
            PendingAction::Rebalance(service) => {
                state.group(*service).rebalance(self.partitions);
                self.journal
                    .note(format_args!("broker: group {service} has a new generation"));
            }
            PendingAction::RemoveMember(service, name) => {
                state.group(*service).remove(name);
                self.journal.note(format_args!(
                    "broker: {name} is removed from group {service}"
                ));
            }
            PendingAction::ExpireTransaction(id) => {
                if let Some(transaction) = state.transactions.get_mut(id) {
                    transaction.expire();
                }
                self.journal
                    .note(format_args!("broker: transaction of {id} has expired"));
            }
            PendingAction::DeliverEnd(index) => {
                if *index >= state.delayed_ends.len() {
                    return;
                }
                let end = state.delayed_ends.remove(*index);
                let result = state
                    .transactions
                    .get_mut(&end.transactional_id)
                    .map(|transaction| transaction.end(end.epoch, end.commit));
                self.journal.note(format_args!(
                    "broker: a delayed end of {} arrives: {result:?}",
                    end.transactional_id
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

    /// Performs actions until none is left.
    pub fn run_pending_actions(&self) {
        loop {
            let pending_actions = self.pending_actions();
            if pending_actions.is_empty() {
                return;
            }
            for action in &pending_actions {
                self.perform(action);
            }
        }
    }

    pub(super) fn init(&self, id: &str) -> Result<u32, CoordinatorError> {
        let mut state = self.state.lock();
        let next = state.transactions.len() as u64 + 1;
        state
            .transactions
            .entry(id.to_owned())
            .or_insert_with(|| Transaction::new(next))
            .init()
    }

    /// Writes a record within the transaction.
    pub(super) fn produce(
        &self,
        id: &str,
        epoch: u32,
        output: Output,
    ) -> Result<i64, TransactionError> {
        let Output {
            service,
            topic,
            partition,
            key,
            payload,
            headers,
        } = output;
        let tp = (service, topic, partition);
        if payload.as_ref().map_or(0, Vec::len) > MAX_RECORD_BYTES {
            return Err(TransactionError::RecordTooLarge);
        }
        let now_ms = self.clock.unix_ms();
        let mut state = self.state.lock();
        let producer = state.transaction(id)?.producer;
        let is_included = state.transaction(id)?.includes(epoch, tp);
        let records = state.records(tp);
        if !records.accepts_epoch(producer, epoch) {
            return Err(CoordinatorError::Fenced.into());
        }
        if !records.has_open_transaction(producer) && !is_included {
            return Err(CoordinatorError::InvalidState.into());
        }
        self.note_append(tp, key.as_deref(), payload.as_deref());
        let new = NewRecord {
            key,
            payload,
            headers,
        };
        Ok(records.append(now_ms, new, Some((producer, epoch))))
    }

    /// Adds a partition to the transaction.
    pub(super) fn add(
        &self,
        id: &str,
        epoch: u32,
        tp: TopicPartition,
    ) -> Result<(), TransactionError> {
        let now_ms = self.clock.unix_ms();
        let mut state = self.state.lock();
        let target = MarkerTarget::Data(tp);
        Ok(state.transaction(id)?.add(epoch, target, now_ms)?)
    }

    /// Adds offsets to the transaction. Without a `generation` the group does not check the sender.
    pub(super) fn send_offsets(
        &self,
        id: &str,
        epoch: u32,
        (service, instance): (Service, &str),
        generation: Option<&Generation>,
        offsets: &[(Partition, i64)],
    ) -> Result<(), TransactionError> {
        let now_ms = self.clock.unix_ms();
        let mut state = self.state.lock();
        let transaction = state.transaction(id)?;
        transaction.add(epoch, MarkerTarget::Offsets(service), now_ms)?;
        let producer = transaction.producer;
        let group = state.group(service);
        check_generation(group, instance, generation)?;
        group.add_pending_offsets(producer, offsets);
        Ok(())
    }

    /// Commits offsets outside of any transaction.
    pub(super) fn commit_offsets(
        &self,
        (service, instance): (Service, &str),
        generation: &Generation,
        offsets: &[(Partition, i64)],
    ) -> Result<(), TransactionError> {
        let mut state = self.state.lock();
        let group = state.group(service);
        check_generation(group, instance, Some(generation))?;
        group.commit_offsets(offsets);
        Ok(())
    }

    /// Ends the transaction; its markers are pending afterwards.
    pub(super) fn end(&self, id: &str, epoch: u32, commit: bool) -> Result<(), TransactionError> {
        let mut state = self.state.lock();
        Ok(state.transaction(id)?.end(epoch, commit)?)
    }

    /// Delays a request to end the transaction until `arrives_ms`.
    pub(super) fn delay_end(&self, id: &str, epoch: u32, commit: bool, arrives_ms: i64) {
        self.state.lock().delayed_ends.push(DelayedEnd {
            transactional_id: id.to_owned(),
            epoch,
            commit,
            arrives_ms,
        });
    }

    /// Adds a worker to its group and returns its member id.
    pub(super) fn join(&self, service: Service, instance: &str) -> u64 {
        let now_ms = self.clock.unix_ms();
        self.state.lock().group(service).join(instance, now_ms)
    }

    /// A heartbeat of a member, and the coordinator's response.
    pub(super) fn poll_membership(
        &self,
        service: Service,
        instance: &str,
        member: u64,
    ) -> MembershipReply {
        let mut state = self.state.lock();
        let group = state.group(service);
        group.heartbeat(instance, member, self.clock.unix_ms());
        group.next_reply(instance, member)
    }

    /// A heartbeat of a member's background thread, without a response.
    pub fn heartbeat(&self, service: Service, instance: &str, member: u64) {
        let now_ms = self.clock.unix_ms();
        let mut state = self.state.lock();
        if !state.is_unavailable {
            state.group(service).heartbeat(instance, member, now_ms);
        }
    }

    /// Checks that the member is in its group.
    pub(super) fn check_member(
        &self,
        service: Service,
        instance: &str,
        member: u64,
    ) -> Result<(), MemberError> {
        self.state
            .lock()
            .group(service)
            .check_member(instance, member)
    }

    pub(super) fn group_committed(
        &self,
        service: Service,
        partition: Partition,
    ) -> Result<Option<i64>, ()> {
        self.state.lock().group(service).committed(partition)
    }

    fn note_append(&self, tp: TopicPartition, key: Option<&[u8]>, payload: Option<&[u8]>) {
        self.journal.note(format_args!(
            "  {}.{}/{} << {}",
            tp.0,
            tp.1.name(),
            tp.2,
            String::from_utf8_lossy(key.unwrap_or_default())
        ));
        self.journal.digest_bytes(payload.unwrap_or_default());
    }
}

fn check_generation(
    group: &Group,
    instance: &str,
    generation: Option<&Generation>,
) -> Result<(), TransactionError> {
    let Some(generation) = generation else {
        return Ok(());
    };
    group
        .check_generation(instance, generation)
        .map_err(|error| match error {
            MemberError::FencedInstance => TransactionError::FencedInstance,
            MemberError::UnknownMember | MemberError::IllegalGeneration => {
                TransactionError::IllegalGeneration
            }
        })
}

impl State {
    fn records(&mut self, tp: TopicPartition) -> &mut Records {
        self.topics.entry(tp).or_default()
    }

    fn group(&mut self, service: Service) -> &mut Group {
        self.groups.entry(service).or_default()
    }

    fn transaction(&mut self, id: &str) -> Result<&mut Transaction, CoordinatorError> {
        self.transactions
            .get_mut(id)
            .ok_or(CoordinatorError::InvalidState)
    }
}

/// An open transaction of a producer outside of the simulated logs.
pub struct ExternalTransaction {
    broker: Broker,
    transactional_id: String,
    epoch: u32,
}

impl ExternalTransaction {
    /// Writes a record within the transaction.
    ///
    /// # Panics
    ///
    /// When its producer is fenced.
    pub fn append(&self, tp: TopicPartition, payload: &[u8]) {
        let output = Output {
            service: tp.0,
            topic: tp.1,
            partition: tp.2,
            key: None,
            payload: Some(payload.to_vec()),
            headers: Vec::new(),
        };
        self.broker
            .add(&self.transactional_id, self.epoch, tp)
            .and_then(|()| {
                self.broker
                    .produce(&self.transactional_id, self.epoch, output)
            })
            .expect("the producer is not fenced");
    }

    /// Ends the transaction; its markers are pending afterwards.
    ///
    /// # Panics
    ///
    /// When its producer is fenced.
    pub fn end(self, commit: bool) {
        self.broker
            .end(&self.transactional_id, self.epoch, commit)
            .expect("the producer is not fenced");
    }
}
