//! What is known about the schema ids of one topic.

use std::time::{Duration, Instant};

/// What a schema id means for the records of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// A version of the topic's subject that this binary contains: decode.
    Known,
    /// A registered version of the topic's subject that this binary does not contain: it must be upgraded to
    /// see all fields.
    Newer,
    /// Registered, but not for this topic, or with another message: poison.
    Foreign,
    /// The registry answers that there is no such schema: poison, unless the registry itself was replaced
    /// ([`Schemas::knows`](crate::Schemas::knows)).
    Unknown,
    /// Not known yet: the registry is being asked, again and again while it is down. Pause the partition and
    /// ask again.
    Pending,
}

impl Resolution {
    /// How long an answer holds. A "no" can become a "yes" by a registration, so it is asked for again; but not
    /// for every record, or garbage in a topic would become a flood of calls.
    const fn lifetime(self) -> Option<Duration> {
        match self {
            Self::Known | Self::Newer | Self::Pending => None,
            Self::Foreign | Self::Unknown => Some(Duration::from_secs(30)),
        }
    }
}

/// Above this many ids, outdated ones are thrown away: garbage can name four billion.
const CLEAN_ABOVE: usize = 256;

/// Ids and their meaning, few and sorted: a look-up is a handful of compares.
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: u32,
    resolution: Resolution,
    until: Option<Instant>,
}

impl Entry {
    fn holds(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl Table {
    /// What is known about `id`; the clock is read only for answers that can become outdated.
    pub fn get(&self, id: u32) -> Option<Resolution> {
        let entry = self.entries[self.position(id).ok()?];
        (entry.until.is_none() || entry.holds(Instant::now())).then_some(entry.resolution)
    }

    pub fn set(&mut self, id: u32, resolution: Resolution, now: Instant) {
        if self.entries.len() >= CLEAN_ABOVE {
            self.entries.retain(|entry| entry.holds(now));
        }
        let entry = Entry {
            id,
            resolution,
            until: resolution.lifetime().map(|lifetime| now + lifetime),
        };
        match self.position(id) {
            Ok(position) => self.entries[position] = entry,
            Err(position) => self.entries.insert(position, entry),
        }
    }

    fn position(&self, id: u32) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&id, |entry| entry.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_found_again() {
        let mut table = Table::default();
        for id in [7, 3, u32::MAX, 0, 5] {
            table.set(id, Resolution::Known, Instant::now());
        }
        table.set(5, Resolution::Newer, Instant::now());
        assert_eq!(table.get(3), Some(Resolution::Known));
        assert_eq!(table.get(5), Some(Resolution::Newer));
        assert_eq!(table.get(u32::MAX), Some(Resolution::Known));
        assert_eq!(table.get(4), None);
    }

    #[test]
    fn a_no_is_asked_for_again() {
        let long_ago = Instant::now() - Duration::from_secs(31);
        let mut table = Table::default();
        for (id, resolution) in (0..).zip([
            Resolution::Known,
            Resolution::Newer,
            Resolution::Pending,
            Resolution::Foreign,
            Resolution::Unknown,
        ]) {
            table.set(id, resolution, long_ago);
        }
        assert_eq!(table.get(0), Some(Resolution::Known));
        assert_eq!(table.get(1), Some(Resolution::Newer));
        assert_eq!(table.get(2), Some(Resolution::Pending));
        assert_eq!(table.get(3), None);
        assert_eq!(table.get(4), None);
        table.set(4, Resolution::Unknown, Instant::now());
        assert_eq!(table.get(4), Some(Resolution::Unknown));
    }

    #[test]
    fn garbage_does_not_pile_up() {
        let start = Instant::now();
        let mut table = Table::default();
        table.set(u32::MAX, Resolution::Known, start);
        for id in 0..100_000 {
            table.set(
                id,
                Resolution::Unknown,
                start + Duration::from_secs(id.into()),
            );
        }
        assert!(table.entries.len() <= CLEAN_ABOVE);
        assert_eq!(table.get(u32::MAX), Some(Resolution::Known));
    }
}
