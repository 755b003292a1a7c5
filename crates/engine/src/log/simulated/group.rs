//! A consumer group under the classic protocol: cooperative, with static members.

use std::collections::{BTreeMap, BTreeSet};

use super::records::ProducerId;
use crate::log::Partition;

/// How long the group waits for a silent member, milliseconds.
const SESSION_MS: i64 = 15_000;

/// A member's view of the group, which vouches for what it has polled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    pub(super) number: u32,
    pub(super) member: u64,
}

/// The group and the offsets that it has committed.
#[derive(Default)]
pub struct Group {
    generation: u32,
    next_member: u64,
    members: BTreeMap<String, Member>,
    rebalancing: bool,
    offsets: BTreeMap<Partition, i64>,
    pending: BTreeMap<ProducerId, BTreeMap<Partition, i64>>,
}

struct Member {
    id: u64,
    seen_ms: i64,
    /// What it works on, as far as it has been told.
    owned: BTreeSet<Partition>,
    /// What it shall work on.
    target: BTreeSet<Partition>,
    /// The generation that it has been told of.
    told: Option<u32>,
}

/// What the coordinator says to a heartbeat.
#[derive(Debug, PartialEq, Eq)]
pub enum MembershipReply {
    /// Nothing new.
    Nothing,
    /// These have to be given up first.
    Revoke(Vec<Partition>, Generation),
    /// A new generation, and what it brings.
    Assign(Vec<Partition>, Generation),
    /// The member was silent for too long.
    Unknown,
    /// Another one runs under its instance id.
    Fenced,
}

impl Group {
    /// Joins under an instance id; whoever had it before is fenced, and the place stays as it is.
    pub fn join(&mut self, instance: &str, now_ms: i64) -> u64 {
        self.next_member += 1;
        let id = self.next_member;
        if let Some(member) = self.members.get_mut(instance) {
            member.id = id;
            member.seen_ms = now_ms;
            member.told = None;
            // What was to be given up is free now: the newcomer has never worked on it.
            let waited_for = !member.owned.is_subset(&member.target);
            member.owned.clear();
            self.rebalancing |= waited_for;
        } else {
            self.members.insert(
                instance.to_owned(),
                Member {
                    id,
                    seen_ms: now_ms,
                    owned: BTreeSet::new(),
                    target: BTreeSet::new(),
                    told: None,
                },
            );
            self.rebalancing = true;
        }
        id
    }

    /// Whether a rebalance is under way.
    pub fn is_rebalancing(&self) -> bool {
        self.rebalancing
    }

    /// All members have joined: a new generation, with as few partitions moved as possible.
    pub fn rebalance(&mut self, partitions: u16) {
        self.rebalancing = false;
        self.generation += 1;
        if self.members.is_empty() {
            return;
        }
        let all = usize::from(partitions);
        let (least, more) = (all / self.members.len(), all % self.members.len());
        let mut free: Vec<Partition> = (0..Partition::from(partitions)).collect();
        let mut targets: BTreeMap<String, BTreeSet<Partition>> = BTreeMap::new();
        // Those who have most keep one more, if somebody has to.
        let mut names: Vec<_> = self.members.keys().cloned().collect();
        names.sort_by_key(|name| {
            let member = &self.members[name];
            std::cmp::Reverse(member.owned.union(&member.target).count())
        });
        let quota = |rank: usize| least + usize::from(rank < more);
        // What is worked on stays before what is only promised.
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

    /// A member has been heard of.
    pub fn heartbeat(&mut self, instance: &str, id: u64, now_ms: i64) {
        if let Some(member) = self.members.get_mut(instance)
            && member.id == id
        {
            member.seen_ms = now_ms;
        }
    }

    /// What a member is told next; it does as it is told.
    pub fn word(&mut self, instance: &str, id: u64) -> MembershipReply {
        let generation = Generation {
            number: self.generation,
            member: id,
        };
        let Some(member) = self.members.get(instance) else {
            return MembershipReply::Unknown;
        };
        if member.id != id {
            return MembershipReply::Fenced;
        }
        if member.told == Some(self.generation) || (member.told.is_none() && self.rebalancing) {
            return MembershipReply::Nothing;
        }
        let target = member.target.clone();
        let gone: Vec<_> = member.owned.difference(&target).copied().collect();
        let held: BTreeSet<_> = self
            .members
            .iter()
            .filter(|(name, _)| *name != instance)
            .flat_map(|(_, other)| other.owned.iter().copied())
            .collect();
        let member = self.members.get_mut(instance).expect("it was there");
        member.told = Some(self.generation);
        if !gone.is_empty() {
            member.owned.retain(|partition| target.contains(partition));
            // It joins once more, so that they are free for the others.
            self.rebalancing = true;
            return MembershipReply::Revoke(gone, generation);
        }
        let came: Vec<_> = target
            .difference(&member.owned)
            .filter(|partition| !held.contains(partition))
            .copied()
            .collect();
        member.owned.extend(&came);
        MembershipReply::Assign(came, generation)
    }

    /// Members that have been silent for too long.
    pub fn silent(&self, now_ms: i64) -> Vec<String> {
        self.members
            .iter()
            .filter(|(_, member)| now_ms - member.seen_ms > SESSION_MS)
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Goes on without a member.
    pub fn remove(&mut self, instance: &str) {
        if self.members.remove(instance).is_some() {
            self.rebalancing = true;
        }
    }

    /// The coordinator was away: nobody has been silent meanwhile.
    pub fn forgive(&mut self, now_ms: i64) {
        for member in self.members.values_mut() {
            member.seen_ms = now_ms;
        }
    }

    /// Whether a member has its place: `Err(true)` when another one has it.
    pub fn holds(&self, instance: &str, id: u64) -> Result<(), bool> {
        match self.members.get(instance) {
            None => Err(false),
            Some(member) if member.id != id => Err(true),
            Some(_) => Ok(()),
        }
    }

    /// Whether a generation still vouches for anything: `Err(true)` when another member has the place.
    pub fn vouches(&self, instance: &str, generation: &Generation) -> Result<(), bool> {
        self.holds(instance, generation.member)?;
        if self.generation == generation.number {
            Ok(())
        } else {
            Err(false)
        }
    }

    /// Offsets that become valid with the producer's transaction.
    pub fn send(&mut self, producer: ProducerId, offsets: &[(Partition, i64)]) {
        self.pending
            .entry(producer)
            .or_default()
            .extend(offsets.iter().copied());
    }

    /// The producer's transaction has ended.
    pub fn mark(&mut self, producer: ProducerId, committed: bool) {
        if let Some(offsets) = self.pending.remove(&producer)
            && committed
        {
            self.offsets.extend(offsets);
        }
    }

    /// Offsets outside of any transaction.
    pub fn store(&mut self, offsets: &[(Partition, i64)]) {
        self.offsets.extend(offsets.iter().copied());
    }

    /// The committed offset; `Err` while one is pending.
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
