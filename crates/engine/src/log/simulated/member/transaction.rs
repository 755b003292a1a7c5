//! How a member's transactions are carried out, and how they fail.

use std::collections::BTreeMap;
use std::time::Duration;

use contracts::Topic;

use super::super::broker::Refused;
use super::super::fault_injector::{Ending, Point};
use super::super::group::Generation;
use super::super::transactions::Refusal;
use super::{DisabledSafeguard, PAUSE, SimulatedLog, TRIES};
use crate::log::kafka::settings::{SOCKET_TIMEOUT, SUSPICIOUS};
use crate::log::{Appended, Failure, Log as _, Partition, PartitionWrites};

/// A request that was held up arrives within this time, milliseconds.
const LATE_MS: i64 = 4_000;

/// How a call to the transaction coordinator fails.
pub(super) enum Trouble {
    Crashed,
    Timeout(&'static str),
    Refused(Refused),
}

impl From<Refused> for Trouble {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl SimulatedLog {
    pub(super) fn transact(
        &mut self,
        generation: &Generation,
        shares: Vec<PartitionWrites>,
    ) -> Result<(Vec<Appended>, Duration), Trouble> {
        let epoch = self.epoch.unwrap_or(0);
        self.reached(Point::Begin)?;
        let offsets: Vec<_> = shares
            .iter()
            .map(|share| (share.partition, share.offset))
            .collect();
        let mut ends: BTreeMap<Partition, i64> = BTreeMap::new();
        let mut added = Vec::new();
        for output in shares.into_iter().flat_map(|share| share.outputs) {
            let place = (output.service, output.topic, output.partition);
            if !added.contains(&place) {
                self.patiently(|log| log.broker.add(&log.transactional_id, epoch, place))?;
                added.push(place);
            }
            let offset = self.broker.produce(&self.transactional_id, epoch, output)?;
            if (place.0, place.1) == (self.service, Topic::Events) {
                ends.insert(place.2, offset + 1);
            }
            self.reached(Point::Produced)?;
        }
        let begun = self.now();
        self.reached(Point::SendOffsets)?;
        self.send_offsets(epoch, generation, &offsets)?;
        self.reached(Point::End)?;
        // Without its offsets it may hold nothing at all.
        if !(self.is(DisabledSafeguard::OffsetsOutside) && added.is_empty()) {
            self.end(epoch, true)?;
        }
        self.reached(Point::Ended)?;
        let appended = ends.into_iter().map(|(partition, events_end)| Appended {
            partition,
            events_end,
        });
        Ok((appended.collect(), self.now().saturating_sub(begun)))
    }

    fn send_offsets(
        &mut self,
        epoch: u32,
        generation: &Generation,
        offsets: &[(Partition, i64)],
    ) -> Result<(), Trouble> {
        if self.is(DisabledSafeguard::OffsetsOutside) {
            let who = (self.service, self.instance.as_str());
            return Ok(self.broker.store_offsets(who, generation, offsets)?);
        }
        let vouching = (!self.is(DisabledSafeguard::NobodyVouches)).then_some(generation);
        self.patiently(|log| {
            let who = (log.service, log.instance.as_str());
            log.broker
                .send_offsets(&log.transactional_id, epoch, who, vouching, offsets)
        })
    }

    /// Asks the coordinator to end the transaction, as well as the request fares.
    fn end(&mut self, epoch: u32, commit: bool) -> Result<(), Trouble> {
        let ending = self.fate.ending(&self.instance);
        let id = self.transactional_id.clone();
        if ending != Ending::Prompt {
            let journal = self.broker.journal();
            journal.note(format_args!("{id}: the request to end is {ending:?}"));
        }
        let arrives_ms = self.broker.clock().unix_ms() + LATE_MS;
        match ending {
            Ending::Prompt => return self.patiently(|log| log.broker.end(&id, epoch, commit)),
            Ending::Lost => {}
            Ending::ReplyLost => {
                let _ = self.broker.end(&id, epoch, commit);
            }
            Ending::Late | Ending::Repeated => self.broker.hold_up(&id, epoch, commit, arrives_ms),
        }
        if ending == Ending::Repeated || self.is(DisabledSafeguard::UnclearKept) {
            // The client asks again under its own steam.
            self.wait(SUSPICIOUS + PAUSE);
            return self.patiently(|log| log.broker.end(&id, epoch, commit));
        }
        self.wait(SOCKET_TIMEOUT);
        Err(Trouble::Timeout("no answer"))
    }

    /// Repeats a call while the coordinator is busy.
    fn patiently<T>(&mut self, call: impl Fn(&Self) -> Result<T, Refused>) -> Result<T, Trouble> {
        for _ in 0..TRIES {
            match call(self) {
                Err(Refused::Coordinator(Refusal::Busy)) => {
                    self.wait(PAUSE);
                    self.reached(Point::Again)?;
                }
                result => return Ok(result?),
            }
        }
        self.wait(SOCKET_TIMEOUT);
        Err(Trouble::Timeout("the coordinator is busy"))
    }

    fn reached(&mut self, point: Point) -> Result<(), Trouble> {
        match self.reach(point) {
            Ok(()) => Ok(()),
            Err(_) if self.crashed => Err(Trouble::Crashed),
            Err(_) => {
                self.wait(SOCKET_TIMEOUT);
                Err(Trouble::Timeout("the broker does not answer"))
            }
        }
    }

    pub(super) fn give_up(&mut self, trouble: Trouble, age: Duration) -> Failure {
        let fenced = |reason: &str| Failure::Fenced(reason.into());
        let epoch = self.epoch.take().unwrap_or(0);
        match trouble {
            Trouble::Crashed => fenced("the process has crashed"),
            Trouble::Timeout(reason) => Failure::Unclear(reason.into()),
            Trouble::Refused(Refused::Coordinator(Refusal::Fenced)) => {
                fenced("another producer has the transactional id")
            }
            Trouble::Refused(Refused::Instance) => fenced("another member has the instance id"),
            Trouble::Refused(refused) => {
                let reason = format!("{refused:?}");
                if age > SUSPICIOUS {
                    return Failure::Unclear(reason);
                }
                let begun = self.now();
                match self.end(epoch, false) {
                    Ok(()) if self.now().saturating_sub(begun) <= SUSPICIOUS => {
                        self.epoch = Some(epoch);
                        Failure::Aborted(reason)
                    }
                    Ok(()) => Failure::Unclear(format!("{reason}; the abort was slow")),
                    Err(Trouble::Refused(Refused::Coordinator(Refusal::Fenced))) => fenced(&reason),
                    Err(Trouble::Crashed) => fenced("the process has crashed"),
                    Err(_) => Failure::Unclear(format!("{reason}; the abort failed")),
                }
            }
        }
    }
}
