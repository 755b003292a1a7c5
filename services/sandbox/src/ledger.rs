//! A ledger: verdicts on idempotency keys in a durable file, and an index in memory that is folded from them.

mod file;

use std::path::Path;

use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

pub(crate) use file::Error;
use file::File;

use crate::Clock;

/// Entries read ahead of a client that lists the ledger.
const READ_AHEAD: usize = 256;

/// A line of a ledger: the verdict on an idempotency key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry<V> {
    pub(crate) key: String,
    /// When it was written, Unix milliseconds; 0 in the oldest ledgers.
    #[serde(default)]
    pub(crate) time_ms: i64,
    #[serde(flatten)]
    pub(crate) verdict: V,
}

/// The verdict on a key: known from the ledger, or new, so that it must be written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decision<V> {
    Known(V),
    New(V),
}

/// The state that is folded from a ledger's entries.
pub(crate) trait Index: Default + Send + 'static {
    /// The result of a request under a key.
    type Verdict: Clone + Serialize + DeserializeOwned + Send + 'static;

    /// The verdict on a key; `None` when the key was never used.
    fn verdict(&self, key: &str) -> Option<&Self::Verdict>;

    /// Folds an entry into the index.
    fn apply(&mut self, entry: Entry<Self::Verdict>);
}

/// An open ledger.
///
/// Decisions are serialised. A verdict is returned once every entry that it may depend on is durable: its own, and
/// those that concurrent calls have appended before.
pub(crate) struct Ledger<I: Index> {
    index: Mutex<I>,
    storage: Storage<I::Verdict>,
    clock: Clock,
}

/// Where the entries are stored.
enum Storage<V> {
    File(File),
    /// Lost when the ledger is dropped.
    Memory(Mutex<Vec<Entry<V>>>),
}

/// A place for one entry.
enum Slot<'a, V> {
    File(file::Slot<'a>),
    Memory(&'a Mutex<Vec<Entry<V>>>),
}

impl<V: Clone + Serialize> Slot<'_, V> {
    fn append(self, entry: &Entry<V>) {
        match self {
            Self::File(slot) => slot.append(entry),
            Self::Memory(entries) => entries.lock().push(entry.clone()),
        }
    }
}

impl<I: Index> Ledger<I> {
    /// Opens the ledger and folds its entries.
    pub(crate) fn open(path: &Path, clock: Clock) -> Result<Self, Error> {
        let mut index = I::default();
        let file = File::open(path, |entry| index.apply(entry))?;
        Ok(Self {
            index: Mutex::new(index),
            storage: Storage::File(file),
            clock,
        })
    }

    /// A new ledger without a file.
    pub(crate) fn in_memory(clock: Clock) -> Self {
        Self {
            index: Mutex::new(I::default()),
            storage: Storage::Memory(Mutex::default()),
            clock,
        }
    }

    /// The entries of a ledger in memory; empty when the ledger is a file.
    pub(crate) fn in_memory_entries(&self) -> Vec<Entry<I::Verdict>> {
        match &self.storage {
            Storage::File(_) => Vec::new(),
            Storage::Memory(entries) => entries.lock().clone(),
        }
    }

    /// Decides on a key while it holds the index, and writes the verdict when it is new.
    ///
    /// # Errors
    ///
    /// The error of `decide`, in which case nothing is written; UNAVAILABLE when the ledger cannot be written.
    pub(crate) async fn decide(
        &self,
        key: String,
        decide: impl FnOnce(&I, &str) -> Result<Decision<I::Verdict>, Status>,
    ) -> Result<I::Verdict, Status> {
        // A known verdict needs no slot: it is returned although the file is closed.
        let slot = self.reserve().await;
        let (verdict, length) = self.decide_locked(slot, key, decide)?;
        self.wait_durable(length).await.map_err(unavailable)?;
        Ok(verdict)
    }

    /// The verdict, and the length of the file with every entry that it may depend on.
    fn decide_locked(
        &self,
        slot: Result<Slot<'_, I::Verdict>, Error>,
        key: String,
        decide: impl FnOnce(&I, &str) -> Result<Decision<I::Verdict>, Status>,
    ) -> Result<(I::Verdict, u64), Status> {
        let mut index = self.index.lock();
        let verdict = match decide(&index, &key)? {
            Decision::Known(verdict) => verdict,
            Decision::New(verdict) => {
                let slot = slot.map_err(unavailable)?;
                let entry = Entry {
                    key,
                    time_ms: (self.clock)(),
                    verdict: verdict.clone(),
                };
                slot.append(&entry);
                index.apply(entry);
                verdict
            }
        };
        Ok((verdict, self.appended_length()))
    }

    /// The verdict on a key; `None` when the key was never used.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE when the ledger cannot be written.
    pub(crate) async fn lookup(&self, key: &str) -> Result<Option<I::Verdict>, Status> {
        let (verdict, length) = {
            let index = self.index.lock();
            (index.verdict(key).cloned(), self.appended_length())
        };
        self.wait_durable(length).await.map_err(unavailable)?;
        Ok(verdict)
    }

    /// The durable entries in the order in which they were written.
    pub(crate) fn entries(
        &self,
    ) -> impl Stream<Item = Result<Entry<I::Verdict>, Status>> + Send + use<I> {
        let (sender, receiver) = mpsc::channel(READ_AHEAD);
        let file = match &self.storage {
            Storage::File(file) => Ok(file.reader()),
            Storage::Memory(_) => Err(self.in_memory_entries()),
        };
        tokio::task::spawn_blocking(move || {
            let reader = match file {
                Ok(reader) => reader,
                Err(entries) => {
                    for entry in entries {
                        if sender.blocking_send(Ok(entry)).is_err() {
                            return;
                        }
                    }
                    return;
                }
            };
            let entries = match reader.entries() {
                Ok(entries) => entries,
                Err(error) => return drop(sender.blocking_send(Err(unavailable(error)))),
            };
            for entry in entries {
                let receiver_dropped = sender.blocking_send(entry.map_err(unavailable)).is_err();
                if receiver_dropped {
                    return;
                }
            }
        });
        ReceiverStream::new(receiver)
    }

    /// Writes the appended entries. Nothing can be appended afterwards.
    pub(crate) async fn close(&self) {
        if let Storage::File(file) = &self.storage {
            file.close().await;
        }
    }

    async fn reserve(&self) -> Result<Slot<'_, I::Verdict>, Error> {
        Ok(match &self.storage {
            Storage::File(file) => Slot::File(file.reserve().await?),
            Storage::Memory(entries) => Slot::Memory(entries),
        })
    }

    fn appended_length(&self) -> u64 {
        match &self.storage {
            Storage::File(file) => file.appended_length(),
            Storage::Memory(_) => 0,
        }
    }

    async fn wait_durable(&self, length: u64) -> Result<(), Error> {
        match &self.storage {
            Storage::File(file) => file.wait_durable(length).await,
            Storage::Memory(_) => Ok(()),
        }
    }
}

fn unavailable(error: Error) -> Status {
    tracing::error!(
        error = &error as &dyn std::error::Error,
        "the ledger failed"
    );
    Status::unavailable("the ledger failed")
}
