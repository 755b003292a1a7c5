//! The transactions of a member, and their failures.

use std::collections::BTreeMap;
use std::time::Duration;

use contracts::Topic;

use super::super::broker::TransactionError;
use super::super::fault_injector::{EndDelivery, FaultPoint};
use super::super::group::Generation;
use super::super::transactions::CoordinatorError;
use super::{LogDefect, MAX_ATTEMPTS, RETRY_INTERVAL, SimulatedLog};
use crate::log::limits::{SLOW_TRANSACTION_CALL, SOCKET_TIMEOUT};
use crate::log::{Appended, Failure, Log as _, Partition, PartitionWrites};

/// How long a delayed request to end a transaction takes, milliseconds.
const END_DELAY_MS: i64 = 4_000;

/// Why a call to the transaction coordinator fails.
pub(super) enum CallError {
    Crashed,
    Timeout(&'static str),
    Rejected(TransactionError),
}

impl From<TransactionError> for CallError {
    fn from(error: TransactionError) -> Self {
        Self::Rejected(error)
    }
}

impl SimulatedLog {
    /// Carries out a transaction; the ends of its events, and how long its end took.
    pub(super) fn transact(
        &mut self,
        generation: &Generation,
        writes: Vec<PartitionWrites>,
    ) -> Result<(Vec<Appended>, Duration), CallError> {
        let epoch = self.epoch.unwrap_or(0);
        self.reach_point(FaultPoint::Begin)?;
        let offsets: Vec<_> = writes
            .iter()
            .map(|write| (write.partition, write.offset))
            .collect();
        let mut ends: BTreeMap<Partition, i64> = BTreeMap::new();
        let mut added = Vec::new();
        for output in writes.into_iter().flat_map(|write| write.outputs) {
            let tp = (output.service, output.topic, output.partition);
            if !added.contains(&tp) {
                self.retry_while_busy(|log| log.broker.add(&log.transactional_id, epoch, tp))?;
                added.push(tp);
            }
            let offset = self.broker.produce(&self.transactional_id, epoch, output)?;
            if (tp.0, tp.1) == (self.service, Topic::Events) {
                ends.insert(tp.2, offset + 1);
            }
            self.reach_point(FaultPoint::Produced)?;
        }
        let started = self.now();
        self.reach_point(FaultPoint::SendOffsets)?;
        self.send_offsets(epoch, generation, &offsets)?;
        self.reach_point(FaultPoint::End)?;
        // Without its offsets the transaction may be empty.
        if !(self.is_disabled(LogDefect::OffsetsOutsideTransaction) && added.is_empty()) {
            self.end(epoch, true)?;
        }
        self.reach_point(FaultPoint::Ended)?;
        let appended = ends.into_iter().map(|(partition, events_end)| Appended {
            partition,
            events_end,
        });
        Ok((appended.collect(), self.now().saturating_sub(started)))
    }

    fn send_offsets(
        &mut self,
        epoch: u32,
        generation: &Generation,
        offsets: &[(Partition, i64)],
    ) -> Result<(), CallError> {
        if self.is_disabled(LogDefect::OffsetsOutsideTransaction) {
            let member = (self.service, self.instance.as_str());
            return Ok(self.broker.commit_offsets(member, generation, offsets)?);
        }
        let generation =
            (!self.is_disabled(LogDefect::OffsetsWithoutGeneration)).then_some(generation);
        self.retry_while_busy(|log| {
            let member = (log.service, log.instance.as_str());
            log.broker
                .send_offsets(&log.transactional_id, epoch, member, generation, offsets)
        })
    }

    /// Sends the request to end the transaction, as the fault injector delivers it.
    fn end(&mut self, epoch: u32, commit: bool) -> Result<(), CallError> {
        let delivery = self.faults.end_delivery(&self.instance);
        let id = self.transactional_id.clone();
        if delivery != EndDelivery::Prompt {
            let journal = self.broker.journal();
            journal.note(format_args!("{id}: the request to end is {delivery:?}"));
        }
        let arrives_ms = self.broker.clock().unix_ms() + END_DELAY_MS;
        match delivery {
            EndDelivery::Prompt => {
                return self.retry_while_busy(|log| log.broker.end(&id, epoch, commit));
            }
            EndDelivery::Lost => {}
            EndDelivery::ReplyLost => {
                let _ = self.broker.end(&id, epoch, commit);
            }
            EndDelivery::Late | EndDelivery::Repeated => {
                self.broker.delay_end(&id, epoch, commit, arrives_ms);
            }
        }
        if delivery == EndDelivery::Repeated || self.is_disabled(LogDefect::UnclearProducerKept) {
            // The client repeats the request.
            self.wait(SLOW_TRANSACTION_CALL + RETRY_INTERVAL);
            return self.retry_while_busy(|log| log.broker.end(&id, epoch, commit));
        }
        self.wait(SOCKET_TIMEOUT);
        Err(CallError::Timeout("no answer"))
    }

    /// Repeats a call while the coordinator is still ending the previous transaction.
    fn retry_while_busy<T>(
        &mut self,
        call: impl Fn(&Self) -> Result<T, TransactionError>,
    ) -> Result<T, CallError> {
        for _ in 0..MAX_ATTEMPTS {
            match call(self) {
                Err(TransactionError::Coordinator(CoordinatorError::ConcurrentTransactions)) => {
                    self.wait(RETRY_INTERVAL);
                    self.reach_point(FaultPoint::Retry)?;
                }
                result => return Ok(result?),
            }
        }
        self.wait(SOCKET_TIMEOUT);
        Err(CallError::Timeout("the coordinator is busy"))
    }

    fn reach_point(&mut self, point: FaultPoint) -> Result<(), CallError> {
        match self.reach(point) {
            Ok(()) => Ok(()),
            Err(_) if self.crashed => Err(CallError::Crashed),
            Err(_) => {
                self.wait(SOCKET_TIMEOUT);
                Err(CallError::Timeout("the broker does not answer"))
            }
        }
    }

    /// Aborts a failed transaction where that is safe, and classifies the failure.
    pub(super) fn abort_failed(&mut self, error: CallError, age: Duration) -> Failure {
        let fenced = |reason: &str| Failure::Fenced(reason.into());
        let epoch = self.epoch.take().unwrap_or(0);
        match error {
            CallError::Crashed => fenced("the process has crashed"),
            CallError::Timeout(reason) => Failure::Unclear(reason.into()),
            CallError::Rejected(TransactionError::Coordinator(CoordinatorError::Fenced)) => {
                fenced("another producer has the transactional id")
            }
            CallError::Rejected(TransactionError::FencedInstance) => {
                fenced("another member has the instance id")
            }
            CallError::Rejected(error) => {
                let reason = format!("{error:?}");
                if age > SLOW_TRANSACTION_CALL {
                    return Failure::Unclear(reason);
                }
                let started = self.now();
                match self.end(epoch, false) {
                    Ok(()) if self.now().saturating_sub(started) <= SLOW_TRANSACTION_CALL => {
                        self.epoch = Some(epoch);
                        Failure::Aborted(reason)
                    }
                    Ok(()) => Failure::Unclear(format!("{reason}; the abort was slow")),
                    Err(CallError::Rejected(TransactionError::Coordinator(
                        CoordinatorError::Fenced,
                    ))) => fenced(&reason),
                    Err(CallError::Crashed) => fenced("the process has crashed"),
                    Err(_) => Failure::Unclear(format!("{reason}; the abort failed")),
                }
            }
        }
    }
}
