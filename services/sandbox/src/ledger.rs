//! A ledger: verdicts on idempotency keys in a durable file, and the index that is folded from them.

mod file;

use std::path::Path;
use std::sync::{Mutex, MutexGuard};

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

/// A line of a ledger: what became of an idempotency key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry<V> {
    pub(crate) key: String,
    /// When it was written, Unix milliseconds; 0 in the oldest ledgers.
    #[serde(default)]
    pub(crate) time_ms: i64,
    #[serde(flatten)]
    pub(crate) verdict: V,
}

/// The verdict on a key, and whether it is a new one that has to be written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decision<V> {
    Known(V),
    New(V),
}

/// What a ledger's entries amount to.
pub(crate) trait Index: Default + Send + 'static {
    /// What can become of a key.
    type Verdict: Clone + Serialize + DeserializeOwned + Send + 'static;

    /// What became of a key.
    fn verdict(&self, key: &str) -> Option<&Self::Verdict>;

    /// Folds an entry into the index.
    fn apply(&mut self, entry: Entry<Self::Verdict>);
}

/// A ledger, open.
///
/// Decisions are one after the other. An answer is given once every entry that it may rest on is durable: its own, and
/// those that other calls have added but still wait for.
pub(crate) struct Ledger<I: Index> {
    index: Mutex<I>,
    entries: Entries<I::Verdict>,
    clock: Clock,
}

/// Where the entries are kept.
enum Entries<V> {
    File(File),
    /// For as long as the ledger lives.
    Memory(Mutex<Vec<Entry<V>>>),
}

impl<I: Index> Ledger<I> {
    /// Opens the ledger and folds its entries.
    pub(crate) fn open(path: &Path, clock: Clock) -> Result<Self, Error> {
        let mut index = I::default();
        let file = File::open(path, |entry| index.apply(entry))?;
        Ok(Self {
            index: Mutex::new(index),
            entries: Entries::File(file),
            clock,
        })
    }

    /// A new ledger without a file.
    pub(crate) fn in_memory(clock: Clock) -> Self {
        Self {
            index: Mutex::new(I::default()),
            entries: Entries::Memory(Mutex::default()),
            clock,
        }
    }

    /// The entries of a ledger without a file; none of another.
    pub(crate) fn remembered(&self) -> Vec<Entry<I::Verdict>> {
        match &self.entries {
            Entries::File(_) => Vec::new(),
            Entries::Memory(entries) => entries
                .lock()
                .expect("nobody panics while holding it")
                .clone(),
        }
    }

    /// Decides on a key with the index in hand, and writes the verdict when it is new.
    ///
    /// # Errors
    ///
    /// That of `decide`, which adds nothing; UNAVAILABLE when the ledger cannot be written.
    pub(crate) async fn decide(
        &self,
        key: String,
        decide: impl FnOnce(&I, &str) -> Result<Decision<I::Verdict>, Status>,
    ) -> Result<I::Verdict, Status> {
        let (verdict, appended) = {
            let mut index = self.index();
            let verdict = match decide(&index, &key)? {
                Decision::Known(verdict) => verdict,
                Decision::New(verdict) => {
                    let entry = Entry {
                        key,
                        time_ms: (self.clock)(),
                        verdict: verdict.clone(),
                    };
                    self.append(&entry).map_err(unavailable)?;
                    index.apply(entry);
                    verdict
                }
            };
            (verdict, self.appended())
        };
        self.durable(appended).await.map_err(unavailable)?;
        Ok(verdict)
    }

    /// What became of a key; `None` when it was never used.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE when the ledger cannot be written.
    pub(crate) async fn look_up(&self, key: &str) -> Result<Option<I::Verdict>, Status> {
        let (verdict, appended) = {
            let index = self.index();
            (index.verdict(key).cloned(), self.appended())
        };
        self.durable(appended).await.map_err(unavailable)?;
        Ok(verdict)
    }

    /// The durable entries in the order in which they were written.
    pub(crate) fn entries(
        &self,
    ) -> impl Stream<Item = Result<Entry<I::Verdict>, Status>> + Send + use<I> {
        let (sender, receiver) = mpsc::channel(READ_AHEAD);
        let file = match &self.entries {
            Entries::File(file) => Ok(file.reader()),
            Entries::Memory(_) => Err(self.remembered()),
        };
        tokio::task::spawn_blocking(move || {
            let reader = match file {
                Ok(reader) => reader,
                Err(remembered) => {
                    for entry in remembered {
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
                let listener_is_gone = sender.blocking_send(entry.map_err(unavailable)).is_err();
                if listener_is_gone {
                    return;
                }
            }
        });
        ReceiverStream::new(receiver)
    }

    /// Writes what is still to be written; nothing can be added afterwards.
    pub(crate) async fn close(&self) {
        if let Entries::File(file) = &self.entries {
            file.close().await;
        }
    }

    fn append(&self, entry: &Entry<I::Verdict>) -> Result<(), Error> {
        match &self.entries {
            Entries::File(file) => file.append(entry),
            Entries::Memory(entries) => {
                let mut entries = entries.lock().expect("nobody panics while holding it");
                entries.push(entry.clone());
                Ok(())
            }
        }
    }

    fn appended(&self) -> u64 {
        match &self.entries {
            Entries::File(file) => file.appended(),
            Entries::Memory(_) => 0,
        }
    }

    async fn durable(&self, length: u64) -> Result<(), Error> {
        match &self.entries {
            Entries::File(file) => file.durable(length).await,
            Entries::Memory(_) => Ok(()),
        }
    }

    fn index(&self) -> MutexGuard<'_, I> {
        self.index.lock().expect("nobody panics while holding it")
    }
}

fn unavailable(error: Error) -> Status {
    tracing::error!(
        error = &error as &dyn std::error::Error,
        "the ledger is out of order"
    );
    Status::unavailable("the ledger is out of order")
}
