//! The outcomes of one partition, by their commands.

use std::collections::HashMap;

use contracts::Topic;
use contracts::core::v1::Metadata;
use contracts::{Contract, Service};
use engine::Codec;
use engine::log::Input;

use super::stream::Stream;
use super::troubled;
use crate::court::Court;
use crate::evidence::Trouble;
use crate::recent::Recent;
use crate::report::{Example, Invariant};

/// How far is read ahead for an outcome that is not there.
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
    /// Commands whose outcome was found.
    answered: Recent,
}

impl<'e, C: Contract> Outcomes<'e, C> {
    pub(crate) fn new(stream: Stream<'e>, codec: Codec, remembered_ms: i64) -> Self {
        Self {
            stream,
            codec,
            ahead: HashMap::new(),
            answered: Recent::new(remembered_ms),
        }
    }

    /// The outcome of a command.
    pub(crate) fn find(
        &mut self,
        court: &mut Court,
        command_id: &str,
    ) -> Result<Option<Answer<C::Outcome>>, Trouble> {
        let mut pulled = 0;
        while !self.ahead.contains_key(command_id) && pulled < AHEAD {
            if !self.pull(court)? {
                break;
            }
            pulled += 1;
        }
        let found = self.ahead.remove(command_id);
        if let Some(answer) = &found {
            self.answered.insert(answer.metadata.time_ms, command_id);
        }
        Ok(found)
    }

    /// Reads one more; `false` at the end.
    fn pull(&mut self, court: &mut Court) -> Result<bool, Trouble> {
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
                court.findings.violated(Invariant::I1, example);
                return Ok(true);
            }
        };
        let command_id = metadata.causation_id.clone();
        let is_second =
            self.ahead.contains_key(&command_id) || self.answered.contains(command_id.as_str());
        if is_second {
            let wrong = format!("a second outcome of command {command_id}");
            let example = Example::new(wrong).at(place, input.offset);
            let example = example.of(metadata.aggregate_id);
            court.findings.violated(Invariant::I1, example);
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

    /// Judges the outcomes that no command below the cut has led to. Commands before `begins_ms` are gone.
    pub(crate) fn finish(
        &mut self,
        court: &mut Court,
        begins_ms: Option<i64>,
        version_of: impl Fn(&str) -> u64,
    ) -> Result<(), Trouble> {
        while self.pull(court)? {}
        let mut left: Vec<_> = self.ahead.drain().map(|(_, answer)| answer).collect();
        left.sort_by_key(|answer| answer.input.offset);
        for answer in left {
            let Answer {
                input, metadata, ..
            } = answer;
            if begins_ms.is_some_and(|begin| metadata.time_ms <= begin) {
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
            court.loose(input.time_ms, invariant, example);
        }
        Ok(())
    }
}
