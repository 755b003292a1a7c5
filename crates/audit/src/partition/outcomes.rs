//! The outcomes of one partition, by their commands.

use std::collections::HashMap;

use contracts::Topic;
use contracts::core::v1::Metadata;
use contracts::{Contract, Service};
use engine::Codec;
use engine::log::Input;

use super::stream::Stream;
use super::troubled;
use crate::context::AuditContext;
use crate::dedup_window::DedupWindow;
use crate::evidence::Error;
use crate::report::{Example, Invariant};

/// Outcomes stand in the order of their commands. So many are kept in memory when one is not there, or of no command.
const AHEAD: usize = 4_096;

/// An outcome, taken apart.
#[derive(Debug)]
pub(crate) struct Answer<O> {
    pub(crate) input: Input,
    pub(crate) metadata: Metadata,
    pub(crate) outcome: O,
}

/// Outcomes that were read, and whose commands were not.
pub(crate) struct Outcomes<'e, C: Contract> {
    pub(crate) stream: Stream<'e>,
    codec: Codec,
    ahead: HashMap<String, Answer<C::Outcome>>,
    /// Time of the first command that is kept, where earlier ones are gone.
    commands_begin_ms: Option<i64>,
    /// Commands whose outcome was found.
    answered: DedupWindow,
}

impl<'e, C: Contract> Outcomes<'e, C> {
    pub(crate) fn new(
        stream: Stream<'e>,
        codec: Codec,
        remembered_ms: i64,
        commands_begin_ms: Option<i64>,
    ) -> Self {
        Self {
            stream,
            codec,
            ahead: HashMap::new(),
            commands_begin_ms,
            answered: DedupWindow::new(remembered_ms),
        }
    }

    /// Whether the outcome of a command of this time may have been deleted.
    pub(crate) fn may_be_gone(&self, time_ms: i64) -> bool {
        self.stream.begins_ms.is_some_and(|begin| time_ms <= begin)
    }

    /// The outcome of a command. One that did not ask has none, or the next.
    pub(crate) fn find(
        &mut self,
        context: &mut AuditContext,
        command_id: &str,
        is_asked: bool,
    ) -> Result<Option<Answer<C::Outcome>>, Error> {
        let most = if is_asked { AHEAD } else { 1 };
        while !self.ahead.contains_key(command_id) && self.ahead.len() < most {
            if !self.pull(context)? {
                break;
            }
        }
        let found = self.ahead.remove(command_id);
        if let Some(answer) = &found {
            self.answered.insert(answer.metadata.time_ms, command_id);
        }
        Ok(found)
    }

    /// Reads one more; `false` at the end.
    fn pull(&mut self, context: &mut AuditContext) -> Result<bool, Error> {
        let Some(input) = self.stream.next()? else {
            return Ok(false);
        };
        let place = self.stream.place;
        let service: Service = C::SERVICE;
        let opened = self
            .codec
            .own::<C::OutcomeRecord>(service, Topic::Outcomes, &input);
        let (metadata, outcome) = match opened {
            Ok(opened) => opened,
            Err(undecodable) => {
                let wrong = troubled(place, input.offset, undecodable)?;
                let example = Example::new(format!("an outcome cannot be read: {wrong}"));
                let example = example.at(place, input.offset);
                context.findings.violated(Invariant::I1, example);
                return Ok(true);
            }
        };
        if self
            .commands_begin_ms
            .is_some_and(|begin| metadata.time_ms < begin)
        {
            context.findings.unchecked(Invariant::I1);
            return Ok(true);
        }
        let command_id = metadata.causation_id.clone();
        let is_second =
            self.ahead.contains_key(&command_id) || self.answered.contains(command_id.as_str());
        if is_second {
            let wrong = format!("a second outcome of command {command_id}");
            let example = Example::new(wrong).at(place, input.offset);
            let example = example.of(metadata.aggregate_id);
            context.findings.violated(Invariant::I1, example);
            return Ok(true);
        }
        let answer = Answer {
            input,
            metadata,
            outcome,
        };
        self.ahead.insert(command_id, answer);
        Ok(true)
    }

    /// Judges the outcomes that no command below the cut has led to.
    pub(crate) fn finish(
        &mut self,
        context: &mut AuditContext,
        version_of: impl Fn(&str) -> u64,
    ) -> Result<(), Error> {
        while self.pull(context)? {}
        let mut left: Vec<_> = self.ahead.drain().map(|(_, answer)| answer).collect();
        left.sort_by_key(|answer| answer.input.offset);
        for answer in left {
            let Answer {
                input, metadata, ..
            } = answer;
            if self
                .commands_begin_ms
                .is_some_and(|begin| metadata.time_ms <= begin)
            {
                continue;
            }
            let known = version_of(&metadata.aggregate_id);
            let (invariant, wrong) = if metadata.aggregate_version > known {
                let wrong = format!(
                    "an outcome speaks of version {}, the committed log has {known}",
                    metadata.aggregate_version
                );
                (Invariant::I10, wrong)
            } else {
                let wrong = format!(
                    "an outcome of command {}, which is not there",
                    metadata.causation_id
                );
                (Invariant::I1, wrong)
            };
            let example = Example::new(wrong)
                .at(self.stream.place, input.offset)
                .of(metadata.aggregate_id);
            context.loose(input.time_ms, invariant, example);
        }
        Ok(())
    }
}
