//! The consumer: membership in the group, and delivery of commands.

use contracts::Topic;

use super::super::group::MembershipReply;
use super::SimulatedLog;
use crate::log::{Error, Input, Signal};

/// The delivery of the commands of a partition.
#[derive(Default)]
pub(super) struct Delivery {
    /// The next offset; `None` before the first start.
    pub(super) position: Option<i64>,
    pub(super) paused: bool,
    /// The position has advanced since the start.
    pub(super) advanced: bool,
    /// The position that was last reported.
    pub(super) reported: Option<i64>,
}

impl SimulatedLog {
    /// Sends a heartbeat and applies the coordinator's response.
    pub(super) fn poll_membership(&mut self, signals: &mut Vec<Signal>) -> Result<(), Error> {
        if self.fenced {
            return Err(Error::Fenced("another member has the instance id".into()));
        }
        match self
            .broker
            .poll_membership(self.service, &self.instance, self.probe.member_id.get())
        {
            MembershipReply::Unchanged => {}
            MembershipReply::Fenced => {
                self.fenced = true;
                return Err(Error::Fenced("another member has the instance id".into()));
            }
            MembershipReply::UnknownMember => {
                self.generation = None;
                self.lost_membership = true;
                let revoked = std::mem::take(&mut self.owned).into_keys().collect();
                signals.push(Signal::Revoked(revoked));
                let member = self.broker.join(self.service, &self.instance);
                self.probe.member_id.set(member);
            }
            MembershipReply::Revoke(revoked, generation) => {
                self.generation = Some(generation);
                self.owned
                    .retain(|partition, _| !revoked.contains(partition));
                signals.push(Signal::Revoked(revoked));
            }
            MembershipReply::Assign(added, generation) => {
                self.generation = Some(generation);
                self.lost_membership = false;
                for partition in &added {
                    self.owned.insert(*partition, Delivery::default());
                }
                signals.push(Signal::Assigned(added));
            }
        }
        Ok(())
    }

    /// Delivers fetched commands of all owned partitions, at most `max`.
    pub(super) fn deliver(&mut self, max: usize, inputs: &mut Vec<Input>) -> Result<(), Error> {
        let mut room = max;
        for (partition, delivery) in &mut self.owned {
            let Some(next) = delivery.position.filter(|_| !delivery.paused && room > 0) else {
                continue;
            };
            let tp = (self.service, Topic::Commands, *partition);
            let ends = self.broker.ends(tp);
            if next < ends.low || next > ends.high {
                return Err(Error::Damaged(format!(
                    "position {next} of partition {partition} lies outside of the log"
                )));
            }
            let mut fetched = self.broker.fetch(tp, next, room);
            if !fetched.inputs.is_empty() {
                let size = self.faults.fetch_size(fetched.inputs.len());
                if size < fetched.inputs.len() {
                    fetched.inputs.truncate(size);
                    fetched.position = fetched.inputs[size - 1].offset + 1;
                }
            }
            let after_last = fetched.inputs.last().map_or(next, |last| last.offset + 1);
            // Markers and aborted records after the last record may be skipped now or with the next fetch.
            let is_full = fetched.inputs.len() == room;
            let position = if fetched.position > after_last && (is_full || !self.faults.flip_coin())
            {
                after_last
            } else {
                fetched.position
            };
            delivery.advanced |= position > next;
            delivery.position = Some(position);
            room -= fetched.inputs.len();
            inputs.append(&mut fetched.inputs);
        }
        Ok(())
    }

    /// Reports the position of every partition whose position has changed.
    pub(super) fn report_positions(&mut self, signals: &mut Vec<Signal>) {
        for (partition, delivery) in &mut self.owned {
            if let Some(offset) = delivery.position.filter(|_| delivery.advanced)
                && delivery.reported.replace(offset) != Some(offset)
            {
                signals.push(Signal::Reached {
                    partition: *partition,
                    offset,
                });
            }
        }
    }
}
