//! Commands that services send each other: what was decided in one partition must arrive in another, once and as it was
//! decided. Both sides are read at the same time, so only what is on its way is kept.

use std::collections::HashMap;

use contracts::Service;
use engine::log::Partition;

use crate::dedup_window::{DedupWindow, hash};
use crate::evidence::TopicPartition;
use crate::report::{Example, Findings, Invariant};

/// One side of a message whose other side has not been seen.
#[derive(Debug)]
struct Half {
    is_sent: bool,
    place: TopicPartition,
    /// Of the record on this side.
    offset: i64,
    time_ms: i64,
    /// Event that it was sent by.
    causation: u64,
    content: u64,
    to: (Service, Partition),
    /// Of the aggregate that it is for; known on the sender's side, of messages that can still arrive.
    key: Option<u64>,
}

/// Whom a message is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipient<'a> {
    pub(crate) service: Service,
    pub(crate) partition: Partition,
    /// The aggregate's id.
    pub(crate) key: &'a [u8],
}

/// Messages on their way.
#[derive(Debug)]
pub(crate) struct Messages {
    halves: HashMap<String, Half>,
    /// By hash of the recipient's id: messages that were sent and have not arrived.
    under_way: HashMap<u64, usize>,
    /// Events whose messages nobody knows: their commands are gone, or other rules decided them.
    excused: DedupWindow,
    /// By place: time of the first command that is kept, where earlier ones are gone.
    begins_ms: HashMap<(Service, Partition), i64>,
}

impl Messages {
    pub(crate) fn new(remembered_ms: i64) -> Self {
        Self {
            halves: HashMap::new(),
            under_way: HashMap::new(),
            excused: DedupWindow::new(remembered_ms),
            begins_ms: HashMap::new(),
        }
    }

    /// Earlier commands of the partition are no longer kept.
    pub(crate) fn begins(&mut self, service: Service, partition: Partition, time_ms: i64) {
        self.begins_ms.insert((service, partition), time_ms);
    }

    /// Nobody knows what this event has sent.
    pub(crate) fn excuse(&mut self, event_id: &str, time_ms: i64) {
        self.excused.insert(time_ms, event_id);
    }

    /// A command at `place` was decided and sends this.
    pub(crate) fn sent(
        &mut self,
        findings: &mut Findings,
        id: String,
        causation_id: &str,
        (place, offset, time_ms): (TopicPartition, i64, i64),
        to: Recipient<'_>,
        content: &[u8],
    ) {
        // Where it went, earlier commands are no longer kept.
        let begins_ms = self.begins_ms.get(&(to.service, to.partition));
        let is_gone = begins_ms.is_some_and(|begins_ms| time_ms <= *begins_ms);
        let half = Half {
            is_sent: true,
            place,
            offset,
            time_ms,
            causation: hash(causation_id),
            content: hash(content),
            to: (to.service, to.partition),
            key: (!is_gone).then(|| hash(to.key)),
        };
        self.meet(findings, id, half);
    }

    /// A message stands in the commands at `place`.
    pub(crate) fn arrived(
        &mut self,
        findings: &mut Findings,
        id: String,
        causation_id: &str,
        (place, offset, time_ms): (TopicPartition, i64, i64),
        content: &[u8],
    ) {
        if self.excused.contains(causation_id) {
            findings.unchecked(Invariant::I17);
            return;
        }
        let half = Half {
            is_sent: false,
            place,
            offset,
            time_ms,
            causation: hash(causation_id),
            content: hash(content),
            to: (place.service, place.partition),
            key: None,
        };
        self.meet(findings, id, half);
    }

    fn meet(&mut self, findings: &mut Findings, id: String, half: Half) {
        match self.halves.remove(&id) {
            None => {
                if let Some(key) = half.key {
                    *self.under_way.entry(key).or_default() += 1;
                }
                self.halves.insert(id, half);
            }
            Some(other) if other.is_sent == half.is_sent => {
                let wrong = if half.is_sent {
                    format!("message {id} is sent twice")
                } else {
                    format!("message {id} stands twice in the log")
                };
                let example = Example::new(wrong).at(half.place, half.offset);
                findings.violated(Invariant::I12, example);
                self.halves.insert(id, other);
            }
            Some(other) => {
                findings.checked(Invariant::I12);
                self.arrive(&other);
                let arrived = if half.is_sent { &other } else { &half };
                if half.to != other.to {
                    let wrong = format!("message {id} stands in another partition than its own");
                    let example = Example::new(wrong).at(arrived.place, arrived.offset);
                    findings.violated(Invariant::I12, example);
                } else if half.content != other.content {
                    let wrong = format!("message {id} differs from what its event sends");
                    let example = Example::new(wrong).at(arrived.place, arrived.offset);
                    findings.violated(Invariant::I17, example);
                }
            }
        }
    }

