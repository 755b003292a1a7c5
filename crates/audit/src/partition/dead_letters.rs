//! The dead letters of one partition, by the offsets of their commands.

use engine::headers;
use engine::log::Input;

use super::stream::Stream;
use crate::context::AuditContext;
use crate::evidence::Error;
use crate::report::{Example, Invariant};

/// Dead letters, in the order of their commands.
pub(crate) struct DeadLetters<'e> {
    pub(crate) stream: Stream<'e>,
    commands_topic: String,
    /// The first retained offset of the commands.
    log_start: i64,
    /// Dead letters of commands below may be redriven or discarded, and deleted.
    deleted_below: i64,
}

/// Parses a header as a number.
pub(crate) fn header_number(input: &Input, header: &str) -> Option<i64> {
    std::str::from_utf8(input.header(header)?)
        .ok()?
        .parse()
        .ok()
}

impl<'e> DeadLetters<'e> {
    pub(crate) fn new(stream: Stream<'e>, commands_topic: String, log_start: i64) -> Self {
        let first = stream
            .peek()
            .and_then(|head| header_number(head, headers::DEAD_SOURCE_OFFSET));
        let deleted_below = match stream.first_retained_ms {
            Some(_) => first.unwrap_or(i64::MAX),
            None => 0,
        };
        Self {
            stream,
            commands_topic,
            log_start,
            deleted_below,
        }
    }

    /// Whether the dead letter of the command at `offset` may be deleted.
    pub(crate) const fn may_be_deleted(&self, offset: i64) -> bool {
        offset < self.deleted_below
    }

    /// The first retained offset of the commands.
    pub(crate) const fn log_start(&self) -> i64 {
        self.log_start
    }

    /// Takes the dead letters of the command at `offset`. Those of earlier offsets have no command.
    pub(crate) fn take_for(
        &mut self,
        context: &mut AuditContext,
        offset: i64,
    ) -> Result<Vec<Input>, Error> {
        let mut dead_letters = Vec::new();
        while let Some(head) = self.stream.peek() {
            let source = header_number(head, headers::DEAD_SOURCE_OFFSET);
            if source.is_some_and(|source| source > offset) {
                break;
            }
            let Some(input) = self.stream.next()? else {
                break;
            };
            let topic_partition = self.stream.topic_partition;
            let is_own = input.header(headers::DEAD_SOURCE_TOPIC)
                == Some(self.commands_topic.as_bytes())
                && header_number(&input, headers::DEAD_SOURCE_PARTITION)
                    == Some(topic_partition.partition.into());
            match source {
                Some(source) if source == offset && is_own => dead_letters.push(input),
                Some(source) if source < self.log_start => {}
                source => {
                    let wrong = match source {
                        Some(source) => format!(
                            "a dead letter of command {source}, which is missing or not dead"
                        ),
                        None => "a dead letter without the offset of its command".to_owned(),
                    };
                    let example = Example::new(wrong).at(topic_partition, input.offset);
                    context.findings.violated(Invariant::I12, example);
                }
            }
        }
        Ok(dead_letters)
    }

    /// Checks the remaining dead letters: their commands are at or beyond `committed`, or missing.
    pub(crate) fn finish(
        &mut self,
        context: &mut AuditContext,
        committed: i64,
    ) -> Result<(), Error> {
        while let Some(input) = self.stream.next()? {
            let source = header_number(&input, headers::DEAD_SOURCE_OFFSET);
            let at = |wrong| Example::new(wrong).at(self.stream.topic_partition, input.offset);
            if source.is_some_and(|source| source < self.log_start) {
                continue;
            }
            if source.is_some_and(|source| source >= committed) {
                let example =
                    at("a dead letter of a command that is not processed: its group was reset");
                context.add_unmatched(input.time_ms, Invariant::I12, example);
                continue;
            }
            let example = at("a dead letter of a command that is missing");
            context.findings.violated(Invariant::I12, example);
        }
        Ok(())
    }
}
