//! The partitions that a worker owns. Each is in one phase.

use std::collections::BTreeMap;
use std::time::Duration;

use super::partition::PartitionState;
use super::takeover::TakeOver;
use crate::Decider;
use crate::log::Partition;

/// The phase of an owned partition.
pub enum PartitionPhase<D: Decider> {
    /// It waits for its take-over, behind those with a lower turn.
    Assigned { turn: i64 },
    /// It is being taken over.
    Restoring(Box<TakeOver<D>>),
    /// Its commands are processed.
    Running(Box<PartitionState<D>>),
    /// Its commands wait behind one that cannot be decoded yet.
    Blocked(Box<PartitionState<D>>, Block),
    /// It violates an invariant, and is not processed until the group assigns it again.
    Failed {
        /// For operators.
        reason: String,
    },
}

/// Why a partition is blocked.
pub struct Block {
    /// Offset of the command that cannot be decoded yet.
    pub offset: i64,
    /// For operators.
    pub reason: String,
    /// When the command is delivered again; `None` once that is requested.
    pub retry_at: Option<Duration>,
}

/// The owned partitions by number.
pub struct Partitions<D: Decider> {
    phases: BTreeMap<Partition, PartitionPhase<D>>,
}

impl<D: Decider> Default for Partitions<D> {
    fn default() -> Self {
        Self {
            phases: BTreeMap::new(),
        }
    }
}

impl<D: Decider> Partitions<D> {
    /// The phases by partition.
    pub fn phases(&self) -> impl Iterator<Item = (Partition, &PartitionPhase<D>)> {
        self.phases
            .iter()
            .map(|(partition, phase)| (*partition, phase))
    }

    /// Partitions whose state is in memory: running or blocked.
    pub fn restored(&self) -> impl Iterator<Item = (Partition, &PartitionState<D>)> {
        self.phases()
            .filter_map(|(partition, phase)| Some((partition, phase.state()?)))
    }

    /// Mutable version of [`Partitions::restored`].
    pub fn restored_mut(&mut self) -> impl Iterator<Item = (Partition, &mut PartitionState<D>)> {
        self.phases
            .iter_mut()
            .filter_map(|(partition, phase)| Some((*partition, phase.state_mut()?)))
    }

    /// The state of a restored partition.
    pub fn get(&self, partition: Partition) -> Option<&PartitionState<D>> {
        self.phases.get(&partition)?.state()
    }

    /// The state of a restored partition.
    pub fn get_mut(&mut self, partition: Partition) -> Option<&mut PartitionState<D>> {
        self.phases.get_mut(&partition)?.state_mut()
    }

    /// Whether the partition is blocked and its commands are not delivered.
    pub fn is_paused(&self, partition: Partition) -> bool {
        self.phases
            .get(&partition)
            .is_some_and(PartitionPhase::is_paused)
    }

    /// Offset of the command that blocks the partition.
    pub fn blocked_at(&self, partition: Partition) -> Option<i64> {
        match self.phases.get(&partition)? {
            PartitionPhase::Blocked(_, block) => Some(block.offset),
            _ => None,
        }
    }

    /// Whether the partition violated an invariant.
    pub fn has_failed(&self, partition: Partition) -> bool {
        matches!(
            self.phases.get(&partition),
            Some(PartitionPhase::Failed { .. })
        )
    }

    /// Whether a partition has still to be taken over.
    pub fn is_restoring(&self) -> bool {
        self.phases.values().any(|phase| {
            matches!(
                phase,
                PartitionPhase::Assigned { .. } | PartitionPhase::Restoring(_)
            )
        })
    }

    /// All partitions: the restored and failed ones, the one that is being taken over, then the others in their turn.
    pub fn in_turn(&self) -> Vec<Partition> {
        let mut owned: Vec<_> = self.phases().collect();
        owned.sort_by_key(|(_, phase)| match phase {
            PartitionPhase::Running(_)
            | PartitionPhase::Blocked(..)
            | PartitionPhase::Failed { .. } => (0, 0),
            PartitionPhase::Restoring(_) => (1, 0),
            PartitionPhase::Assigned { turn } => (2, *turn),
        });
        owned.into_iter().map(|(partition, _)| partition).collect()
    }

    /// Queues the partition for its take-over, last.
    pub fn assign(&mut self, partition: Partition) {
        self.phases.remove(&partition);
        let turn = self.turns().max().map_or(0, |last| last + 1);
        self.phases
            .insert(partition, PartitionPhase::Assigned { turn });
    }

    /// Queues the partition for its take-over, first.
    pub fn assign_first(&mut self, partition: Partition) {
        self.phases.remove(&partition);
        let turn = self.turns().min().map_or(0, |first| first - 1);
        self.phases
            .insert(partition, PartitionPhase::Assigned { turn });
    }

