//! Deciding again: the same commands must give the same records.

use contracts::core::v1::Metadata;
use contracts::{Contract, Record, Topic};
use engine::log::{Input, Output};
use engine::worker::Replayed;
use engine::{Command, Decider, headers};

use super::outcomes::Answer;
use super::{Decided, Happened, PartitionAuditor, UNREPEATABLE, content};
use crate::context::AuditContext;
use crate::evidence::{Error, TopicPartition};
use crate::messages::Recipient;
use crate::reference_model::ReferenceModel;
use crate::report::{Example, Invariant};

/// What the log has of one command.
pub(super) struct Found<'a, D: Decider> {
    pub(super) input: &'a Input,
    pub(super) opened: Option<&'a (Metadata, Command<D>)>,
    pub(super) events: &'a [Happened<D>],
    pub(super) letters: &'a [Input],
    pub(super) answer: Option<&'a Answer<<D::Contract as Contract>::Outcome>>,
}

impl<D> PartitionAuditor<'_, D>
where
    D: Decider,
    D::Contract: ReferenceModel,
{
    /// Decides a command from the state before it, and compares.
    pub(super) fn decide_again(
        &mut self,
        context: &mut AuditContext,
        found: &Found<'_, D>,
    ) -> Result<Decided, Error> {
        self.note_rules(found);
        let is_checked = self.rules_version == D::RULES_VERSION;
        let events_end = found
            .answer
            .map_or(0, |answer| answer.metadata.events_offset);
        let replayed = self.replay.decide(found.input, events_end, 0);
        let place = self.place(Topic::Commands);
        if let Replayed::Blocked {
            schema_id,
            is_newer,
        } = replayed
        {
            let offset = found.input.offset;
            return Err(if is_newer {
                Error::Newer {
                    place,
                    offset,
                    schema_id,
                }
            } else {
                Error::Registry {
                    place,
                    offset,
                    schema_id,
                }
            });
        }
        if !is_checked {
            context.findings.unchecked(Invariant::I17);
            self.excuse(context, found);
            return Ok(Decided::default());
        }
        let mut replayed = replayed;
        let mut verdict = self.compare(found, &replayed);
        let mut has_memory = true;
        if verdict.is_err()
            && let Some(without) = self.without_memory(found, events_end)
            && self.compare(found, &without).is_ok()
        {
            verdict = Ok(());
            replayed = without;
            has_memory = false;
        }
        if verdict.is_err() && self.may_remember_longer(context, found) {
            context.findings.unchecked(Invariant::I17);
            return Ok(Decided::default());
        }
        let decided = Decided {
            events: events_of(&replayed),
            is_checked,
            is_same: verdict.is_ok() && has_memory && found.letters.is_empty(),
        };
        match verdict {
            Ok(()) => {
                context.findings.checked(Invariant::I17);
                self.send(context, found, replayed);
            }
            Err(_) if !context.has_constant_times && self.differ_in_times(found, &replayed) => {
                context.findings.unchecked(Invariant::I17);
                context.findings.note(
                    Invariant::I17,
                    "some were decided with other waiting times than the configured ones",
                );
                self.excuse(context, found);
            }
            Err((place, offset, wrong)) => {
                context.findings.checked(Invariant::I17);
                let mut example = Example::new(wrong).at(place, offset);
                if let Some((metadata, _)) = found.opened {
                    example = example.of(&metadata.aggregate_id);
                }
                context.findings.violated(Invariant::I17, example);
                self.send(context, found, replayed);
                self.excuse(context, found);
            }
        }
        Ok(decided)
    }

    /// Which rules decided then, as the records say. A command without any was decided by those of its neighbours.
    fn note_rules(&mut self, found: &Found<'_, D>) {
        let event = found
            .events
            .iter()
            .find_map(|event| Some(event.opened.as_ref().ok()?.0.rules_version));
        let outcome = found.answer.map(|answer| answer.metadata.rules_version);
        if let Some(version) = event.or(outcome) {
            self.rules_version = version;
        }
    }

    /// The decision of a worker whose aggregate has left memory, when it may have.
    fn without_memory(&mut self, found: &Found<'_, D>, events_end: i64) -> Option<Replayed> {
        let (metadata, _) = found.opened?;
        let id = metadata.aggregate_id.as_str();
        let may_have_left = match self.folds.get(id) {
            Some(fold) => {
                D::finished(&fold.state)
                    && fold.time_ms.saturating_add(self.remembered_ms) <= found.input.time_ms
            }
            None => true,
        };
        if !may_have_left {
            return None;
        }
        let evicted_through_ms = self
            .states
            .checkpoint
            .as_ref()
            .map_or(0, |last| last.content.evicted_through_ms);
        self.replay.forget(id);
        Some(
            self.replay
                .decide(found.input, events_end, evicted_through_ms),
        )
    }

    /// Whether the worker may have known an aggregate that nobody here does any more: it keeps what is over until its next
    /// checkpoint, and longer after a restart. It changes nothing then.
    fn may_remember_longer(&self, context: &AuditContext, found: &Found<'_, D>) -> bool {
        let closed = |(metadata, _): &(Metadata, Command<D>)| {
            self.may_be_closed(context, &metadata.aggregate_id)
        };
        found.events.is_empty() && found.letters.is_empty() && found.opened.is_some_and(closed)
    }

    /// The records of the log, against those that deciding gives. Where, and what is wrong.
    fn compare(
        &self,
        found: &Found<'_, D>,
        replayed: &Replayed,
    ) -> Result<(), (TopicPartition, i64, String)> {
        let command = |wrong: &str| {
            let place = self.place(Topic::Commands);
            Err((place, found.input.offset, wrong.to_owned()))
        };
        let outputs = match (replayed, found.letters.first()) {
            (Replayed::Dead { letter, .. }, Some(dead)) => {
                let is_same = letter.payload == dead.payload && letter.key == dead.key;
                return if is_same {
                    Ok(())
                } else {
                    let wrong = "the dead letter is not the command".to_owned();
                    Err((self.place(Topic::Dlq), dead.offset, wrong))
                };
            }
            (Replayed::Dead { class, .. }, None) => {
                return command(&format!("deciding it again gives a dead letter ({class})"));
            }
            (Replayed::Failed { .. }, Some(_)) => return Ok(()),
            (Replayed::Failed { class }, None) => {
                return command(&format!("deciding it again fails ({class})"));
            }
            (Replayed::Records(_), Some(dead)) => {
                let class = dead.header(headers::DEAD_ERROR_CLASS).unwrap_or_default();
                let is_excused = UNREPEATABLE.iter().any(|known| known.as_bytes() == class);
                return if is_excused {
                    Ok(())
                } else {
                    command("it is a dead letter, and can be decided")
                };
            }
            (Replayed::Records(outputs), None) => outputs,
            (Replayed::Blocked { .. }, _) => return Ok(()),
        };
        self.compare_events(found, outputs)?;
        self.compare_outcome(found, outputs)
    }

    fn compare_outcome(
        &self,
        found: &Found<'_, D>,
        outputs: &[Output],
    ) -> Result<(), (TopicPartition, i64, String)> {
        let expected = outputs
            .iter()
            .find(|output| output.topic == Topic::Outcomes);
        match (expected, found.answer) {
            (Some(expected), Some(answer)) => {
                let offset = answer.input.offset;
                let is_same = content(expected.payload.as_deref())
                    == content(answer.input.payload.as_deref())
                    && expected.key == answer.input.key;
                let begins = found.events.first().map(|event| event.input.offset);
                if !is_same {
                    let place = self.place(Topic::Outcomes);
                    let wrong = "the outcome is not what deciding gives".to_owned();
                    return Err((place, offset, wrong));
                }
                if begins.is_some_and(|begins| answer.metadata.events_offset > begins) {
                    let place = self.place(Topic::Outcomes);
                    let wrong = "the outcome speaks of events behind its own".to_owned();
                    return Err((place, offset, wrong));
                }
                Ok(())
            }
            // Whether there should be one is for another invariant.
            _ => Ok(()),
        }
    }

    fn compare_events(
        &self,
        found: &Found<'_, D>,
        outputs: &[Output],
    ) -> Result<(), (TopicPartition, i64, String)> {
        let expected: Vec<_> = outputs
            .iter()
            .filter(|output| output.topic == Topic::Events)
            .collect();
        let place = self.place(Topic::Events);
        if expected.len() != found.events.len() {
            let wrong = format!(
                "deciding it again gives {} events, the log has {}",
                expected.len(),
                found.events.len()
            );
            return Err((self.place(Topic::Commands), found.input.offset, wrong));
        }
        for (expected, event) in expected.iter().zip(found.events) {
            let is_same = content(expected.payload.as_deref())
                == content(event.input.payload.as_deref())
                && expected.key == event.input.key;
            if !is_same {
                let wrong = "the event is not what deciding gives".to_owned();
                return Err((place, event.input.offset, wrong));
            }
        }
        Ok(())
    }

    /// Whether the events are those that deciding gives but for their deadlines.
    fn differ_in_times(&self, found: &Found<'_, D>, replayed: &Replayed) -> bool {
        let Replayed::Records(outputs) = replayed else {
            return false;
        };
        let do_events_differ = self.compare_events(found, outputs).is_err();
        if !do_events_differ || self.compare_outcome(found, outputs).is_err() {
            return false;
        }
        let mut expected = outputs
            .iter()
            .filter(|output| output.topic == Topic::Events);
        let is_same = found.events.iter().all(|event| {
            let (Ok((metadata, event)), Some(expected)) = (&event.opened, expected.next()) else {
                return false;
            };
            let payload = content(expected.payload.as_deref());
            let record =
                <<D::Contract as Contract>::EventRecord as prost::Message>::decode(payload);
            let Some((of_expected, mut expected)) = record.ok().and_then(Record::into_parts) else {
                return false;
            };
            let mut event = event.clone();
            <D::Contract as ReferenceModel>::without_times(&mut event);
            <D::Contract as ReferenceModel>::without_times(&mut expected);
            of_expected == *metadata && event == expected
        });
        is_same && expected.next().is_none()
    }

    /// Notes the messages that the command has sent, when its events are those of the log.
    fn send(&self, context: &mut AuditContext, found: &Found<'_, D>, replayed: Replayed) {
        let Replayed::Records(outputs) = replayed else {
            return;
        };
        if !found.letters.is_empty() || self.compare_events(found, &outputs).is_err() {
            return;
        }
        let from = self.place(Topic::Commands);
        for output in outputs {
            if output.topic != Topic::Commands {
                continue;
            }
            let payload = content(output.payload.as_deref());
            let Some((id, causation_id)) = ids(payload) else {
                continue;
            };
            let AuditContext {
                messages, findings, ..
            } = context;
            messages.sent(
                findings,
                id,
                &causation_id,
                (from, found.input.offset, found.input.time_ms),
                Recipient {
                    service: output.service,
                    partition: output.partition,
                    key: output.key.as_deref().unwrap_or_default(),
                },
                payload,
            );
        }
    }

    /// Nobody can tell what these events have sent.
    fn excuse(&self, context: &mut AuditContext, found: &Found<'_, D>) {
        for event in found.events {
            if let Ok((metadata, _)) = &event.opened {
                context.messages.excuse(&metadata.id, event.input.time_ms);
            }
        }
    }
}

fn events_of(replayed: &Replayed) -> usize {
    match replayed {
        Replayed::Records(outputs) => outputs
            .iter()
            .filter(|output| output.topic == Topic::Events)
            .count(),
        _ => 0,
    }
}

/// The head of a record, whatever its service.
#[derive(Clone, PartialEq, prost::Message)]
struct Head {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
}

/// Id and cause of a message.
fn ids(payload: &[u8]) -> Option<(String, String)> {
    let head = <Head as prost::Message>::decode(payload).ok()?;
    let metadata = head.metadata?;
    Some((metadata.id, metadata.causation_id))
}
