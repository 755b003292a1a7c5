//! One partition: records, control records, the last stable offset.

use std::collections::{BTreeMap, HashMap};

use crate::log::{Header, Input, Partition};

/// Number of a transactional producer.
pub type ProducerId = u64;

/// The log of one partition.
#[derive(Default)]
pub struct Records {
    /// By offset; offsets are missing where compaction has been.
    entries: Vec<Entry>,
    high: i64,
    /// First offset of each producer's open transaction here.
    open: BTreeMap<ProducerId, i64>,
    /// The newest epoch heard of from each producer.
    epochs: BTreeMap<ProducerId, u32>,
}

struct Entry {
    offset: i64,
    time_ms: i64,
    content: Content,
}

enum Content {
    Record {
        key: Option<Vec<u8>>,
        payload: Option<Vec<u8>>,
        headers: Vec<Header>,
        visibility: Visibility,
    },
    /// Takes an offset and is delivered to nobody.
    Control,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Visibility {
    Committed,
    Aborted,
    /// Its transaction has no marker here yet.
    Open(ProducerId),
}

/// A record to append.
pub struct New {
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    pub headers: Vec<Header>,
}

impl Records {
    /// First offset that is kept.
    pub fn low(&self) -> i64 {
        0
    }

    /// Past everything.
    pub fn high(&self) -> i64 {
        self.high
    }

    /// First offset of a transaction without a marker, or the end.
    pub fn stable(&self) -> i64 {
        self.open.values().copied().min().unwrap_or(self.high)
    }

    /// Whether the producer has a transaction without a marker here.
    pub fn is_open(&self, producer: ProducerId) -> bool {
        self.open.contains_key(&producer)
    }

    /// Whether the producer may write here under that epoch.
    pub fn admits(&self, producer: ProducerId, epoch: u32) -> bool {
        self.epochs
            .get(&producer)
            .is_none_or(|known| *known <= epoch)
    }

    /// Appends a record, in the transaction of a producer or in none; its offset.
    pub fn append(&mut self, time_ms: i64, new: New, producer: Option<(ProducerId, u32)>) -> i64 {
        let offset = self.high;
        let visibility = match producer {
            Some((producer, epoch)) => {
                self.open.entry(producer).or_insert(offset);
                self.epochs.insert(producer, epoch);
                Visibility::Open(producer)
            }
            None => Visibility::Committed,
        };
        let New {
            key,
            payload,
            headers,
        } = new;
        self.push(
            time_ms,
            Content::Record {
                key,
                payload,
                headers,
                visibility,
            },
        );
        offset
    }

    /// Appends a marker, which ends the producer's transaction here.
    pub fn mark(&mut self, time_ms: i64, producer: ProducerId, epoch: u32, committed: bool) {
        self.epochs.insert(producer, epoch);
        if let Some(first) = self.open.remove(&producer) {
            let end = if committed {
                Visibility::Committed
            } else {
                Visibility::Aborted
            };
            let from = self.index(first);
            for entry in &mut self.entries[from..] {
                if let Content::Record { visibility, .. } = &mut entry.content
                    && *visibility == Visibility::Open(producer)
                {
                    *visibility = end;
                }
            }
        }
        self.push(time_ms, Content::Control);
    }

    /// The committed records from `from` on, below the last stable offset, at most `most` of them; and the offset
    /// behind the last one or, when there are no more, the last stable offset.
    pub fn committed(&self, partition: Partition, from: i64, most: usize) -> (Vec<Input>, i64) {
        let stable = self.stable();
        let mut inputs = Vec::new();
        for entry in &self.entries[self.index(from)..] {
            if entry.offset >= stable {
                break;
            }
            let Content::Record {
                key,
                payload,
                headers,
                visibility: Visibility::Committed,
            } = &entry.content
            else {
                continue;
            };
            if inputs.len() == most {
                let position = inputs.last().map_or(from, |last: &Input| last.offset + 1);
                return (inputs, position);
            }
            inputs.push(Input {
                partition,
                offset: entry.offset,
                time_ms: entry.time_ms,
                key: key.clone(),
                payload: payload.clone(),
                headers: headers.clone(),
                headers_unreadable: false,
            });
        }
        (inputs, stable.max(from))
    }

    /// Every record, and whether it is committed.
    pub fn all(&self, partition: Partition) -> Vec<(Input, bool)> {
        let mut all = Vec::new();
        for entry in &self.entries {
            let Content::Record {
                key,
                payload,
                headers,
                visibility,
            } = &entry.content
            else {
                continue;
            };
            let input = Input {
                partition,
                offset: entry.offset,
                time_ms: entry.time_ms,
                key: key.clone(),
                payload: payload.clone(),
                headers: headers.clone(),
                headers_unreadable: false,
            };
            all.push((input, *visibility == Visibility::Committed));
        }
        all
    }

    /// Drops every committed record that a later committed one of the same key replaces, below the last stable offset.
    pub fn compact(&mut self) {
        let stable = self.stable();
        let mut newest: HashMap<Vec<u8>, i64> = HashMap::new();
        for entry in &self.entries {
            if let Content::Record {
                key: Some(key),
                visibility: Visibility::Committed,
                ..
            } = &entry.content
                && entry.offset < stable
            {
                newest.insert(key.clone(), entry.offset);
            }
        }
        self.entries.retain(|entry| match &entry.content {
            Content::Record {
                key: Some(key),
                visibility: Visibility::Committed,
                ..
            } if entry.offset < stable => newest.get(key) == Some(&entry.offset),
            _ => true,
        });
    }

    fn push(&mut self, time_ms: i64, content: Content) {
        self.entries.push(Entry {
            offset: self.high,
            time_ms,
            content,
        });
        self.high += 1;
    }

    fn index(&self, offset: i64) -> usize {
        self.entries.partition_point(|entry| entry.offset < offset)
    }
}
