//! A consumer group with the classic protocol: cooperative rebalancing, static members.

use std::collections::{BTreeMap, BTreeSet};

use super::records::ProducerId;
use crate::log::Partition;

/// `session.timeout.ms`: how long a member may send no heartbeat.
const SESSION_TIMEOUT_MS: i64 = 15_000;

/// The group metadata of a member: the coordinator accepts offsets only from the current generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    pub(super) number: u32,
    pub(super) member: u64,
}

/// The state of a group and its committed offsets.
#[derive(Default)]
pub struct Group {
    generation: u32,
    next_member: u64,
    /// By instance id.
    members: BTreeMap<String, Member>,
    rebalancing: bool,
    offsets: BTreeMap<Partition, i64>,
    /// Offsets within open transactions.
    pending: BTreeMap<ProducerId, BTreeMap<Partition, i64>>,
}

struct Member {
    id: u64,
    last_heartbeat_ms: i64,
    /// The partitions of the last assignment that it has received.
    owned: BTreeSet<Partition>,
    /// The partitions that the last rebalance assigned to it.
    target: BTreeSet<Partition>,
    /// The generation that it has been notified of.
    notified_generation: Option<u32>,
}

/// The coordinator's response to a heartbeat.
#[derive(Debug, PartialEq, Eq)]
pub enum MembershipReply {
    /// The assignment has not changed.
    Unchanged,
    /// These partitions are revoked; the member rejoins afterwards.
    Revoke(Vec<Partition>, Generation),
    /// A new generation, with the added partitions.
    Assign(Vec<Partition>, Generation),
    /// The session of the member has expired.
    UnknownMember,
    /// Another member has its instance id.
    Fenced,
}

/// Why the coordinator does not accept a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberError {
    /// Another member has its instance id.
    FencedInstance,
    /// The group has no member with its instance id.
    UnknownMember,
    /// The group has a newer generation.
    IllegalGeneration,
}

impl Group {
    /// Adds a member, or replaces the member with the same instance id: the replacement takes over its assignment, and
    /// the former member is fenced.
    pub fn join(&mut self, instance: &str, now_ms: i64) -> u64 {
        self.next_member += 1;
        let id = self.next_member;
        if let Some(member) = self.members.get_mut(instance) {
            member.id = id;
            member.last_heartbeat_ms = now_ms;
            member.notified_generation = None;
            // Partitions that the former member had to give up are free now: the replacement has never owned them.
            let frees_partitions = !member.owned.is_subset(&member.target);
            member.owned.clear();
            self.rebalancing |= frees_partitions;
        } else {
            self.members.insert(
                instance.to_owned(),
                Member {
                    id,
                    last_heartbeat_ms: now_ms,
                    owned: BTreeSet::new(),
                    target: BTreeSet::new(),
                    notified_generation: None,
                },
            );
            self.rebalancing = true;
        }
        id
    }

    /// Whether a rebalance is in progress.
    pub fn is_rebalancing(&self) -> bool {
        self.rebalancing
    }

    /// Completes the rebalance: a new generation, which moves as few partitions as possible.
    pub fn rebalance(&mut self, partitions: u16) {
        self.rebalancing = false;
        self.generation += 1;
        if self.members.is_empty() {
            return;
        }
        let all = usize::from(partitions);
        let (quotient, remainder) = (all / self.members.len(), all % self.members.len());
        let mut free: Vec<Partition> = (0..Partition::from(partitions)).collect();
        let mut targets: BTreeMap<String, BTreeSet<Partition>> = BTreeMap::new();
        // Members with the most partitions keep the remainder.
        let mut names: Vec<_> = self.members.keys().cloned().collect();
        names.sort_by_key(|name| {
            let member = &self.members[name];
            std::cmp::Reverse(member.owned.union(&member.target).count())
        });
        let quota = |rank: usize| quotient + usize::from(rank < remainder);
        // Owned partitions take precedence over assigned ones.
        for owned in [true, false] {
            for (rank, name) in names.iter().enumerate() {
                let member = &self.members[name];
                let held = if owned { &member.owned } else { &member.target };
                let target = targets.entry(name.clone()).or_default();
                for partition in held {
                    if target.len() < quota(rank)
                        && let Some(index) = free.iter().position(|free| free == partition)
                    {
                        target.insert(free.remove(index));
                    }
                }
            }
        }
        for (rank, name) in names.iter().enumerate() {
            let target = targets.entry(name.clone()).or_default();
            while target.len() < quota(rank) && !free.is_empty() {
                target.insert(free.remove(0));
            }
        }
        for (name, target) in targets {
            if let Some(member) = self.members.get_mut(&name) {
                member.target = target;
            }
        }
    }

