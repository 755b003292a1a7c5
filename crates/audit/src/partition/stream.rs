//! The records of one partition, with a look-ahead of one.

use engine::log::Input;

use crate::evidence::{Error, Evidence, Items, LogRecord, TopicPartition};

/// The committed records of a partition.
pub(crate) struct Stream<'e> {
    pub(crate) topic_partition: TopicPartition,
    items: Items<'e, LogRecord>,
    head: Option<Input>,
    /// Offsets of the aborted records that were skipped since the last call of `take_aborted`.
    aborted: Vec<i64>,
    pub(crate) read: u64,
    /// Time of the first record, when earlier ones are deleted.
    pub(crate) first_retained_ms: Option<i64>,
}

impl<'e> Stream<'e> {
    pub(crate) fn open(
        evidence: &'e impl Evidence,
        topic_partition: TopicPartition,
    ) -> Result<Self, Error> {
        let mut stream = Self {
            topic_partition,
            items: evidence.records(topic_partition)?,
            head: None,
            aborted: Vec::new(),
            read: 0,
            first_retained_ms: None,
        };
        stream.advance()?;
        if evidence.cut().ends(topic_partition).low > 0 {
            stream.first_retained_ms =
                Some(stream.head.as_ref().map_or(i64::MAX, |head| head.time_ms));
        }
        Ok(stream)
    }

    fn advance(&mut self) -> Result<(), Error> {
        self.head = None;
        for record in self.items.by_ref() {
            let record = record?;
            self.read += 1;
            if record.committed {
                self.head = Some(record.input);
                return Ok(());
            }
            self.aborted.push(record.input.offset);
        }
        Ok(())
    }

    pub(crate) const fn peek(&self) -> Option<&Input> {
        self.head.as_ref()
    }

    pub(crate) fn next(&mut self) -> Result<Option<Input>, Error> {
        let head = self.head.take();
        if head.is_some() {
            self.advance()?;
        }
        Ok(head)
    }

    /// Offsets of the aborted records that were skipped.
    pub(crate) fn take_aborted(&mut self) -> Vec<i64> {
        std::mem::take(&mut self.aborted)
    }
}
