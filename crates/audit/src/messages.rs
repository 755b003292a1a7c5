//! Commands between services: a message that one partition sends must arrive in another, once and unchanged. Both sides
//! are read at the same time, so memory holds only the messages in flight.

use std::collections::HashMap;

use contracts::Service;
use engine::log::Partition;

use crate::dedup_window::{DedupWindow, hash};
use crate::evidence::TopicPartition;
use crate::report::{Example, Findings, Invariant};

/// One side of a message whose other side is not yet read.
#[derive(Debug)]
struct MessageSide {
    is_sent: bool,
    topic_partition: TopicPartition,
    /// Offset of the record on this side.
    offset: i64,
    time_ms: i64,
    /// Hash of the id of the event that sent it.
    causation: u64,
    content: u64,
    to: (Service, Partition),
    /// Hash of the recipient's id; known on the sender's side, for messages that can still arrive.
    key: Option<u64>,
}

/// The aggregate that receives a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipient<'a> {
    pub(crate) service: Service,
    pub(crate) partition: Partition,
    /// The aggregate's id.
    pub(crate) key: &'a [u8],
}

/// Messages of which one side is read.
#[derive(Debug)]
pub(crate) struct Messages {
    unmatched: HashMap<String, MessageSide>,
    /// By hash of the recipient's id: the number of messages that were sent and have not arrived.
    in_flight: HashMap<u64, usize>,
    /// Events whose messages cannot be derived: their commands are deleted, or other rules decided them.
    unverifiable: DedupWindow,
    /// By partition: time of the first retained command, where earlier ones are deleted.
    first_command_ms: HashMap<(Service, Partition), i64>,
}

impl Messages {
    pub(crate) fn new(remembered_ms: i64) -> Self {
        Self {
            unmatched: HashMap::new(),
            in_flight: HashMap::new(),
            unverifiable: DedupWindow::new(remembered_ms),
            first_command_ms: HashMap::new(),
        }
    }

    /// Sets the time of the first retained command of a partition whose earlier ones are deleted.
    pub(crate) fn set_first_command(
        &mut self,
        service: Service,
        partition: Partition,
        time_ms: i64,
    ) {
        self.first_command_ms.insert((service, partition), time_ms);
    }

    /// The messages of this event cannot be derived.
    pub(crate) fn mark_unverifiable(&mut self, event_id: &str, time_ms: i64) {
        self.unverifiable.insert(time_ms, event_id);
    }

    /// Records a message that the command at `topic_partition` sends.
    pub(crate) fn sent(
        &mut self,
        findings: &mut Findings,
        id: String,
        causation_id: &str,
        (topic_partition, offset, time_ms): (TopicPartition, i64, i64),
        to: Recipient<'_>,
        content: &[u8],
    ) {
        // The recipient's partition may have deleted it already.
        let first_ms = self.first_command_ms.get(&(to.service, to.partition));
        let may_be_deleted = first_ms.is_some_and(|first_ms| time_ms <= *first_ms);
        let side = MessageSide {
            is_sent: true,
            topic_partition,
            offset,
            time_ms,
            causation: hash(causation_id),
            content: hash(content),
            to: (to.service, to.partition),
            key: (!may_be_deleted).then(|| hash(to.key)),
        };
        self.match_sides(findings, id, side);
    }

    /// Records a message in the commands at `topic_partition`.
    pub(crate) fn arrived(
        &mut self,
        findings: &mut Findings,
        id: String,
        causation_id: &str,
        (topic_partition, offset, time_ms): (TopicPartition, i64, i64),
        content: &[u8],
    ) {
        if self.unverifiable.contains(causation_id) {
            findings.unchecked(Invariant::I17);
            return;
        }
        let side = MessageSide {
            is_sent: false,
            topic_partition,
            offset,
            time_ms,
            causation: hash(causation_id),
            content: hash(content),
            to: (topic_partition.service, topic_partition.partition),
            key: None,
        };
        self.match_sides(findings, id, side);
    }

    fn match_sides(&mut self, findings: &mut Findings, id: String, side: MessageSide) {
        match self.unmatched.remove(&id) {
            None => {
                if let Some(key) = side.key {
                    *self.in_flight.entry(key).or_default() += 1;
                }
                self.unmatched.insert(id, side);
            }
            Some(other) if other.is_sent == side.is_sent => {
                let wrong = if side.is_sent {
                    format!("message {id} is sent twice")
                } else {
                    format!("message {id} is in the log twice")
                };
                let example = Example::new(wrong).at(side.topic_partition, side.offset);
                findings.violated(Invariant::I12, example);
                self.unmatched.insert(id, other);
            }
            Some(other) => {
                findings.checked(Invariant::I12);
                self.mark_arrived(&other);
                let arrived = if side.is_sent { &other } else { &side };
                if side.to != other.to {
                    let wrong =
                        format!("message {id} is in another partition than that of its recipient");
                    let example = Example::new(wrong).at(arrived.topic_partition, arrived.offset);
                    findings.violated(Invariant::I12, example);
                } else if side.content != other.content {
                    let wrong = format!("message {id} differs from what its event sends");
                    let example = Example::new(wrong).at(arrived.topic_partition, arrived.offset);
                    findings.violated(Invariant::I17, example);
                }
            }
        }
    }

