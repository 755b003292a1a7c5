//! What has become of every basket, in a file that survives the loader: it is written before a basket is first sent,
//! so that a basket is never placed under two ids.

mod notes;

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::baskets::BasketFile;

pub use notes::read as notes;

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read or written.
    #[error("journal {path}", path = path.display())]
    Io {
        /// The journal.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another loader is at work with it.
    #[error("journal {path} is in use by another load", path = path.display())]
    InUse {
        /// The journal.
        path: PathBuf,
    },
    /// It belongs to another file of baskets.
    #[error("journal {path} is that of another file, {other}; name another --journal", path = path.display())]
    Foreign {
        /// The journal.
        path: PathBuf,
        /// Name of the file that it belongs to.
        other: String,
    },
    /// A line of it is none.
    #[error("{path}:{line}: not a line of a journal", path = path.display())]
    Garbage {
        /// The journal.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
}

impl Error {
    /// Whether it was the wrong file to name.
    pub const fn is_input(&self) -> bool {
        matches!(self, Self::Foreign { .. } | Self::Garbage { .. })
    }
}

/// Something that is known from now on. `basket` is the basket's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum Fact {
    /// Whose journal it is; the first line.
    File {
        /// Name of the file of baskets.
        name: String,
        /// Digest of its bytes, hexadecimal.
        sha256: String,
    },
    /// The basket is sent under this order id from now on.
    Chosen {
        /// The basket.
        basket: String,
        /// The order id.
        order_id: Uuid,
    },
    /// The API has refused a line: the basket goes without it.
    LineRefused {
        /// The basket.
        basket: String,
        /// The line's number in the file, from 1.
        line: u64,
        /// The product.
        sku: String,
        /// Why.
        reason: String,
    },
    /// The basket is an order.
    Acknowledged {
        /// The basket.
        basket: String,
        /// The order id.
        order_id: Uuid,
        /// The order's status in the answer.
        status: String,
        /// The order's version in the answer.
        version: u64,
        /// Lines of the order.
        lines: usize,
        /// Total of the order, in minor units.
        cents: i64,
    },
    /// The basket is no order and will be none.
    Refused {
        /// The basket.
        basket: String,
        /// Why.
        reason: String,
    },
    /// A reader saw an order in this version.
    Read {
        /// Name of the reader.
        reader: String,
        /// The order.
        order_id: Uuid,
        /// The version.
        version: u64,
    },
}

/// What is known of a basket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// Under which it was or will be sent.
    pub order_id: Option<Uuid>,
    /// By line of the file: why it was refused.
    pub refused_lines: BTreeMap<u64, String>,
    /// How it ended; `None` while no answer has come.
    pub end: Option<End>,
}

/// How a basket ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// As an order.
    Acknowledged {
        /// Lines of the order.
        lines: usize,
        /// Total of the order.
        cents: i64,
    },
    /// As none.
    Refused {
        /// Why.
        reason: String,
    },
}

/// What is known of all baskets, by their ids.
#[derive(Clone, Debug, Default)]
pub struct History {
    baskets: HashMap<String, Past>,
}

impl History {
    /// What is known of a basket.
    pub fn of(&self, basket: &str) -> Past {
        self.baskets.get(basket).cloned().unwrap_or_default()
    }

    /// Every order that was acknowledged: its id, its lines, its cents.
    pub fn acknowledged(&self) -> impl Iterator<Item = (Uuid, usize, i64)> {
        self.baskets
            .values()
            .filter_map(|past| match (past.order_id, &past.end) {
                (Some(order_id), Some(End::Acknowledged { lines, cents })) => {
                    Some((order_id, *lines, *cents))
                }
                _ => None,
            })
    }

    fn apply(&mut self, fact: Fact) {
        match fact {
            Fact::File { .. } | Fact::Read { .. } => {}
            Fact::Chosen { basket, order_id } => {
                self.baskets.entry(basket).or_default().order_id = Some(order_id);
            }
            Fact::LineRefused {
                basket,
                line,
                reason,
                ..
            } => {
                self.baskets
                    .entry(basket)
                    .or_default()
                    .refused_lines
                    .insert(line, reason);
            }
            Fact::Acknowledged {
                basket,
                order_id,
                lines,
                cents,
                ..
            } => {
                let past = self.baskets.entry(basket).or_default();
                past.order_id = Some(order_id);
                past.end = Some(End::Acknowledged { lines, cents });
            }
            Fact::Refused { basket, reason } => {
                self.baskets.entry(basket).or_default().end = Some(End::Refused { reason });
            }
        }
    }
}

/// The journal of one load, open for writing.
pub struct Journal {
    path: PathBuf,
    history: Mutex<History>,
    writer: mpsc::UnboundedSender<Entry>,
}

