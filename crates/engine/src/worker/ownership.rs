//! Assigned and revoked partitions, take-overs, and the recovery path.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use contracts::Contract;

use super::takeover::{self, TakeOver};
use super::{Error, TAKE_OVER_RETRY_INTERVAL, Worker, WorkerPhase};
use crate::effects::{EffectContext, EffectScheduler, Origin};
use crate::log::{Log, Membership, Partition};
use crate::{Decider, Outstanding, State};

impl<D: Decider, L: Log, S: EffectScheduler<D>> Worker<D, L, S> {
    pub(super) fn forget(&mut self, partition: Partition) {
        self.partitions.remove(partition);
        self.scheduler.forget(partition);
    }

    /// Drops all partitions: the group assigns new ones.
    pub(super) fn release_partitions(&mut self) {
        self.inputs.clear();
        self.reached.clear();
        for partition in self.partitions.in_turn() {
            self.forget(partition);
        }
        self.report_partitions();
    }

    /// The single recovery path: drops the state of every owned partition and queues its take-over. A failed partition
    /// stays failed: its defect would only repeat.
    pub(super) fn reset_partitions(&mut self) {
        self.inputs.clear();
        self.reached.clear();
        for partition in self.partitions.in_turn() {
            if self.partitions.has_failed(partition) {
                continue;
            }
            self.forget(partition);
            if let Err(error) = self.log.pause(partition) {
                tracing::debug!(%error, partition, "partition could not be paused; the next poll reports the reason");
            }
            self.partitions.assign(partition);
        }
        self.report_partitions();
    }

    /// Runs one step of the take-over; one partition is taken over at a time.
    pub(super) fn take_over(&mut self) -> Result<(), Error> {
        let now = self.log.now();
        if now < self.takeover_retry_at || self.phase != WorkerPhase::Running {
            return Ok(());
        }
        if self.partitions.current_take_over().is_none() {
            let Some(partition) = self.partitions.next_assigned() else {
                return Ok(());
            };
            match TakeOver::begin(&mut self.log, partition) {
                Ok(takeover) => {
                    self.partitions.take_over_began(takeover);
                    self.report_partitions();
                }
                Err(error) => return self.delay_take_over(error),
            }
        }
        let is_idle = self.partitions.restored().next().is_none();
        let wait = Duration::from_millis(if is_idle { 10 } else { 1 });
        let Some(takeover) = self.partitions.current_take_over() else {
            return Ok(());
        };
        let partition = takeover.partition();
        match takeover.step(&self.context, &mut self.log, wait) {
            Ok(Some(state)) => {
                if let Err(error) = self.log.start(partition, state.position) {
                    self.partitions.assign_first(partition);
                    return self.delay_take_over(error.into());
                }
                self.partitions.taken_over(partition, state);
                self.status.clear_delay();
                self.report_partitions();
                Ok(())
            }
            Ok(None) => {
                self.status.clear_delay();
                Ok(())
            }
            Err(error) => {
                if let takeover::Error::Newer { .. } = error {
                    // It starts again after the partitions that can be read.
                    self.partitions.assign(partition);
                }
                self.delay_take_over(error)
            }
        }
    }

    fn delay_take_over(&mut self, error: takeover::Error) -> Result<(), Error> {
        self.takeover_retry_at = self.log.now() + TAKE_OVER_RETRY_INTERVAL;
        match error {
            takeover::Error::Log(error) => {
                self.status.delayed(error.to_string());
                self.handle_log_error(error)
            }
            takeover::Error::Registry => {
                self.status.delayed(error.to_string());
                Ok(())
            }
            takeover::Error::Newer { .. } => {
                self.takeover_retry_at = self.log.now() + TAKE_OVER_RETRY_INTERVAL * 10;
                tracing::error!(service = %D::Contract::SERVICE, %error, "partition refused");
                self.status.delayed(error.to_string());
                Ok(())
            }
            error @ takeover::Error::Damaged { .. } => self.damaged(error),
        }
    }

    /// Ends the worker, unless its membership is unconfirmed: a process that was frozen during a take-over, and
    /// replaced meanwhile, may have read inconsistent data. Such a member starts all take-overs again.
    fn damaged(&mut self, error: takeover::Error) -> Result<(), Error> {
        let Membership::Unconfirmed { .. } = self.log.membership() else {
            return Err(error.into());
        };
        tracing::warn!(service = %D::Contract::SERVICE, %error, "take-over restarts: the group membership is not confirmed");
        self.reset_partitions();
        match self.log.ask_coordinator() {
            Ok(()) => Ok(()),
            Err(error) => self.handle_log_error(error),
        }
    }

    pub(super) fn start_effects(&mut self, partition: Partition) {
        let Some(partition_state) = self.partitions.get_mut(partition) else {
            return;
        };
        // Sorted, so that a run is reproducible.
        let mut waiting: Vec<_> = partition_state
            .aggregates
            .iter()
            .map(|(id, aggregate)| (id, aggregate, outstanding::<D>(&aggregate.state, id)))
            .filter(|(_, _, outstanding)| !outstanding.is_empty())
            .collect();
        waiting.sort_unstable_by_key(|(id, ..)| *id);
        for (id, aggregate, outstanding) in waiting {
            let effect_context = EffectContext {
                origin: Origin::TakenOver,
                since_ms: aggregate.time_ms,
                trace: aggregate.trace,
            };
            self.scheduler
                .replace(partition, id.clone(), outstanding, effect_context);
        }
        partition_state.effects_started = true;
    }
}

/// Outstanding effects and timers of a state. A panic of the rule book here must not stop the partition: it is logged,
/// and nothing is outstanding.
pub fn outstanding<D: Decider>(state: &State<D>, id: &str) -> Vec<Outstanding<D>> {
    catch_unwind(AssertUnwindSafe(|| D::outstanding(state, id))).unwrap_or_else(|_| {
        tracing::error!(service = %D::Contract::SERVICE, id, "the rule book panicked while it listed what is outstanding");
        Vec::new()
    })
}