    fn mark_arrived(&mut self, sent: &MessageSide) {
        let Some(key) = sent.key else { return };
        if let Some(count) = self.in_flight.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.in_flight.remove(&key);
            }
        }
    }

    /// Whether a message to this aggregate was sent and has not arrived. A sender that lags behind sends with the time
    /// of the record that it reads, and its message arrives long after that time.
    pub(crate) fn has_in_flight_to(&self, id: &str) -> bool {
        self.in_flight.contains_key(&hash(id.as_bytes()))
    }

    /// Messages with one side only.
    pub(crate) fn unmatched(&mut self) -> Vec<(i64, Invariant, Example)> {
        let latest_first_ms = self
            .first_command_ms
            .values()
            .copied()
            .max()
            .unwrap_or(i64::MIN);
        let mut unmatched = Vec::new();
        for (id, side) in std::mem::take(&mut self.unmatched) {
            let may_be_deleted = if side.is_sent {
                self.first_command_ms
                    .get(&side.to)
                    .is_some_and(|first_ms| side.time_ms <= *first_ms)
            } else {
                side.time_ms <= latest_first_ms || self.unverifiable.contains_hash(side.causation)
            };
            if may_be_deleted {
                continue;
            }
            let wrong = if side.is_sent {
                let (service, partition) = side.to;
                format!("its message {id} to {service}/{partition} is not in the log")
            } else {
                format!("message {id} was sent by no event of the log, or arrived twice")
            };
            let example = Example::new(wrong).at(side.topic_partition, side.offset);
            // Every command below the cut is committed together with its messages: a missing one is not in flight.
            let time_ms = if side.is_sent { i64::MIN } else { side.time_ms };
            unmatched.push((time_ms, Invariant::I12, example));
        }
        unmatched.sort_by(|left, right| (left.0, &left.2.wrong).cmp(&(right.0, &right.2.wrong)));
        unmatched
    }
}

#[cfg(test)]
mod tests {
    use contracts::Topic;

    use super::*;

    const TO: Recipient<'static> = Recipient {
        service: Service::Inventory,
        partition: 2,
        key: b"sku",
    };

    fn topic_partition(service: Service, partition: Partition) -> TopicPartition {
        TopicPartition::new(service, Topic::Commands, partition)
    }

    fn sent(messages: &mut Messages, findings: &mut Findings, content: &[u8]) {
        let from = (topic_partition(Service::Orders, 0), 7, 1_000);
        messages.sent(findings, "m".into(), "event", from, TO, content);
    }

    fn arrived(messages: &mut Messages, findings: &mut Findings, partition: i32, content: &[u8]) {
        let at = (topic_partition(Service::Inventory, partition), 9, 1_005);
        messages.arrived(findings, "m".into(), "event", at, content);
    }

    fn violated(findings: Findings) -> Vec<Invariant> {
        let findings = findings.into_inner().into_iter();
        let violated = findings.filter(|finding| finding.violated > 0);
        violated.map(|finding| finding.id).collect()
    }

    #[test]
    fn a_message_is_in_flight_until_it_arrives() {
        let (mut messages, mut findings) = (Messages::new(1), Findings::new());
        assert!(!messages.has_in_flight_to("sku"));
        sent(&mut messages, &mut findings, b"reserve");
        assert!(messages.has_in_flight_to("sku"));
        assert!(!messages.has_in_flight_to("other"));
        arrived(&mut messages, &mut findings, 2, b"reserve");
        assert!(!messages.has_in_flight_to("sku"));
        arrived(&mut messages, &mut findings, 2, b"reserve");
        assert!(!messages.has_in_flight_to("sku"), "it arrived first");
    }

    #[test]
    fn both_sides_match_in_either_order() {
        for is_sent_first in [true, false] {
            let (mut messages, mut findings) = (Messages::new(1), Findings::new());
            if is_sent_first {
                sent(&mut messages, &mut findings, b"x");
            }
            arrived(&mut messages, &mut findings, 2, b"x");
            if !is_sent_first {
                sent(&mut messages, &mut findings, b"x");
            }
            assert!(messages.unmatched().is_empty());
            assert!(violated(findings).is_empty());
        }
    }

    #[test]
    fn a_changed_or_misplaced_message_is_reported() {
        for (partition, content, named) in [(2, b"y", Invariant::I17), (1, b"x", Invariant::I12)] {
            let (mut messages, mut findings) = (Messages::new(1), Findings::new());
            sent(&mut messages, &mut findings, b"x");
            arrived(&mut messages, &mut findings, partition, content);
            assert_eq!(violated(findings), [named]);
        }
    }

    #[test]
    fn a_lost_message_is_never_recent_but_one_without_a_sender_may_be() {
        let (mut messages, mut findings) = (Messages::new(1), Findings::new());
        sent(&mut messages, &mut findings, b"x");
        assert_eq!(messages.unmatched()[0].0, i64::MIN);
        arrived(&mut messages, &mut findings, 2, b"x");
        assert_eq!(messages.unmatched()[0].0, 1_005);
    }

    #[test]
    fn messages_of_deleted_commands_are_not_reported() {
        let (mut messages, mut findings) = (Messages::new(1), Findings::new());
        messages.set_first_command(TO.service, TO.partition, 1_000);
        sent(&mut messages, &mut findings, b"x");
        assert!(messages.unmatched().is_empty());
        messages.mark_unverifiable("event", 900);
        arrived(&mut messages, &mut findings, 2, b"x");
        assert!(messages.unmatched().is_empty());
        assert!(violated(findings).is_empty());
    }
}