struct Entry {
    lines: Vec<u8>,
    written: oneshot::Sender<io::Result<()>>,
}

impl Journal {
    /// Opens the journal of `baskets`, or begins one. A line that a crash has cut off is taken away: what it said was
    /// not relied on yet.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn open(path: &Path, baskets: &BasketFile) -> Result<Self, Error> {
        let io = |source| Error::Io {
            path: path.to_owned(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::InUse {
                    path: path.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io)?;
        let (history, whole) = read(path, &bytes, Some(baskets))?;
        file.set_len(whole).map_err(io)?;
        file.seek(SeekFrom::End(0)).map_err(io)?;
        if whole == 0 {
            let header = Fact::File {
                name: baskets.name.clone(),
                sha256: baskets.digest.clone(),
            };
            file.write_all(&line(&header)).map_err(io)?;
            file.sync_data().map_err(io)?;
        }
        let (writer, entries) = mpsc::unbounded_channel();
        std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || write(&mut file, entries))
            .map_err(io)?;
        Ok(Self {
            path: path.to_owned(),
            history: Mutex::new(history),
            writer,
        })
    }

    /// Comes back when the facts would survive a crash of the machine.
    ///
    /// # Errors
    ///
    /// They cannot be written.
    pub async fn record(&self, facts: Vec<Fact>) -> Result<(), Error> {
        let io = |source| Error::Io {
            path: self.path.clone(),
            source,
        };
        let (written, done) = oneshot::channel();
        let entry = Entry {
            lines: facts.iter().flat_map(line).collect(),
            written,
        };
        let gone = || io(io::Error::other("its writer has ended"));
        self.writer.send(entry).map_err(|_| gone())?;
        done.await.map_err(|_| gone())?.map_err(io)?;
        let mut history = self.history();
        for fact in facts {
            history.apply(fact);
        }
        Ok(())
    }

    /// What is known now.
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("nobody panics while holding it")
    }
}

/// What a journal says, whatever file it belongs to.
///
/// # Errors
///
/// See [`Error`].
pub fn history(path: &Path) -> Result<History, Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
    })?;
    Ok(read(path, &bytes, None)?.0)
}

/// Every fact of a journal, in the order in which it became known.
///
/// # Errors
///
/// See [`Error`].
pub fn facts(path: &Path) -> Result<Vec<Fact>, Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
    })?;
    let mut facts = Vec::new();
    read_each(path, &bytes, None, |fact| facts.push(fact))?;
    Ok(facts)
}

fn line(fact: &Fact) -> Vec<u8> {
    let mut line = serde_json::to_vec(fact).expect("facts are plain data");
    line.push(b'\n');
    line
}

/// The facts, and the length of the lines that are whole.
fn read(path: &Path, bytes: &[u8], baskets: Option<&BasketFile>) -> Result<(History, u64), Error> {
    let mut history = History::default();
    let whole = read_each(path, bytes, baskets, |fact| history.apply(fact))?;
    Ok((history, whole))
}

/// Hands over each fact; the length of the lines that are whole.
fn read_each(
    path: &Path,
    bytes: &[u8],
    baskets: Option<&BasketFile>,
    mut each: impl FnMut(Fact),
) -> Result<u64, Error> {
    let whole = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    for (index, text) in bytes[..whole]
        .split_inclusive(|byte| *byte == b'\n')
        .enumerate()
    {
        let garbage = || Error::Garbage {
            path: path.to_owned(),
            line: index + 1,
        };
        let fact: Fact = serde_json::from_slice(text).map_err(|_| garbage())?;
        match (&fact, index, baskets) {
            (Fact::File { name, sha256 }, 0, Some(baskets)) if *sha256 != baskets.digest => {
                return Err(Error::Foreign {
                    path: path.to_owned(),
                    other: name.clone(),
                });
            }
            (Fact::File { .. }, 0, _) => {}
            (Fact::File { .. }, ..) | (_, 0, _) => return Err(garbage()),
            _ => {}
        }
        each(fact);
    }
    // Something else than a journal, and not one that broke off in its very first line.
    if whole == 0 && !bytes.is_empty() && !bytes.starts_with(b"{") {
        return Err(Error::Garbage {
            path: path.to_owned(),
            line: 1,
        });
    }
    Ok(whole as u64)
}