    fn turns(&self) -> impl Iterator<Item = i64> {
        self.phases.values().filter_map(|phase| match phase {
            PartitionPhase::Assigned { turn } => Some(*turn),
            _ => None,
        })
    }

    /// The partition that is taken over next.
    pub fn next_assigned(&self) -> Option<Partition> {
        let assigned = self.phases().filter_map(|(partition, phase)| match phase {
            PartitionPhase::Assigned { turn } => Some((*turn, partition)),
            _ => None,
        });
        assigned.min().map(|(_, partition)| partition)
    }

    /// The current take-over.
    pub fn current_take_over(&mut self) -> Option<&mut TakeOver<D>> {
        self.phases.values_mut().find_map(|phase| match phase {
            PartitionPhase::Restoring(takeover) => Some(&mut **takeover),
            _ => None,
        })
    }

    /// The take-over of an assigned partition has begun.
    pub fn take_over_began(&mut self, takeover: TakeOver<D>) {
        self.phases.insert(
            takeover.partition(),
            PartitionPhase::Restoring(Box::new(takeover)),
        );
    }

    /// The partition has been taken over.
    pub fn taken_over(&mut self, partition: Partition, state: PartitionState<D>) {
        self.phases
            .insert(partition, PartitionPhase::Running(Box::new(state)));
    }

    /// The commands of a restored partition wait.
    pub fn block(&mut self, partition: Partition, block: Block) {
        match self.phases.remove(&partition) {
            Some(PartitionPhase::Running(state) | PartitionPhase::Blocked(state, _)) => {
                self.phases
                    .insert(partition, PartitionPhase::Blocked(state, block));
            }
            Some(other) => drop(self.phases.insert(partition, other)),
            None => {}
        }
    }

    /// Ends the block of a partition that has processed the blocking command. Returns whether the block ended.
    pub fn unblock_passed(&mut self, partition: Partition) -> bool {
        match self.phases.remove(&partition) {
            Some(PartitionPhase::Blocked(state, block)) if state.position > block.offset => {
                self.phases
                    .insert(partition, PartitionPhase::Running(state));
                return true;
            }
            Some(other) => drop(self.phases.insert(partition, other)),
            None => {}
        }
        false
    }

    /// The paused partitions whose blocking command is due to be delivered again.
    pub fn due_blocks(&self, now: Duration) -> Vec<Partition> {
        let is_due = |phase: &PartitionPhase<D>| matches!(phase, PartitionPhase::Blocked(_, block) if block.retry_at.is_some_and(|at| at <= now));
        self.phases()
            .filter(|(_, phase)| is_due(phase))
            .map(|(partition, _)| partition)
            .collect()
    }

    /// Sets when the blocking command is delivered again; `None` when its delivery is under way.
    pub fn retry_block(&mut self, partition: Partition, at: Option<Duration>) {
        if let Some(PartitionPhase::Blocked(_, block)) = self.phases.get_mut(&partition) {
            block.retry_at = at;
        }
    }

    /// Stops processing the partition.
    pub fn fail(&mut self, partition: Partition, reason: String) {
        self.phases
            .insert(partition, PartitionPhase::Failed { reason });
    }

    /// Drops the partition with its state.
    pub fn remove(&mut self, partition: Partition) {
        self.phases.remove(&partition);
    }
}

impl<D: Decider> PartitionPhase<D> {
    /// The name of the phase, for operators.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Assigned { .. } => "assigned",
            Self::Restoring(_) => "restoring",
            Self::Running(_) => "running",
            Self::Blocked(..) => "blocked",
            Self::Failed { .. } => "failed",
        }
    }

    /// The state, when it is restored.
    pub fn state(&self) -> Option<&PartitionState<D>> {
        match self {
            Self::Running(state) | Self::Blocked(state, _) => Some(state),
            Self::Assigned { .. } | Self::Restoring(_) | Self::Failed { .. } => None,
        }
    }

    fn state_mut(&mut self) -> Option<&mut PartitionState<D>> {
        match self {
            Self::Running(state) | Self::Blocked(state, _) => Some(state),
            Self::Assigned { .. } | Self::Restoring(_) | Self::Failed { .. } => None,
        }
    }

    /// Why a blocked or failed partition is not processed; `None` in the other phases.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Blocked(_, block) => Some(&block.reason),
            Self::Failed { reason } => Some(reason),
            Self::Assigned { .. } | Self::Restoring(_) | Self::Running(_) => None,
        }
    }

    /// Whether it is blocked and its commands are not delivered.
    pub const fn is_paused(&self) -> bool {
        matches!(self, Self::Blocked(_, block) if block.retry_at.is_some())
    }
}
