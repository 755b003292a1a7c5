//! The outcomes of one partition, by their commands.

use std::collections::HashMap;

use contracts::Topic;
use contracts::core::v1::Metadata;
use contracts::{Contract, Service};
use engine::Codec;
use engine::log::Input;

use super::stream::Stream;
use super::undecodable_reason;
use crate::context::AuditContext;
use crate::dedup_window::DedupWindow;
use crate::evidence::Error;
use crate::report::{Example, Invariant};

/// Outcomes are in the order of their commands. This many are read ahead when an outcome is missing or has no command.
const MAX_READ_AHEAD: usize = 4_096;

/// A decoded outcome.
#[derive(Debug)]
pub(crate) struct DecodedOutcome<O> {
    pub(crate) input: Input,
    pub(crate) metadata: Metadata,
    pub(crate) body: O,
}

/// The outcomes whose commands are not yet read.
pub(crate) struct Outcomes<'e, C: Contract> {
    pub(crate) stream: Stream<'e>,
    codec: Codec,
    read_ahead: HashMap<String, DecodedOutcome<C::Outcome>>,
    /// Time of the first retained command, where earlier ones are deleted.
    first_command_ms: Option<i64>,
    /// Commands whose outcome was taken.
    matched: DedupWindow,
}

impl<'e, C: Contract> Outcomes<'e, C> {
    pub(crate) fn new(
        stream: Stream<'e>,
        codec: Codec,
        remembered_ms: i64,
        first_command_ms: Option<i64>,
    ) -> Self {
        Self {
            stream,
            codec,
            read_ahead: HashMap::new(),
            first_command_ms,
            matched: DedupWindow::new(remembered_ms),
        }
    }

    /// Whether the outcome of a command of this time may be deleted.
    pub(crate) fn may_be_deleted(&self, time_ms: i64) -> bool {
        self.stream
            .first_retained_ms
            .is_some_and(|first_ms| time_ms <= first_ms)
    }

    /// Takes the outcome of a command. For a command that does not request one, only the next outcome is looked at.
    pub(crate) fn take_for(
        &mut self,
        context: &mut AuditContext,
        command_id: &str,
        is_requested: bool,
    ) -> Result<Option<DecodedOutcome<C::Outcome>>, Error> {
        let max_len = if is_requested { MAX_READ_AHEAD } else { 1 };
        while !self.read_ahead.contains_key(command_id) && self.read_ahead.len() < max_len {
            if !self.read_next(context)? {
                break;
            }
        }
        let found = self.read_ahead.remove(command_id);
        if let Some(outcome) = &found {
            self.matched.insert(outcome.metadata.time_ms, command_id);
        }
        Ok(found)
    }

    /// Reads one more outcome; `false` at the end.
    fn read_next(&mut self, context: &mut AuditContext) -> Result<bool, Error> {
        let Some(input) = self.stream.next()? else {
            return Ok(false);
        };
        let topic_partition = self.stream.topic_partition;
        let service: Service = C::SERVICE;
        let decoded = self
            .codec
            .decode::<C::OutcomeRecord>(service, Topic::Outcomes, &input);
        let (metadata, body) = match decoded {
            Ok(decoded) => decoded,
            Err(undecodable) => {
                let wrong = undecodable_reason(topic_partition, input.offset, undecodable)?;
                let example = Example::new(format!("an outcome cannot be read: {wrong}"));
                let example = example.at(topic_partition, input.offset);
                context.findings.violated(Invariant::I1, example);
                return Ok(true);
            }
        };
        if self
            .first_command_ms
            .is_some_and(|first_ms| metadata.time_ms < first_ms)
        {
            context.findings.unchecked(Invariant::I1);
            return Ok(true);
        }
        let command_id = metadata.causation_id.clone();
        let is_second =
            self.read_ahead.contains_key(&command_id) || self.matched.contains(command_id.as_str());
        if is_second {
            let wrong = format!("a second outcome of command {command_id}");
            let example = Example::new(wrong).at(topic_partition, input.offset);
            let example = example.of_aggregate(metadata.aggregate_id);
            context.findings.violated(Invariant::I1, example);
            return Ok(true);
        }
        let outcome = DecodedOutcome {
            input,
            metadata,
            body,
        };
        self.read_ahead.insert(command_id, outcome);
        Ok(true)
    }

    /// Checks the outcomes without a command below the cut.
    pub(crate) fn finish(
        &mut self,
        context: &mut AuditContext,
        version_of: impl Fn(&str) -> u64,
    ) -> Result<(), Error> {
        while self.read_next(context)? {}
        let mut unmatched: Vec<_> = self
            .read_ahead
            .drain()
            .map(|(_, outcome)| outcome)
            .collect();
        unmatched.sort_by_key(|outcome| outcome.input.offset);
        for outcome in unmatched {
            let DecodedOutcome {
                input, metadata, ..
            } = outcome;
            if self
                .first_command_ms
                .is_some_and(|first_ms| metadata.time_ms <= first_ms)
            {
                continue;
            }
            let known = version_of(&metadata.aggregate_id);
            let (invariant, wrong) = if metadata.aggregate_version > known {
                let wrong = format!(
                    "an outcome has version {}, the committed log has {known}",
                    metadata.aggregate_version
                );
                (Invariant::I10, wrong)
            } else {
                let wrong = format!(
                    "an outcome of command {}, which is missing",
                    metadata.causation_id
                );
                (Invariant::I1, wrong)
            };
            let example = Example::new(wrong)
                .at(self.stream.topic_partition, input.offset)
                .of_aggregate(metadata.aggregate_id);
            context.add_unmatched(input.time_ms, invariant, example);
        }
        Ok(())
    }
}