/// Everything that waits is written and made durable at once: one disk flush serves many baskets.
fn write(file: &mut File, mut entries: mpsc::UnboundedReceiver<Entry>) {
    const MOST: usize = 1_000;
    let mut batch = Vec::new();
    while entries.blocking_recv_many(&mut batch, MOST) > 0 {
        let lines: Vec<u8> = batch
            .iter()
            .flat_map(|entry| &entry.lines)
            .copied()
            .collect();
        let result = file.write_all(&lines).and_then(|()| file.sync_data());
        for entry in batch.drain(..) {
            let copy = match &result {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            };
            // Who no longer waits has been interrupted.
            let _ = entry.written.send(copy);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baskets(text: &str) -> BasketFile {
        let header = "basket_id,customer_id,sku,description,quantity,amount_cents\n";
        BasketFile::parse("b.csv", format!("{header}{text}").as_bytes()).unwrap()
    }

    fn chosen(basket: &str, order_id: Uuid) -> Fact {
        Fact::Chosen {
            basket: basket.into(),
            order_id,
        }
    }

    fn acknowledged(basket: &str, order_id: Uuid) -> Fact {
        Fact::Acknowledged {
            basket: basket.into(),
            order_id,
            status: "pending".into(),
            version: 1,
            lines: 1,
            cents: 7,
        }
    }

    #[tokio::test]
    async fn what_was_recorded_is_known_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let file = baskets("1,c,s,d,1,7\n");
        let (first, second, third) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
        let journal = Journal::open(&path, &file).unwrap();
        journal.record(vec![chosen("1", first)]).await.unwrap();
        journal
            .record(vec![acknowledged("1", first)])
            .await
            .unwrap();
        let refusal = Fact::LineRefused {
            basket: "2".into(),
            line: 9,
            sku: "s".into(),
            reason: "no".into(),
        };
        journal
            .record(vec![chosen("2", second), refusal])
            .await
            .unwrap();
        // The answer was that the first id is stale and unknown.
        journal
            .record(vec![chosen("3", first), chosen("3", third)])
            .await
            .unwrap();
        let refused = Fact::Refused {
            basket: "4".into(),
            reason: "no line".into(),
        };
        journal.record(vec![refused]).await.unwrap();

        assert!(matches!(
            Journal::open(&path, &file),
            Err(Error::InUse { .. })
        ));
        drop(journal);

        let known = history(&path).unwrap();
        assert_eq!(
            known.of("1").end,
            Some(End::Acknowledged { lines: 1, cents: 7 })
        );
        let unanswered = Past {
            order_id: Some(second),
            refused_lines: [(9, "no".to_owned())].into(),
            end: None,
        };
        assert_eq!(known.of("2"), unanswered);
        assert_eq!(known.of("3").order_id, Some(third));
        assert_eq!(
            known.of("4").end,
            Some(End::Refused {
                reason: "no line".into()
            })
        );
        assert_eq!(known.of("5"), Past::default());
        assert_eq!(known.acknowledged().collect::<Vec<_>>(), [(first, 1, 7)]);
    }

    #[tokio::test]
    async fn a_line_that_was_cut_off_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let file = baskets("1,c,s,d,1,7\n");
        let order_id = Uuid::now_v7();
        let header = line(&Fact::File {
            name: file.name.clone(),
            sha256: file.digest.clone(),
        });
        let fact = line(&chosen("1", order_id));
        // Whatever was written before the crash.
        for cut in 0..=header.len() + fact.len() {
            let written = [header.as_slice(), &fact].concat()[..cut].to_vec();
            std::fs::write(&path, &written).unwrap();
            let journal = open_when_free(&path, &file);
            let known = journal.history().of("1").order_id;
            assert_eq!(
                known,
                (cut == header.len() + fact.len()).then_some(order_id)
            );
            journal.record(vec![chosen("2", order_id)]).await.unwrap();
            drop(journal);
            assert_eq!(history(&path).unwrap().of("2").order_id, Some(order_id));
        }
    }

    /// The lock goes with the writer's thread, a moment after the journal.
    fn open_when_free(path: &Path, file: &BasketFile) -> Journal {
        loop {
            match Journal::open(path, file) {
                Err(Error::InUse { .. }) => std::thread::yield_now(),
                opened => return opened.unwrap(),
            }
        }
    }

    #[test]
    fn the_journal_of_another_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (ours, other) = (baskets("1,c,s,d,1,7\n"), baskets("1,c,s,d,1,8\n"));
        drop(Journal::open(&path, &other).unwrap());
        std::fs::copy(&path, folder.path().join("copy")).unwrap();
        let error = Journal::open(&folder.path().join("copy"), &ours)
            .err()
            .expect("it is not ours");
        assert!(
            error.is_input() && error.to_string().contains("another file, b.csv"),
            "{error}"
        );

        for (text, line) in [("basket_id,sku\n1,2\n", 1), ("x", 1)] {
            std::fs::write(&path, text).unwrap();
            let error = history(&path).expect_err("it is no journal");
            assert!(
                error.is_input() && error.to_string().contains(&format!(":{line}:")),
                "{error}"
            );
        }
    }
}
