//! Replay: a command that is decided again must give the same records.

use contracts::core::v1::Metadata;
use contracts::{Contract, Record, Topic};
use engine::log::{Input, Output};
use engine::worker::Replayed;
use engine::{Command, Decider, headers};

use super::events::ConsumedEvent;
use super::outcomes::DecodedOutcome;
use super::{PartitionAuditor, ReplayResult, UNREPRODUCIBLE_CLASSES, content};
use crate::context::AuditContext;
use crate::evidence::{Error, TopicPartition};
use crate::messages::Recipient;
use crate::reference_model::ReferenceModel;
use crate::report::{Example, Invariant};

/// The records of one command in the log.
pub(super) struct CommandRecords<'a, D: Decider> {
    pub(super) input: &'a Input,
    pub(super) decoded: Option<&'a (Metadata, Command<D>)>,
    pub(super) events: &'a [ConsumedEvent<D>],
    pub(super) dead_letters: &'a [Input],
    pub(super) outcome: Option<&'a DecodedOutcome<<D::Contract as Contract>::Outcome>>,
}

impl<D> PartitionAuditor<'_, D>
where
    D: Decider,
    D::Contract: ReferenceModel,
{
    /// Decides a command again from the state before it, and compares the records.
    pub(super) fn replay_command(
        &mut self,
        context: &mut AuditContext,
        records: &CommandRecords<'_, D>,
    ) -> Result<ReplayResult, Error> {
        self.update_rules_version(records);
        let is_checked = self.rules_version == D::RULES_VERSION;
        let events_end = records
            .outcome
            .map_or(0, |outcome| outcome.metadata.events_offset);
        let replayed = self.replay.decide(records.input, events_end, 0);
        let topic_partition = self.topic_partition(Topic::Commands);
        if let Replayed::Blocked {
            schema_id,
            is_newer,
        } = replayed
        {
            let offset = records.input.offset;
            return Err(if is_newer {
                Error::Newer {
                    topic_partition,
                    offset,
                    schema_id,
                }
            } else {
                Error::Registry {
                    topic_partition,
                    offset,
                    schema_id,
                }
            });
        }
        if !is_checked {
            context.findings.unchecked(Invariant::I17);
            self.mark_unverifiable(context, records);
            return Ok(ReplayResult::default());
        }
        let mut replayed = replayed;
        let mut comparison = self.compare_records(records, &replayed);
        let mut has_state = true;
        if comparison.is_err()
            && let Some(evicted) = self.replay_evicted(records, events_end)
            && self.compare_records(records, &evicted).is_ok()
        {
            comparison = Ok(());
            replayed = evicted;
            has_state = false;
        }
        if comparison.is_err() && self.may_be_in_worker_memory(context, records) {
            context.findings.unchecked(Invariant::I17);
            return Ok(ReplayResult::default());
        }
        let result = ReplayResult {
            events: count_events(&replayed),
            is_checked,
            is_same: comparison.is_ok() && has_state && records.dead_letters.is_empty(),
        };
        match comparison {
            Ok(()) => {
                context.findings.checked(Invariant::I17);
                self.record_sent_messages(context, records, replayed);
            }
            Err(_)
                if !context.has_constant_times
                    && self.differ_only_in_deadlines(records, &replayed) =>
            {
                context.findings.unchecked(Invariant::I17);
                context.findings.note(
                    Invariant::I17,
                    "some were decided with other waiting times than the configured ones",
                );
                self.mark_unverifiable(context, records);
            }
            Err((topic_partition, offset, wrong)) => {
                context.findings.checked(Invariant::I17);
                let mut example = Example::new(wrong).at(topic_partition, offset);
                if let Some((metadata, _)) = records.decoded {
                    example = example.of_aggregate(&metadata.aggregate_id);
                }
                context.findings.violated(Invariant::I17, example);
                self.record_sent_messages(context, records, replayed);
                self.mark_unverifiable(context, records);
            }
        }
        Ok(result)
    }

    /// Takes the rules version from the records. A command without records has the version of the command before it.
    fn update_rules_version(&mut self, records: &CommandRecords<'_, D>) {
        let event = records
            .events
            .iter()
            .find_map(|event| Some(event.decoded.as_ref().ok()?.0.rules_version));
        let outcome = records
            .outcome
            .map(|outcome| outcome.metadata.rules_version);
        if let Some(version) = event.or(outcome) {
            self.rules_version = version;
        }
    }

    /// The decision of a worker that has evicted the aggregate, when it may have done so.
    fn replay_evicted(
        &mut self,
        records: &CommandRecords<'_, D>,
        events_end: i64,
    ) -> Option<Replayed> {
        let (metadata, _) = records.decoded?;
        let id = metadata.aggregate_id.as_str();
        let may_be_evicted = match self.folds.get(id) {
            Some(fold) => {
                D::finished(&fold.state)
                    && fold.time_ms.saturating_add(self.remembered_ms) <= records.input.time_ms
            }
            None => true,
        };
        if !may_be_evicted {
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
                .decide(records.input, events_end, evicted_through_ms),
        )
    }

    /// Whether the worker may still hold an aggregate that this audit has evicted: it keeps a finished one until its
    /// next checkpoint, and longer after a restart. The command changes nothing then.
    fn may_be_in_worker_memory(
        &self,
        context: &AuditContext,
        records: &CommandRecords<'_, D>,
    ) -> bool {
        let is_evicted = |(metadata, _): &(Metadata, Command<D>)| {
            self.may_be_evicted(context, &metadata.aggregate_id)
        };
        records.events.is_empty()
            && records.dead_letters.is_empty()
            && records.decoded.is_some_and(is_evicted)
    }

    /// Compares the records of the log with the replayed ones. The error has the partition, the offset and the text of
    /// the finding.
    fn compare_records(
        &self,
        records: &CommandRecords<'_, D>,
        replayed: &Replayed,
    ) -> Result<(), (TopicPartition, i64, String)> {
        let command = |wrong: &str| {
            let topic_partition = self.topic_partition(Topic::Commands);
            Err((topic_partition, records.input.offset, wrong.to_owned()))
        };
        let outputs = match (replayed, records.dead_letters.first()) {
            (Replayed::Dead { letter, .. }, Some(dead)) => {
                let is_same = letter.payload == dead.payload && letter.key == dead.key;
                return if is_same {
                    Ok(())
                } else {
                    let wrong = "the dead letter is not the command".to_owned();
                    Err((self.topic_partition(Topic::Dlq), dead.offset, wrong))
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
                let is_unreproducible = UNREPRODUCIBLE_CLASSES
                    .iter()
                    .any(|known| known.as_bytes() == class);
                return if is_unreproducible {
                    Ok(())
                } else {
                    command("it is a dead letter, and can be decided")
                };
            }
            (Replayed::Records(outputs), None) => outputs,
            (Replayed::Blocked { .. }, _) => return Ok(()),
        };
        self.compare_events(records, outputs)?;
        self.compare_outcome(records, outputs)
    }

    fn compare_outcome(
        &self,
        records: &CommandRecords<'_, D>,
        outputs: &[Output],
    ) -> Result<(), (TopicPartition, i64, String)> {
        let expected = outputs
            .iter()
            .find(|output| output.topic == Topic::Outcomes);
        match (expected, records.outcome) {
            (Some(expected), Some(outcome)) => {
                let offset = outcome.input.offset;
                let is_same = content(expected.payload.as_deref())
                    == content(outcome.input.payload.as_deref())
                    && expected.key == outcome.input.key;
                let first_event = records.events.first().map(|event| event.input.offset);
                if !is_same {
                    let topic_partition = self.topic_partition(Topic::Outcomes);
                    let wrong = "the outcome is not what deciding gives".to_owned();
                    return Err((topic_partition, offset, wrong));
                }
                if first_event.is_some_and(|offset| outcome.metadata.events_offset > offset) {
                    let topic_partition = self.topic_partition(Topic::Outcomes);
                    let wrong =
                        "the events offset of the outcome is beyond its own events".to_owned();
                    return Err((topic_partition, offset, wrong));
                }
                Ok(())
            }
            // Whether an outcome must exist is checked as I1.
            _ => Ok(()),
        }
    }

    fn compare_events(
        &self,
        records: &CommandRecords<'_, D>,
        outputs: &[Output],
    ) -> Result<(), (TopicPartition, i64, String)> {
        let expected: Vec<_> = outputs
            .iter()
            .filter(|output| output.topic == Topic::Events)
            .collect();
        let topic_partition = self.topic_partition(Topic::Events);
        if expected.len() != records.events.len() {
            let wrong = format!(
                "deciding it again gives {} events, the log has {}",
                expected.len(),
                records.events.len()
            );
            return Err((
                self.topic_partition(Topic::Commands),
                records.input.offset,
                wrong,
            ));
        }
        for (expected, event) in expected.iter().zip(records.events) {
            let is_same = content(expected.payload.as_deref())
                == content(event.input.payload.as_deref())
                && expected.key == event.input.key;
            if !is_same {
                let wrong = "the event is not what deciding gives".to_owned();
                return Err((topic_partition, event.input.offset, wrong));
            }
        }
        Ok(())
    }

    /// Whether the events differ from the replayed ones only in their deadlines.
    fn differ_only_in_deadlines(
        &self,
        records: &CommandRecords<'_, D>,
        replayed: &Replayed,
    ) -> bool {
        let Replayed::Records(outputs) = replayed else {
            return false;
        };
        let do_events_differ = self.compare_events(records, outputs).is_err();
        if !do_events_differ || self.compare_outcome(records, outputs).is_err() {
            return false;
        }
        let mut expected = outputs
            .iter()
            .filter(|output| output.topic == Topic::Events);
        let is_same = records.events.iter().all(|event| {
            let (Ok((metadata, event)), Some(expected)) = (&event.decoded, expected.next()) else {
                return false;
            };
            let payload = content(expected.payload.as_deref());
            let record =
                <<D::Contract as Contract>::EventRecord as prost::Message>::decode(payload);
            let Some((of_expected, mut expected)) = record.ok().and_then(Record::into_parts) else {
                return false;
            };
            let mut event = event.clone();
            <D::Contract as ReferenceModel>::clear_deadlines(&mut event);
            <D::Contract as ReferenceModel>::clear_deadlines(&mut expected);
            of_expected == *metadata && event == expected
        });
        is_same && expected.next().is_none()
    }

    /// Records the messages of the command, when its events equal those of the log.
    fn record_sent_messages(
        &self,
        context: &mut AuditContext,
        records: &CommandRecords<'_, D>,
        replayed: Replayed,
    ) {
        let Replayed::Records(outputs) = replayed else {
            return;
        };
        if !records.dead_letters.is_empty() || self.compare_events(records, &outputs).is_err() {
            return;
        }
        let from = self.topic_partition(Topic::Commands);
        for output in outputs {
            if output.topic != Topic::Commands {
                continue;
            }
            let payload = content(output.payload.as_deref());
            let Some((id, causation_id)) = message_ids(payload) else {
                continue;
            };
            let AuditContext {
                messages, findings, ..
            } = context;
            messages.sent(
                findings,
                id,
                &causation_id,
                (from, records.input.offset, records.input.time_ms),
                Recipient {
                    service: output.service,
                    partition: output.partition,
                    key: output.key.as_deref().unwrap_or_default(),
                },
                payload,
            );
        }
    }

    /// The messages of these events cannot be derived.
    fn mark_unverifiable(&self, context: &mut AuditContext, records: &CommandRecords<'_, D>) {
        for event in records.events {
            if let Ok((metadata, _)) = &event.decoded {
                context
                    .messages
                    .mark_unverifiable(&metadata.id, event.input.time_ms);
            }
        }
    }
}

fn count_events(replayed: &Replayed) -> usize {
    match replayed {
        Replayed::Records(outputs) => outputs
            .iter()
            .filter(|output| output.topic == Topic::Events)
            .count(),
        _ => 0,
    }
}

/// The metadata of a record of any service.
#[derive(Clone, PartialEq, prost::Message)]
struct MetadataOnly {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
}

/// Id and causation id of a message.
fn message_ids(payload: &[u8]) -> Option<(String, String)> {
    let record = <MetadataOnly as prost::Message>::decode(payload).ok()?;
    let metadata = record.metadata?;
    Some((metadata.id, metadata.causation_id))
}
