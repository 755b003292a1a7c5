//! What one event, one command and one answer must be by themselves.

use contracts::core::v1::Metadata;
use contracts::{Contract, Service, Topic};
use engine::log::Input;
use engine::{Command, Decider};
use uuid::Uuid;

use super::outcomes::Answer;
use super::{Decided, Happened, PartitionAuditor};
use crate::context::AuditContext;
use crate::reference_model::ReferenceModel;
use crate::report::{Example, Invariant};

impl<D> PartitionAuditor<'_, D>
where
    D: Decider,
    D::Contract: ReferenceModel,
{
    /// Whether an event is the next one of its aggregate, or comes after a gap: those are folded.
    pub(super) fn judge_version(
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
                .at(self.place(Topic::Events), input.offset)
                .of(id)
        };
        let key = input.key.as_deref().unwrap_or_default();
        if key != id.as_bytes() || self.cluster.partition_of(key) != self.partition {
            let wrong = "its key is not its aggregate's id, or belongs to another partition";
            context
                .findings
                .violated(Invariant::I6, example(wrong.to_owned()));
        }
        if let Some(index) = index
            && metadata.id != derived(&metadata.causation_id, index)
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
            return self.judge_first(context, input, metadata);
        }
        if version == 0 && self.may_be_closed(context, id) {
            // Its first versions are no longer in memory.
            context.findings.unchecked(Invariant::I6);
            return true;
        }
        let wrong = format!("version {found} follows version {version}");
        context.findings.violated(Invariant::I6, example(wrong));
        found > version
    }

    /// Whether nothing is known of the aggregate because it may have been closed.
    pub(super) fn may_be_closed(&self, context: &AuditContext, id: &str) -> bool {
        self.service != Service::Inventory
            && !self.folds.contains_key(id)
            && context.cases.may_be_closed(self.partition, id)
    }

    /// Whether the first event of an aggregate does not bring back one that was closed.
    fn judge_first(&self, context: &mut AuditContext, input: &Input, metadata: &Metadata) -> bool {
        let id = metadata.aggregate_id.as_str();
        if self.service != Service::Orders
            || metadata.aggregate_version != 1
            || <D::Contract as ReferenceModel>::is_known(context, id)
        {
            return true;
        }
        if self.may_be_closed(context, id) {
            let wrong =
                "created although its id is as old as that of an order that has left memory";
            let example = Example::new(wrong)
                .at(self.place(Topic::Events), input.offset)
                .of(id);
            context.findings.violated(Invariant::I6, example);
        }
        true
    }

    /// I12: processed once, in one of the ways.
    pub(super) fn judge_processing(
        &self,
        context: &mut AuditContext,
        input: &Input,
        opened: Option<&(Metadata, Command<D>)>,
        events: &[Happened<D>],
        letters: &[Input],
        decided: &Decided,
    ) {
        let place = self.place(Topic::Commands);
        let mut wrong = |wrong: String| {
            let mut example = Example::new(wrong).at(place, input.offset);
            if let Some((metadata, _)) = opened {
                example = example.of(&metadata.aggregate_id);
            }
            context.findings.violated(Invariant::I12, example);
        };
        if letters.len() > 1 {
            wrong(format!("it is {} dead letters", letters.len()));
        }
        if !letters.is_empty() && !events.is_empty() {
            wrong("it is a dead letter, and has events".into());
        }
        let Some((metadata, _)) = opened else {
            if letters.is_empty() && !self.letters.may_be_gone(input.offset) {
                wrong("it cannot be processed, and is no dead letter".into());
            }
            return;
        };
        for event in events {
            if let Ok((of_event, _)) = &event.opened
                && of_event.causation_id != metadata.id
            {
                wrong(format!(
                    "the event at offset {} says that it comes from here, and from command {}",
                    event.input.offset, of_event.causation_id
                ));
            }
        }
        if events.is_empty() && letters.is_empty() && decided.events > 0 {
            wrong(format!("its {} events are not in the log", decided.events));
        } else if letters.is_empty() && decided.is_checked && events.len() != decided.events {
            wrong(format!(
                "{} events of {} are in the log",
                events.len(),
                decided.events
            ));
        }
    }

    /// I1 and I10: who asked has an outcome, of what the log has.
    pub(super) fn judge_answer(
        &self,
        context: &mut AuditContext,
        input: &Input,
        metadata: &Metadata,
        answer: Option<&Answer<<D::Contract as Contract>::Outcome>>,
        letters: usize,
    ) {
        let id = metadata.aggregate_id.as_str();
        let at =
            |topic, offset, wrong: String| Example::new(wrong).at(self.place(topic), offset).of(id);
        let Some(answer) = answer else {
            let is_due = !metadata.reply_to.is_empty() && letters == 0;
            if is_due && self.outcomes.may_be_gone(input.time_ms) {
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
        let offset = answer.input.offset;
        if metadata.reply_to.is_empty() || letters > 0 {
            let wrong = "an outcome that nobody asked for".to_owned();
            let example = at(Topic::Outcomes, offset, wrong);
            context.findings.violated(Invariant::I1, example);
        }
        if self.may_be_closed(context, id) {
            context.findings.unchecked(Invariant::I10);
            return;
        }
        context.findings.checked(Invariant::I10);
        let version = self.folds.get(id).map_or(0, |fold| fold.version);
        if answer.metadata.aggregate_version > version {
            let wrong = format!(
                "an outcome speaks of version {}, the committed log has {version}",
                answer.metadata.aggregate_version
            );
            let example = at(Topic::Outcomes, offset, wrong);
            context.findings.violated(Invariant::I10, example);
        }
    }
}

/// UUIDv5(parent, index), as the engine derives ids.
fn derived(parent: &str, index: usize) -> String {
    let parent = Uuid::try_parse(parent).unwrap_or_default();
    Uuid::new_v5(&parent, index.to_string().as_bytes()).to_string()
}
