//! Coming by partitions and giving them up.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use contracts::Contract;

use super::takeover::{self, TakeOver};
use super::{Error, RETRY, Worker};
use crate::effects::{EffectContext, EffectScheduler, Origin};
use crate::log::{Log, Membership, Partition};
use crate::{Decider, Outstanding, State};

impl<D: Decider, L: Log, A: EffectScheduler<D>> Worker<D, L, A> {
    pub(super) fn forget(&mut self, partition: Partition) {
        self.running.remove(&partition);
        self.queue.retain(|queued| *queued != partition);
        if self
            .takeover
            .as_ref()
            .is_some_and(|takeover| takeover.partition() == partition)
        {
            self.takeover = None;
        }
        self.agenda.forget(partition);
    }

    /// Every partition that is owned, whatever it is at.
    fn owned(&self) -> Vec<Partition> {
        self.running
            .keys()
            .copied()
            .chain(self.takeover.as_ref().map(TakeOver::partition))
            .chain(self.queue.iter().copied())
            .collect()
    }

    /// Owns nothing any more: the group will say anew what comes.
    pub(super) fn lose_everything(&mut self) {
        self.inputs.clear();
        self.reached.clear();
        for partition in self.owned() {
            self.forget(partition);
        }
        self.report();
    }

    /// The one road back.
    pub(super) fn reset_partitions(&mut self) {
        self.inputs.clear();
        self.reached.clear();
        for partition in self.owned() {
            self.forget(partition);
            if let Err(error) = self.log.pause(partition) {
                tracing::debug!(%error, partition, "partition could not be paused; the next poll says why");
            }
            self.queue.push_back(partition);
        }
        self.report();
    }

    /// Works on the partition that is being taken over, one at a time.
    pub(super) fn take_over(&mut self) -> Result<(), Error> {
        let now = self.log.now();
        if now < self.takeover_retry_at || self.recreate_at.is_some() {
            return Ok(());
        }
        if self.takeover.is_none() {
            let Some(partition) = self.queue.front().copied() else {
                return Ok(());
            };
            match TakeOver::begin(&mut self.log, partition) {
                Ok(takeover) => {
                    self.queue.pop_front();
                    self.takeover = Some(takeover);
                }
                Err(error) => return self.take_over_later(error),
            }
        }
        let Some(mut takeover) = self.takeover.take() else {
            return Ok(());
        };
        let wait = Duration::from_millis(if self.running.is_empty() { 10 } else { 1 });
        match takeover.step(&self.tools, &mut self.log, wait) {
            Ok(Some(running)) => {
                let partition = takeover.partition();
                if let Err(error) = self.log.start(partition, running.position) {
                    self.queue.push_front(partition);
                    return self.take_over_later(error.into());
                }
                self.running.insert(partition, running);
                self.status.undelayed();
                self.report();
                Ok(())
            }
            Ok(None) => {
                self.takeover = Some(takeover);
                Ok(())
            }
            // Begun anew, behind the partitions that can be read.
            Err(error @ takeover::Error::Newer { .. }) => {
                self.queue.push_back(takeover.partition());
                self.take_over_later(error)
            }
            Err(error) => {
                self.takeover = Some(takeover);
                self.take_over_later(error)
            }
        }
    }

    fn take_over_later(&mut self, error: takeover::Error) -> Result<(), Error> {
        self.takeover_retry_at = self.log.now() + RETRY;
        match error {
            takeover::Error::Log(error) => {
                self.status.delayed(error.to_string());
                self.trouble(error)
            }
            takeover::Error::Registry => {
                self.status.delayed(error.to_string());
                Ok(())
            }
            takeover::Error::Newer { .. } => {
                self.takeover_retry_at = self.log.now() + RETRY * 10;
                tracing::error!(service = %D::Contract::SERVICE, %error, "partition refused");
                self.status.delayed(error.to_string());
                Ok(())
            }
            error @ takeover::Error::Damaged { .. } => self.damaged(error),
        }
    }

    /// What contradicts itself may be what a former owner has seen: a process that was frozen during a take-over, and
    /// has not heard of its replacement yet. A member whose place is not confirmed does not end because of it.
    fn damaged(&mut self, error: takeover::Error) -> Result<(), Error> {
        let Membership::Unconfirmed { .. } = self.log.membership() else {
            return Err(error.into());
        };
        tracing::warn!(service = %D::Contract::SERVICE, %error, "take-over begins anew: the place in the group is not confirmed");
        self.reset_partitions();
        match self.log.ask_coordinator() {
            Ok(()) => Ok(()),
            Err(error) => self.trouble(error),
        }
    }

    pub(super) fn start_agenda(&mut self, partition: Partition) {
        let Some(running) = self.running.get_mut(&partition) else {
            return;
        };
        // In order, so that the same happens again.
        let mut waiting: Vec<_> = running
            .aggregates
            .iter()
            .map(|(id, aggregate)| (id, aggregate, outstanding::<D>(&aggregate.state, id)))
            .filter(|(_, _, outstanding)| !outstanding.is_empty())
            .collect();
        waiting.sort_unstable_by_key(|(id, ..)| *id);
        for (id, aggregate, outstanding) in waiting {
            let occasion = EffectContext {
                origin: Origin::TakenOver,
                since_ms: aggregate.time_ms,
                trace: aggregate.trace,
            };
            self.agenda
                .replace(partition, id.clone(), outstanding, occasion);
        }
        running.agenda_started = true;
    }
}

/// What a state waits for. A rule book that panics here must not stop the partition: it is said, and nothing is waited
/// for.
pub fn outstanding<D: Decider>(state: &State<D>, id: &str) -> Vec<Outstanding<D>> {
    catch_unwind(AssertUnwindSafe(|| D::outstanding(state, id))).unwrap_or_else(|_| {
        tracing::error!(service = %D::Contract::SERVICE, id, "the rule book panicked on what is outstanding");
        Vec::new()
    })
}