    fn arrive(&mut self, sent: &Half) {
        let Some(key) = sent.key else { return };
        if let Some(count) = self.under_way.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.under_way.remove(&key);
            }
        }
    }

    /// Whether a message to this aggregate was sent and has not arrived: a sender that lags behind sends with the time
    /// of what it reads, and its message arrives long after that.
    pub(crate) fn is_under_way_to(&self, id: &str) -> bool {
        self.under_way.contains_key(&hash(id.as_bytes()))
    }

    /// Messages with one side only.
    pub(crate) fn unaccounted(&mut self) -> Vec<(i64, Invariant, Example)> {
        let latest_begin = self.begins_ms.values().copied().max().unwrap_or(i64::MIN);
        let mut unaccounted = Vec::new();
        for (id, half) in std::mem::take(&mut self.halves) {
            let is_gone = if half.is_sent {
                self.begins_ms
                    .get(&half.to)
                    .is_some_and(|begin| half.time_ms <= *begin)
            } else {
                half.time_ms <= latest_begin || self.excused.knows(half.causation)
            };
            if is_gone {
                continue;
            }
            let wrong = if half.is_sent {
                let (service, partition) = half.to;
                format!("its message {id} to {service}/{partition} is not in the log")
            } else {
                format!("message {id} was sent by no event of the log, or arrived twice")
            };
            let example = Example::new(wrong).at(half.place, half.offset);
            // What was decided below the cut has been sent with it.
            let time_ms = if half.is_sent { i64::MIN } else { half.time_ms };
            unaccounted.push((time_ms, Invariant::I12, example));
        }
        unaccounted.sort_by(|left, right| (left.0, &left.2.wrong).cmp(&(right.0, &right.2.wrong)));
        unaccounted
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

    fn place(service: Service, partition: Partition) -> TopicPartition {
        TopicPartition::new(service, Topic::Commands, partition)
    }

    fn sent(messages: &mut Messages, findings: &mut Findings, content: &[u8]) {
        let from = (place(Service::Orders, 0), 7, 1_000);
        messages.sent(findings, "m".into(), "event", from, TO, content);
    }

    fn arrived(messages: &mut Messages, findings: &mut Findings, partition: i32, content: &[u8]) {
        let at = (place(Service::Inventory, partition), 9, 1_005);
        messages.arrived(findings, "m".into(), "event", at, content);
    }

    fn violated(findings: Findings) -> Vec<Invariant> {
        let findings = findings.into_inner().into_iter();
        let violated = findings.filter(|finding| finding.violated > 0);
        violated.map(|finding| finding.id).collect()
    }

    #[test]
    fn a_message_is_under_way_until_it_arrives() {
        let (mut messages, mut findings) = (Messages::new(1), Findings::new());
        assert!(!messages.is_under_way_to("sku"));
        sent(&mut messages, &mut findings, b"reserve");
        assert!(messages.is_under_way_to("sku"));
        assert!(!messages.is_under_way_to("other"));
        arrived(&mut messages, &mut findings, 2, b"reserve");
        assert!(!messages.is_under_way_to("sku"));
        arrived(&mut messages, &mut findings, 2, b"reserve");
        assert!(!messages.is_under_way_to("sku"), "it arrived first");
    }

    #[test]
    fn both_sides_meet_whichever_comes_first() {
        for is_sent_first in [true, false] {
            let (mut messages, mut findings) = (Messages::new(1), Findings::new());
            if is_sent_first {
                sent(&mut messages, &mut findings, b"x");
            }
            arrived(&mut messages, &mut findings, 2, b"x");
            if !is_sent_first {
                sent(&mut messages, &mut findings, b"x");
            }
            assert!(messages.unaccounted().is_empty());
            assert!(violated(findings).is_empty());
        }
    }

    #[test]
    fn what_differs_and_what_is_elsewhere_is_told() {
        for (partition, content, named) in [(2, b"y", Invariant::I17), (1, b"x", Invariant::I12)] {
            let (mut messages, mut findings) = (Messages::new(1), Findings::new());
            sent(&mut messages, &mut findings, b"x");
            arrived(&mut messages, &mut findings, partition, content);
            assert_eq!(violated(findings), [named]);
        }
    }

    #[test]
    fn a_message_that_is_lost_was_lost_whenever_it_was_sent_and_one_of_nobody_may_be_fresh() {
        let (mut messages, mut findings) = (Messages::new(1), Findings::new());
        sent(&mut messages, &mut findings, b"x");
        assert_eq!(messages.unaccounted()[0].0, i64::MIN);
        arrived(&mut messages, &mut findings, 2, b"x");
        assert_eq!(messages.unaccounted()[0].0, 1_005);
    }

    #[test]
    fn what_old_commands_sent_is_not_missed() {
        let (mut messages, mut findings) = (Messages::new(1), Findings::new());
        messages.begins(TO.service, TO.partition, 1_000);
        sent(&mut messages, &mut findings, b"x");
        assert!(messages.unaccounted().is_empty());
        messages.excuse("event", 900);
        arrived(&mut messages, &mut findings, 2, b"x");
        assert!(messages.unaccounted().is_empty());
        assert!(violated(findings).is_empty());
    }
}
