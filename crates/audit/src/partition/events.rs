//! Events: each is consumed with its command, or alone when its command is deleted or missing.

use std::panic::{AssertUnwindSafe, catch_unwind};

use contracts::core::v1::Metadata;
use contracts::{Body as _, Contract, Topic};
use engine::log::Input;
use engine::{Decider, Event, State, describe, headers};

use super::dead_letters::header_number;
use super::{Fold, PartitionAuditor, content, undecodable_reason};
use crate::context::AuditContext;
use crate::evidence::Error;
use crate::reference_model::{EventContext, ReferenceModel};
use crate::report::{Example, Invariant};

/// An event of the log; its content, or why it cannot be decoded.
pub(super) struct ConsumedEvent<D: Decider> {
    pub(super) input: Input,
    pub(super) decoded: Result<(Metadata, Event<D>), String>,
}

impl<D> PartitionAuditor<'_, D>
where
    D: Decider,
    D::Contract: ReferenceModel,
{
    /// Whether the next event comes from a command before `offset`, which is deleted or missing.
    pub(super) fn is_event_due(&self, offset: i64) -> bool {
        let head = self.events.peek();
        head.is_some_and(|head| {
            header_number(head, headers::SOURCE_OFFSET).is_none_or(|source| source < offset)
        })
    }

    pub(super) fn next_event(
        &mut self,
        context: &mut AuditContext,
    ) -> Result<Option<ConsumedEvent<D>>, Error> {
        let topic_partition = self.events.topic_partition;
        let Some(input) = self.events.next()? else {
            return Ok(None);
        };
        for offset in self.events.take_aborted() {
            context.read_model.record_aborted(topic_partition, offset);
        }
        context
            .read_model
            .record_event(self.service, self.partition, input.offset);
        let decoded = self.codec.decode::<<D::Contract as Contract>::EventRecord>(
            self.service,
            Topic::Events,
            &input,
        );
        let decoded = match decoded {
            Ok(decoded) => Ok(decoded),
            Err(undecodable) => Err(undecodable_reason(
                topic_partition,
                input.offset,
                undecodable,
            )?),
        };
        Ok(Some(ConsumedEvent { input, decoded }))
    }

    /// Processes an event whose command is deleted or missing.
    pub(super) fn process_orphan_event(&mut self, context: &mut AuditContext) -> Result<(), Error> {
        let topic_partition = self.topic_partition(Topic::Events);
        let Some(event) = self.next_event(context)? else {
            return Ok(());
        };
        let source = header_number(&event.input, headers::SOURCE_OFFSET);
        if let (Ok((metadata, _)), Some(source)) = (&event.decoded, source)
            && source >= self.committed
        {
            // Its command was processed after the cut.
            context.events_beyond_cut += 1;
            let version = self
                .versions_beyond_cut
                .entry(metadata.aggregate_id.clone())
                .or_default();
            *version = (*version).max(metadata.aggregate_version);
            context
                .messages
                .mark_unverifiable(&metadata.id, event.input.time_ms);
            let wrong = format!(
                "an event of command {source}, which is not processed: its group was reset"
            );
            let example = Example::new(wrong).at(topic_partition, event.input.offset);
            context.add_unmatched(
                event.input.time_ms,
                Invariant::I12,
                example.of_aggregate(&metadata.aggregate_id),
            );
            return Ok(());
        }
        if source.is_none_or(|source| source >= self.dead_letters.log_start()) {
            let wrong = match source {
                Some(source) => format!(
                    "an event of command {source}, which is missing or was processed before"
                ),
                None => "an event without the offset of its command".to_owned(),
            };
            let example = Example::new(wrong).at(topic_partition, event.input.offset);
            context.findings.violated(Invariant::I12, example);
        }
        let Ok((metadata, _)) = &event.decoded else {
            self.apply_event(context, event, None);
            return Ok(());
        };
        context
            .messages
            .mark_unverifiable(&metadata.id, event.input.time_ms);
        context.findings.unchecked(Invariant::I17);
        let id = metadata.aggregate_id.clone();
        self.apply_event(context, event, None);
        self.restore_replay(&id);
        Ok(())
    }

    /// Sets the replay to the state of the log, whatever the last replayed command changed.
    pub(super) fn restore_replay(&mut self, id: &str) {
        match self.folds.get(id) {
            Some(fold) => self
                .replay
                .set(id, fold.state.clone(), fold.version, fold.time_ms),
            None => self.replay.forget(id),
        }
    }

    /// Applies an event to everything that is folded from events. `index` is its index among the events of its command.
    pub(super) fn apply_event(
        &mut self,
        context: &mut AuditContext,
        event: ConsumedEvent<D>,
        index: Option<usize>,
    ) {
        let topic_partition = self.topic_partition(Topic::Events);
        context.event_count += 1;
        context.findings.checked(Invariant::I16);
        let ConsumedEvent { input, decoded } = event;
        let at = |wrong: String| Example::new(wrong).at(topic_partition, input.offset);
        let (metadata, event) = match decoded {
            Ok(decoded) => decoded,
            Err(wrong) => {
                let example = at(format!("it cannot be decoded: {wrong}"));
                context.findings.violated(Invariant::I16, example);
                return;
            }
        };
        let id = metadata.aggregate_id.as_str();
        let mut violations = contracts::rules::field_violations(&metadata);
        violations.extend(event.violations());
        if !violations.is_empty() {
            let wrong = format!("it breaks its field rules: {}", describe(&violations));
            context
                .findings
                .violated(Invariant::I16, at(wrong).of_aggregate(id));
        }
        if !self.check_version(context, &input, &metadata, index) {
            return;
        }
        let fold = self.folds.entry(id.to_owned()).or_insert_with(|| Fold {
            state: State::<D>::default(),
            version: 0,
            time_ms: 0,
            checkpointed_version: 0,
        });
        let folded = catch_unwind(AssertUnwindSafe(|| D::evolve(&mut fold.state, &event)));
        if folded.is_err() {
            let example = at("the fold panics".to_owned()).of_aggregate(id);
            context.findings.violated(Invariant::I16, example);
        }
        fold.version = metadata.aggregate_version;
        fold.time_ms = metadata.time_ms;
        let last = self.states.checkpoint.as_ref();
        if last.is_some_and(|last| input.offset < last.content.events_offset) {
            fold.checkpointed_version = fold.version;
        }
        self.states
            .compare::<D>(context, id, fold.version, fold.time_ms, &fold.state);
        let event_context = EventContext {
            topic_partition,
            offset: input.offset,
            id,
            version: metadata.aggregate_version,
            time_ms: metadata.time_ms,
            record: content(input.payload.as_deref()),
            is_applied: context
                .read_model
                .has_applied(self.service, self.partition, input.offset),
        };
        context.check_event_id(&event_context, &metadata.id);
        <D::Contract as ReferenceModel>::apply_event(context, &event_context, &event);
    }
}
