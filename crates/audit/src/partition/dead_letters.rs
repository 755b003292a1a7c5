//! The dead letters of one partition, by the offset of the command that they were.

use engine::headers;
use engine::log::Input;

use super::stream::Stream;
use crate::context::AuditContext;
use crate::evidence::Error;
use crate::report::{Example, Invariant};

/// Dead letters, in the order of their commands.
pub(crate) struct Letters<'e> {
    pub(crate) stream: Stream<'e>,
    commands_topic: String,
    /// Commands below are gone.
    low: i64,
    /// Commands below may be dead letters that were redriven or discarded, and deleted.
    deleted_below: i64,
}

/// A number in a header.
pub(crate) fn number(input: &Input, header: &str) -> Option<i64> {
    std::str::from_utf8(input.header(header)?)
        .ok()?
        .parse()
        .ok()
}

impl<'e> Letters<'e> {
    pub(crate) fn new(stream: Stream<'e>, commands_topic: String, low: i64) -> Self {
        let first = stream
            .peek()
            .and_then(|head| number(head, headers::DEAD_SOURCE_OFFSET));
        let deleted_below = match stream.begins_ms {
            Some(_) => first.unwrap_or(i64::MAX),
            None => 0,
        };
        Self {
            stream,
            commands_topic,
            low,
            deleted_below,
        }
    }

    /// Whether the dead letter of the command at `offset` may have been deleted.
    pub(crate) const fn may_be_gone(&self, offset: i64) -> bool {
        offset < self.deleted_below
    }

    /// Commands below are gone.
    pub(crate) const fn low(&self) -> i64 {
        self.low
    }

    /// The dead letters of the command at `offset`; those of earlier ones have no command.
    pub(crate) fn of(
        &mut self,
        context: &mut AuditContext,
        offset: i64,
    ) -> Result<Vec<Input>, Error> {
        let mut letters = Vec::new();
        while let Some(head) = self.stream.peek() {
            let source = number(head, headers::DEAD_SOURCE_OFFSET);
            if source.is_some_and(|source| source > offset) {
                break;
            }
            let Some(input) = self.stream.next()? else {
                break;
            };
            let place = self.stream.place;
            let is_from_here = input.header(headers::DEAD_SOURCE_TOPIC)
                == Some(self.commands_topic.as_bytes())
                && number(&input, headers::DEAD_SOURCE_PARTITION) == Some(place.partition.into());
            match source {
                Some(source) if source == offset && is_from_here => letters.push(input),
                Some(source) if source < self.low => {}
                source => {
                    let wrong = match source {
                        Some(source) => format!(
                            "a dead letter of command {source}, which is not there or not dead"
                        ),
                        None => "a dead letter that does not say which command it was".to_owned(),
                    };
                    let example = Example::new(wrong).at(place, input.offset);
                    context.findings.violated(Invariant::I12, example);
                }
            }
        }
        Ok(letters)
    }

    /// Judges the dead letters of commands at or beyond the cut's `committed`, and of none.
    pub(crate) fn finish(
        &mut self,
        context: &mut AuditContext,
        committed: i64,
    ) -> Result<(), Error> {
        while let Some(input) = self.stream.next()? {
            let source = number(&input, headers::DEAD_SOURCE_OFFSET);
            let at = |wrong| Example::new(wrong).at(self.stream.place, input.offset);
            if source.is_some_and(|source| source < self.low) {
                continue;
            }
            if source.is_some_and(|source| source >= committed) {
                let example =
                    at("a dead letter of a command that is not processed: its group was set back");
                context.loose(input.time_ms, Invariant::I12, example);
                continue;
            }
            let example = at("a dead letter of a command that is not there");
            context.findings.violated(Invariant::I12, example);
        }
        Ok(())
    }
}
