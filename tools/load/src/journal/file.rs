//! The journal file, open for writing.

use std::io;
use std::path::{Path, PathBuf};

use append_only_file::{AppendError, LockedFile, OpenError, Writer};
use parking_lot::{Mutex, MutexGuard};

use super::lines::{encode, parse_history};
use super::{Error, Fact, History};
use crate::baskets::BasketFile;

/// The journal of one load, open for writing.
pub struct Journal {
    path: PathBuf,
    history: Mutex<History>,
    writer: Writer,
}

impl Journal {
    /// Opens the journal of `baskets`, or creates it. A line that a crash has cut off is removed: its fact was not
    /// durable, so nothing depends on it.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn open(path: &Path, baskets: &BasketFile) -> Result<Self, Error> {
        let io = |source| Error::Io {
            path: path.to_owned(),
            source,
        };
        let locked = LockedFile::open(path).map_err(|error| match error {
            OpenError::InUse => Error::InUse {
                path: path.to_owned(),
            },
            OpenError::Io(source) => io(source),
        })?;
        let lines = locked.lines().map_err(io)?;
        let (history, complete) = parse_history(path, lines, Some(baskets))?;
        let mut file = locked.append_after(complete).map_err(io)?;
        if complete == 0 {
            let header = Fact::File {
                name: baskets.name.clone(),
                sha256: baskets.digest.clone(),
            };
            file.append(&encode(&header)).map_err(io)?;
        }
        Ok(Self {
            path: path.to_owned(),
            history: Mutex::new(history),
            writer: Writer::start(file, "journal").map_err(io)?,
        })
    }

    /// Returns when the facts are durable: they survive a crash of the machine.
    ///
    /// # Errors
    ///
    /// The facts, or facts before them, cannot be written.
    pub async fn record(&self, facts: Vec<Fact>) -> Result<(), Error> {
        let lines = facts.iter().flat_map(encode).collect();
        let appended = self.writer.append(lines).await;
        appended.map_err(|error| Error::Io {
            path: self.path.clone(),
            source: match error {
                AppendError::Failed(source) => source,
                AppendError::Closed => io::Error::other(error),
            },
        })?;
        let mut history = self.history();
        for fact in facts {
            history.apply(fact);
        }
        Ok(())
    }

    /// The facts of the journal so far.
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock()
    }
}

#[cfg(test)]
mod tests;
