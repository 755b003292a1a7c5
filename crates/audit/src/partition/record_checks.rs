//! Checks of a single event, command or outcome.

use contracts::core::v1::Metadata;
use contracts::{Contract, Service, Topic};
use engine::log::Input;
use engine::{Command, Decider};
use uuid::Uuid;

use super::events::ConsumedEvent;
use super::outcomes::DecodedOutcome;
use super::{PartitionAuditor, ReplayResult};
use crate::context::AuditContext;
use crate::reference_model::ReferenceModel;
use crate::report::{Example, Invariant};

impl<D> PartitionAuditor<'_, D>
where
    D: Decider,
    D::Contract: ReferenceModel,
{
    /// Checks the key, the id and the version of an event. Returns whether to fold it: it is the next event of its
    /// aggregate, or follows a gap.
    pub(super) fn check_version(
        &self,
        context: &mut AuditContext,
        input: &Input,
        metadata: &Metadata,
        index: Option<usize>,
    ) -> bool {
        context.findings.checked(Invariant::I6);
        let id = metadata.aggregate_id.as_str();
        let example = |wrong: String| {
            Example::new(wrong)
                .at(self.topic_partition(Topic::Events), input.offset)
                .of_aggregate(id)
        };
        let key = input.key.as_deref().unwrap_or_default();
        if key != id.as_bytes() || self.cluster.partition_of(key) != self.partition {
            let wrong = "its key is not its aggregate's id, or belongs to another partition";
            context
                .findings
                .violated(Invariant::I6, example(wrong.to_owned()));
        }
        if let Some(index) = index
            && metadata.id != derived_id(&metadata.causation_id, index)
        {
            let wrong = format!(
                "its id is not that of event {index} of command {}",
                metadata.causation_id
            );
            context.findings.violated(Invariant::I6, example(wrong));
        }
        let version = self.folds.get(id).map_or(0, |fold| fold.version);
        let found = metadata.aggregate_version;
        if found == version + 1 {
            self.check_first_event(context, input, metadata);
            return true;
        }
        if version == 0 && self.may_be_evicted(context, id) {
            // Its first versions are evicted.
            context.findings.unchecked(Invariant::I6);
            return true;
        }
        let wrong = format!("version {found} follows version {version}");
        context.findings.violated(Invariant::I6, example(wrong));
        found > version
    }

    /// Whether the aggregate is unknown because it may be evicted.
    pub(super) fn may_be_evicted(&self, context: &AuditContext, id: &str) -> bool {
        self.service != Service::Inventory
            && !self.folds.contains_key(id)
            && context.aggregates.may_be_evicted(self.partition, id)
    }

    /// Checks that the first event of an order does not create an evicted one again.
    fn check_first_event(&self, context: &mut AuditContext, input: &Input, metadata: &Metadata) {
        let id = metadata.aggregate_id.as_str();
        if self.service != Service::Orders
            || metadata.aggregate_version != 1
            || <D::Contract as ReferenceModel>::is_known(context, id)
        {
            return;
        }
        if self.may_be_evicted(context, id) {
            let wrong = "created although its id is as old as that of an evicted order";
            let example = Example::new(wrong)
                .at(self.topic_partition(Topic::Events), input.offset)
                .of_aggregate(id);
            context.findings.violated(Invariant::I6, example);
        }
    }

    /// I12: the command is processed exactly once, with its events or as a dead letter.
    pub(super) fn check_processed_once(
        &self,
        context: &mut AuditContext,
        input: &Input,
        decoded: Option<&(Metadata, Command<D>)>,
        events: &[ConsumedEvent<D>],
        dead_letters: &[Input],
        replay_result: &ReplayResult,
    ) {
        let topic_partition = self.topic_partition(Topic::Commands);
        let mut wrong = |wrong: String| {
            let mut example = Example::new(wrong).at(topic_partition, input.offset);
            if let Some((metadata, _)) = decoded {
                example = example.of_aggregate(&metadata.aggregate_id);
            }
            context.findings.violated(Invariant::I12, example);
        };
        if dead_letters.len() > 1 {
            wrong(format!("it has {} dead letters", dead_letters.len()));
        }
        if !dead_letters.is_empty() && !events.is_empty() {
            wrong("it is a dead letter, and has events".into());
        }
        let Some((metadata, _)) = decoded else {
            if dead_letters.is_empty() && !self.dead_letters.may_be_deleted(input.offset) {
                wrong("it cannot be processed, and is no dead letter".into());
            }
            return;
        };
        for event in events {
            if let Ok((of_event, _)) = &event.decoded
                && of_event.causation_id != metadata.id
            {
                wrong(format!(
                    "the event at offset {} has the source offset of this command, and the causation id {}",
                    event.input.offset, of_event.causation_id
                ));
            }
        }
        if events.is_empty() && dead_letters.is_empty() && replay_result.events > 0 {
            wrong(format!(
                "its {} events are not in the log",
                replay_result.events
            ));
        } else if dead_letters.is_empty()
            && replay_result.is_checked
            && events.len() != replay_result.events
        {
            wrong(format!(
                "{} events of {} are in the log",
                events.len(),
                replay_result.events
            ));
        }
    }

    /// I1 and I10: a command that requests an outcome has one, and its version is in the log.
    pub(super) fn check_outcome(
        &self,
        context: &mut AuditContext,
        input: &Input,
        metadata: &Metadata,
        outcome: Option<&DecodedOutcome<<D::Contract as Contract>::Outcome>>,
        dead_letters: usize,
    ) {
        let id = metadata.aggregate_id.as_str();
        let at = |topic, offset, wrong: String| {
            Example::new(wrong)
                .at(self.topic_partition(topic), offset)
                .of_aggregate(id)
        };
        let Some(outcome) = outcome else {
            let is_due = !metadata.reply_to.is_empty() && dead_letters == 0;
            if is_due && self.outcomes.may_be_deleted(input.time_ms) {
                context.findings.unchecked(Invariant::I1);
            } else if is_due {
                context.findings.checked(Invariant::I1);
                let wrong = "it is processed, and has no outcome".to_owned();
                let example = at(Topic::Commands, input.offset, wrong);
                context.findings.violated(Invariant::I1, example);
            }
            return;
        };
        context.findings.checked(Invariant::I1);
        let offset = outcome.input.offset;
        if metadata.reply_to.is_empty() || dead_letters > 0 {
            let wrong = "an outcome that was not requested".to_owned();
            let example = at(Topic::Outcomes, offset, wrong);
            context.findings.violated(Invariant::I1, example);
        }
        if self.may_be_evicted(context, id) {
            context.findings.unchecked(Invariant::I10);
            return;
        }
        context.findings.checked(Invariant::I10);
        let version = self.folds.get(id).map_or(0, |fold| fold.version);
        if outcome.metadata.aggregate_version > version {
            let wrong = format!(
                "an outcome has version {}, the committed log has {version}",
                outcome.metadata.aggregate_version
            );
            let example = at(Topic::Outcomes, offset, wrong);
            context.findings.violated(Invariant::I10, example);
        }
    }
}

/// UUIDv5(parent, index), as the engine derives ids.
fn derived_id(parent: &str, index: usize) -> String {
    let parent = Uuid::try_parse(parent).unwrap_or_default();
    Uuid::new_v5(&parent, index.to_string().as_bytes()).to_string()
}
