//! One partition, read ahead by one record.

use engine::log::Input;

use crate::evidence::{Error, Evidence, Items, Seen, TopicPartition};

/// The committed records of a partition.
pub(crate) struct Stream<'e> {
    pub(crate) place: TopicPartition,
    items: Items<'e, Seen>,
    head: Option<Input>,
    /// Offsets of the aborted records passed since they were last taken.
    aborted: Vec<i64>,
    pub(crate) read: u64,
    /// Time of the first record, when earlier ones are no longer kept.
    pub(crate) begins_ms: Option<i64>,
}

impl<'e> Stream<'e> {
    pub(crate) fn open(evidence: &'e impl Evidence, place: TopicPartition) -> Result<Self, Error> {
        let mut stream = Self {
            place,
            items: evidence.records(place)?,
            head: None,
            aborted: Vec::new(),
            read: 0,
            begins_ms: None,
        };
        stream.advance()?;
        if evidence.cut().ends(place).low > 0 {
            stream.begins_ms = Some(stream.head.as_ref().map_or(i64::MAX, |head| head.time_ms));
        }
        Ok(stream)
    }

    fn advance(&mut self) -> Result<(), Error> {
        self.head = None;
        for seen in self.items.by_ref() {
            let seen = seen?;
            self.read += 1;
            if seen.committed {
                self.head = Some(seen.input);
                return Ok(());
            }
            self.aborted.push(seen.input.offset);
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

    /// Offsets of the aborted records that were passed.
    pub(crate) fn take_aborted(&mut self) -> Vec<i64> {
        std::mem::take(&mut self.aborted)
    }
}
