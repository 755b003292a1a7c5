//! The resolved schema ids of one topic.

use std::time::{Duration, Instant};

/// The meaning of a schema id for the records of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// A version of the topic's subject that this binary contains: the record can be decoded.
    Known,
    /// A registered version of the topic's subject that this binary does not contain: the binary must be upgraded to
    /// see all fields.
    Newer,
    /// Registered, but not for this topic, or with another message: poison.
    Foreign,
    /// The registry has no such schema: poison, unless the registry itself was replaced
    /// ([`Schemas::knows`](crate::Schemas::knows)).
    Unknown,
    /// Not resolved yet: the look-up runs in the background, with retries while the registry is down. Pause the
    /// partition and resolve again.
    Pending,
}

impl Resolution {
    /// How long an answer is valid. A registration can turn a negative answer into a positive one, so negative answers
    /// expire; not at once, or garbage in a topic would cause a call per record.
    const fn lifetime(self) -> Option<Duration> {
        match self {
            Self::Known | Self::Newer | Self::Pending => None,
            Self::Foreign | Self::Unknown => Some(Duration::from_secs(30)),
        }
    }
}

/// Above this many ids, expired ones are removed: garbage can contain any of four billion ids.
const EVICT_ABOVE: usize = 256;

/// Resolutions by id, few and sorted, so that a look-up takes few comparisons.
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: u32,
    resolution: Resolution,
    expires_at: Option<Instant>,
}

impl Entry {
    fn is_valid(&self, now: Instant) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at)
    }
}

impl Table {
    /// The valid resolution of `id`, if any. The clock is read only for answers that expire.
    pub fn get(&self, id: u32) -> Option<Resolution> {
        let entry = self.entries[self.position(id).ok()?];
        (entry.expires_at.is_none() || entry.is_valid(Instant::now())).then_some(entry.resolution)
    }

    pub fn set(&mut self, id: u32, resolution: Resolution, now: Instant) {
        if self.entries.len() >= EVICT_ABOVE {
            self.entries.retain(|entry| entry.is_valid(now));
        }
        let entry = Entry {
            id,
            resolution,
            expires_at: resolution.lifetime().map(|lifetime| now + lifetime),
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
    fn every_id_is_found() {
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
    fn negative_answers_expire() {
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
    fn expired_ids_are_evicted() {
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
        assert!(table.entries.len() <= EVICT_ABOVE);
        assert_eq!(table.get(u32::MAX), Some(Resolution::Known));
    }
}
