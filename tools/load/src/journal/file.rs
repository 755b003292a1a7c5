//! The journal file, open for writing. A thread writes and syncs it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{mpsc, oneshot};

use super::lines::{encode, parse_history};
use super::{Error, Fact, History};
use crate::baskets::BasketFile;

/// Write requests that share one flush at most.
const MAX_BATCH: usize = 1_000;

/// The journal of one load, open for writing.
pub struct Journal {
    path: PathBuf,
    history: Mutex<History>,
    writer: mpsc::UnboundedSender<WriteRequest>,
}

struct WriteRequest {
    lines: Vec<u8>,
    written: oneshot::Sender<io::Result<()>>,
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
        let (history, complete) = parse_history(path, &bytes, Some(baskets))?;
        file.set_len(complete).map_err(io)?;
        file.seek(SeekFrom::End(0)).map_err(io)?;
        if complete == 0 {
            let header = Fact::File {
                name: baskets.name.clone(),
                sha256: baskets.digest.clone(),
            };
            file.write_all(&encode(&header)).map_err(io)?;
            file.sync_data().map_err(io)?;
        }
        let (writer, requests) = mpsc::unbounded_channel();
        std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || run_writer(&mut file, requests))
            .map_err(io)?;
        Ok(Self {
            path: path.to_owned(),
            history: Mutex::new(history),
            writer,
        })
    }

    /// Returns when the facts are durable: they survive a crash of the machine.
    ///
    /// # Errors
    ///
    /// The facts cannot be written.
    pub async fn record(&self, facts: Vec<Fact>) -> Result<(), Error> {
        let io = |source| Error::Io {
            path: self.path.clone(),
            source,
        };
        let (written, done) = oneshot::channel();
        let request = WriteRequest {
            lines: facts.iter().flat_map(encode).collect(),
            written,
        };
        let gone = || io(io::Error::other("the writer thread has ended"));
        self.writer.send(request).map_err(|_| gone())?;
        done.await.map_err(|_| gone())?.map_err(io)?;
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

/// Writes all waiting requests and flushes once: one disk flush serves many baskets.
fn run_writer(file: &mut File, mut requests: mpsc::UnboundedReceiver<WriteRequest>) {
    let mut batch = Vec::new();
    while requests.blocking_recv_many(&mut batch, MAX_BATCH) > 0 {
        let lines: Vec<u8> = batch
            .iter()
            .flat_map(|request| &request.lines)
            .copied()
            .collect();
        let result = file.write_all(&lines).and_then(|()| file.sync_data());
        for request in batch.drain(..) {
            let copy = match &result {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            };
            // An interrupted caller no longer waits for the result.
            let _ = request.written.send(copy);
        }
    }
}