    /// A member has sent a heartbeat.
    pub fn heartbeat(&mut self, instance: &str, id: u64, now_ms: i64) {
        if let Some(member) = self.members.get_mut(instance)
            && member.id == id
        {
            member.last_heartbeat_ms = now_ms;
        }
    }

    /// The next response to a member, which is then in force.
    pub fn next_reply(&mut self, instance: &str, id: u64) -> MembershipReply {
        let generation = Generation {
            number: self.generation,
            member: id,
        };
        let Some(member) = self.members.get(instance) else {
            return MembershipReply::UnknownMember;
        };
        if member.id != id {
            return MembershipReply::Fenced;
        }
        if member.notified_generation == Some(self.generation)
            || (member.notified_generation.is_none() && self.rebalancing)
        {
            return MembershipReply::Unchanged;
        }
        let target = member.target.clone();
        let revoked: Vec<_> = member.owned.difference(&target).copied().collect();
        let held: BTreeSet<_> = self
            .members
            .iter()
            .filter(|(name, _)| *name != instance)
            .flat_map(|(_, other)| other.owned.iter().copied())
            .collect();
        let member = self
            .members
            .get_mut(instance)
            .expect("the member is in the group");
        member.notified_generation = Some(self.generation);
        if !revoked.is_empty() {
            member.owned.retain(|partition| target.contains(partition));
            // The member rejoins, which frees these partitions for the other members.
            self.rebalancing = true;
            return MembershipReply::Revoke(revoked, generation);
        }
        let added: Vec<_> = target
            .difference(&member.owned)
            .filter(|partition| !held.contains(partition))
            .copied()
            .collect();
        member.owned.extend(&added);
        MembershipReply::Assign(added, generation)
    }

    /// Members whose session has expired.
    pub fn expired_members(&self, now_ms: i64) -> Vec<String> {
        self.members
            .iter()
            .filter(|(_, member)| now_ms - member.last_heartbeat_ms > SESSION_TIMEOUT_MS)
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Removes a member.
    pub fn remove(&mut self, instance: &str) {
        if self.members.remove(instance).is_some() {
            self.rebalancing = true;
        }
    }

    /// Restarts the session timeout of all members, after the coordinator was unavailable.
    pub fn restart_sessions(&mut self, now_ms: i64) {
        for member in self.members.values_mut() {
            member.last_heartbeat_ms = now_ms;
        }
    }

    /// Checks that the member is in the group.
    pub fn check_member(&self, instance: &str, id: u64) -> Result<(), MemberError> {
        match self.members.get(instance) {
            None => Err(MemberError::UnknownMember),
            Some(member) if member.id != id => Err(MemberError::FencedInstance),
            Some(_) => Ok(()),
        }
    }

    /// Checks that the generation is the current one of a member of the group.
    pub fn check_generation(
        &self,
        instance: &str,
        generation: &Generation,
    ) -> Result<(), MemberError> {
        self.check_member(instance, generation.member)?;
        if self.generation == generation.number {
            Ok(())
        } else {
            Err(MemberError::IllegalGeneration)
        }
    }

    /// Adds offsets that become committed with the producer's transaction.
    pub fn add_pending_offsets(&mut self, producer: ProducerId, offsets: &[(Partition, i64)]) {
        self.pending
            .entry(producer)
            .or_default()
            .extend(offsets.iter().copied());
    }

    /// Ends the producer's transaction: its offsets are committed or dropped.
    pub fn end_transaction(&mut self, producer: ProducerId, committed: bool) {
        if let Some(offsets) = self.pending.remove(&producer)
            && committed
        {
            self.offsets.extend(offsets);
        }
    }

    /// Commits offsets outside of any transaction.
    pub fn commit_offsets(&mut self, offsets: &[(Partition, i64)]) {
        self.offsets.extend(offsets.iter().copied());
    }

    /// The committed offset; `Err` while an offset commit is pending.
    pub fn committed(&self, partition: Partition) -> Result<Option<i64>, ()> {
        if self
            .pending
            .values()
            .any(|offsets| offsets.contains_key(&partition))
        {
            return Err(());
        }
        Ok(self.offsets.get(&partition).copied())
    }
}
