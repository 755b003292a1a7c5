//! One partition: records, control records, last stable offset.

use std::collections::{BTreeMap, HashMap};

use crate::log::{Header, Input, Partition};

/// Id of a transactional producer.
pub type ProducerId = u64;

/// The log of one partition.
#[derive(Default)]
pub struct Records {
    /// Ordered by offset; compaction leaves gaps.
    entries: Vec<Entry>,
    /// High watermark.
    high: i64,
    /// First offset of each producer's open transaction here.
    open_transactions: BTreeMap<ProducerId, i64>,
    /// The newest epoch received from each producer.
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
    /// Takes an offset and is not delivered.
    Control,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Visibility {
    Committed,
    Aborted,
    /// The transaction has no marker in this partition yet.
    Open(ProducerId),
}

/// A record to append.
pub struct NewRecord {
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    pub headers: Vec<Header>,
}

impl Records {
    /// Low watermark: first offset that is kept.
    pub fn low(&self) -> i64 {
        0
    }

    /// High watermark: the offset after the last record.
    pub fn high(&self) -> i64 {
        self.high
    }

    /// Last stable offset: first offset of an open transaction, or the high watermark.
    pub fn stable_end(&self) -> i64 {
        self.open_transactions
            .values()
            .copied()
            .min()
            .unwrap_or(self.high)
    }

    /// Whether the producer has an open transaction in this partition.
    pub fn has_open_transaction(&self, producer: ProducerId) -> bool {
        self.open_transactions.contains_key(&producer)
    }

    /// Whether the producer may write under that epoch.
    pub fn accepts_epoch(&self, producer: ProducerId, epoch: u32) -> bool {
        self.epochs
            .get(&producer)
            .is_none_or(|known| *known <= epoch)
    }

    /// Appends a record, within the producer's transaction if there is one, and returns its offset.
    pub fn append(
        &mut self,
        time_ms: i64,
        new: NewRecord,
        producer: Option<(ProducerId, u32)>,
    ) -> i64 {
        let offset = self.high;
        let visibility = match producer {
            Some((producer, epoch)) => {
                self.open_transactions.entry(producer).or_insert(offset);
                self.epochs.insert(producer, epoch);
                Visibility::Open(producer)
            }
            None => Visibility::Committed,
        };
        let NewRecord {
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

    /// Appends a marker, which ends the producer's transaction in this partition.
    pub fn append_marker(
        &mut self,
        time_ms: i64,
        producer: ProducerId,
        epoch: u32,
        committed: bool,
    ) {
        self.epochs.insert(producer, epoch);
        if let Some(first) = self.open_transactions.remove(&producer) {
            let end = if committed {
                Visibility::Committed
            } else {
                Visibility::Aborted
            };
            let from = self.index_of(first);
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

    /// At most `max` committed records from `from` on, below the last stable offset, and the next position: the offset
    /// after the last record or, when there are no more records, the last stable offset.
    pub fn committed(&self, partition: Partition, from: i64, max: usize) -> (Vec<Input>, i64) {
        let stable = self.stable_end();
        let mut inputs = Vec::new();
        for entry in &self.entries[self.index_of(from)..] {
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
            if inputs.len() == max {
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

    /// All records, each with whether it is committed.
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

    /// Removes every committed record below the last stable offset that has a later committed record with the same key.
    pub fn compact(&mut self) {
        let stable = self.stable_end();
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

    fn index_of(&self, offset: i64) -> usize {
        self.entries.partition_point(|entry| entry.offset < offset)
    }
}
