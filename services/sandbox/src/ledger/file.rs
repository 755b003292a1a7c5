//! The file of a ledger: one entry in JSON on each line.

use std::path::{Path, PathBuf};
use std::{fs, io, iter};

use append_only_file::{AppendError, LineReader, LockedFile, OpenError, Permit, Writer};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a ledger's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened, read, written or synced.
    #[error("I/O failed")]
    Io(#[source] io::Error),
    /// The file is already open for appending.
    #[error("the file is already open for appending")]
    InUse,
    /// A line before the last is not an entry. A crash cannot cause this: it can only tear the last line.
    #[error("line {line} is not an entry")]
    Damaged {
        /// Counted from 1.
        line: u64,
        /// Why.
        source: serde_json::Error,
    },
    /// An earlier write failed. The content of the file is unknown until it is opened again.
    #[error("an earlier write failed")]
    Failed(#[source] io::Error),
    /// The file is closed.
    #[error("the file is closed")]
    Closed,
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::InUse => Self::InUse,
            OpenError::Io(error) => Self::Io(error),
        }
    }
}

impl From<AppendError> for Error {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Closed => Self::Closed,
            AppendError::Failed(error) => Self::Failed(error),
        }
    }
}

/// The file of an open ledger.
pub(super) struct File {
    path: PathBuf,
    writer: Writer,
}

impl File {
    /// Opens the file, passes its entries to `replay` in order, and cuts off a last line that a crash has torn.
    pub(super) fn open<E: DeserializeOwned>(
        path: &Path,
        replay: impl FnMut(E),
    ) -> Result<Self, Error> {
        let locked = LockedFile::open(path)?;
        let valid_length = replay_entries(&locked, replay)?;
        let torn = locked.length() - valid_length;
        if torn > 0 {
            tracing::warn!(path = %path.display(), bytes = torn, "cut off a torn last line of the ledger");
        }
        let file = locked.append_after(valid_length).map_err(Error::Io)?;
        Ok(Self {
            path: path.into(),
            writer: Writer::start(file, "sandbox-ledger").map_err(Error::Io)?,
        })
    }

    /// Waits for a place for one entry.
    pub(super) async fn reserve(&self) -> Result<Slot<'_>, Error> {
        Ok(Slot(self.writer.reserve().await?))
    }

    /// Length of the file once everything appended so far is written, bytes.
    pub(super) fn appended_length(&self) -> u64 {
        self.writer.appended_length()
    }

    /// Waits until the file is durable up to `length`.
    pub(super) async fn wait_durable(&self, length: u64) -> Result<(), Error> {
        Ok(self.writer.wait_durable(length).await?)
    }

    /// A reader of what is durable now.
    pub(super) fn reader(&self) -> Reader {
        Reader {
            path: self.path.clone(),
            length: self.writer.durable_length(),
        }
    }

    /// Writes the appended entries and closes the file. May be called more than once.
    pub(super) async fn close(&self) {
        self.writer.close().await;
        let groups = self.writer.groups();
        tracing::debug!(path = %self.path.display(), groups, "ledger closed");
    }
}

/// A place for one entry.
pub(super) struct Slot<'a>(Permit<'a>);

impl Slot<'_> {
    /// Appends the entry. It is durable once [`File::wait_durable`] returns.
    pub(super) fn append(self, entry: &impl Serialize) {
        let mut line = serde_json::to_vec(entry).expect("an entry has string keys only");
        line.push(b'\n');
        self.0.append(line);
    }
}

/// Passes the entries to `replay` in order, and returns where they end.
fn replay_entries<E: DeserializeOwned>(
    file: &LockedFile,
    mut replay: impl FnMut(E),
) -> Result<u64, Error> {
    let mut lines = file.lines().map_err(Error::Io)?;
    let mut valid_length = 0;
    while let Some(line) = lines.next_line().map_err(Error::Io)? {
        match serde_json::from_slice(line) {
            Ok(entry) => replay(entry),
            Err(source) => {
                let line = lines.number();
                let last = lines.next_line().map_err(Error::Io)?.is_none()
                    && lines.incomplete().is_empty();
                if last {
                    break;
                }
                return Err(Error::Damaged { line, source });
            }
        }
        valid_length = lines.position();
    }
    Ok(valid_length)
}

/// Reads the durable part of a file.
pub(super) struct Reader {
    path: PathBuf,
    length: u64,
}

impl Reader {
    /// The entries in order. The iterator blocks while it reads the file.
    pub(super) fn entries<E: DeserializeOwned>(
        self,
    ) -> Result<impl Iterator<Item = Result<E, Error>>, Error> {
        let file = fs::File::open(self.path).map_err(Error::Io)?;
        let mut lines = LineReader::new(io::Read::take(file, self.length));
        Ok(iter::from_fn(move || {
            let entry = match lines.next_line() {
                Ok(line) => serde_json::from_slice(line?),
                Err(error) => return Some(Err(Error::Io(error))),
            };
            Some(entry.map_err(|source| Error::Damaged {
                line: lines.number(),
                source,
            }))
        }))
    }
}

#[cfg(test)]
mod tests;
