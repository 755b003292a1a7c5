//! An append-only file of JSON lines with group commit.
//!
//! A call appends its line to a buffer and waits. One writer thread takes the buffer, writes it and syncs the file;
//! lines that arrive meanwhile form the next group. One sync therefore serves all waiting calls.

use std::fs::{self, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// Why a ledger's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened, read, written or synced.
    #[error("I/O failed")]
    Io(#[source] io::Error),
    /// Another process has the file open.
    #[error("another process has the file open")]
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
    Failed,
    /// The file is closed.
    #[error("the file is closed")]
    Closed,
}

/// An append-only file of JSON lines.
pub(super) struct File {
    path: PathBuf,
    buffer: Arc<WriteBuffer>,
    durable: watch::Receiver<DurableProgress>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// The lines that the writer has not taken yet.
#[derive(Default)]
struct WriteBuffer {
    pending: Mutex<Pending>,
    changed: Condvar,
}

#[derive(Default)]
struct Pending {
    /// Complete lines.
    lines: Vec<u8>,
    /// Length of the file once `lines` and all earlier lines are written, bytes.
    appended_length: u64,
    state: State,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    Closed,
    Failed,
}

/// How much of the file is synced to the disk.
#[derive(Clone, Copy)]
struct DurableProgress {
    /// Bytes from the start of the file.
    length: u64,
    /// Number of groups written, one sync each.
    groups: u64,
}

impl File {
    /// Opens the file, passes its entries to `replay` in order, and cuts off a last line that a crash has torn.
    pub(super) fn open<E: DeserializeOwned>(
        path: &Path,
        replay: impl FnMut(E),
    ) -> Result<Self, Error> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(Error::Io)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Error::InUse,
            TryLockError::Error(error) => Error::Io(error),
        })?;
        let length = recover(&mut file, path, replay)?;
        sync_folder(path).map_err(Error::Io)?;

        let buffer = Arc::new(WriteBuffer::default());
        buffer.pending.lock().appended_length = length;
        let (sender, durable) = watch::channel(DurableProgress { length, groups: 0 });
        let writer = thread::Builder::new()
            .name("sandbox-ledger".into())
            .spawn({
                let buffer = Arc::clone(&buffer);
                move || buffer.run_writer(file, sender)
            })
            .map_err(Error::Io)?;
        Ok(Self {
            path: path.into(),
            buffer,
            durable,
            writer: Mutex::new(Some(writer)),
        })
    }

    /// Appends an entry to the buffer. It is durable once [`File::wait_durable`] returns.
    pub(super) fn append(&self, entry: &impl Serialize) -> Result<(), Error> {
        let mut line = serde_json::to_vec(entry).expect("an entry has string keys only");
        line.push(b'\n');
        let mut pending = self.buffer.pending.lock();
        match pending.state {
            State::Open => {}
            State::Closed => return Err(Error::Closed),
            State::Failed => return Err(Error::Failed),
        }
        pending.lines.extend_from_slice(&line);
        pending.appended_length += line.len() as u64;
        self.buffer.changed.notify_one();
        Ok(())
    }

    /// Length of the file once everything appended so far is written, bytes.
    pub(super) fn appended_length(&self) -> u64 {
        self.buffer.pending.lock().appended_length
    }

    /// Waits until the file is durable up to `length`.
    pub(super) async fn wait_durable(&self, length: u64) -> Result<(), Error> {
        let mut durable = self.durable.clone();
        let reached = durable.wait_for(|durable| durable.length >= length).await;
        // The sender is dropped when the writer ends: `length` is never reached.
        reached.map(drop).map_err(|_| Error::Failed)
    }

    /// A reader of what is durable now.
    pub(super) fn reader(&self) -> Reader {
        Reader {
            path: self.path.clone(),
            length: self.durable.borrow().length,
        }
    }

    /// Writes the buffered lines and stops the writer. May be called more than once.
    pub(super) async fn close(&self) {
        let Some(writer) = self.stop_writer() else {
            return;
        };
        let ended = tokio::task::spawn_blocking(|| writer.join()).await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::error!(path = %self.path.display(), "the ledger's writer panicked");
        }
        let groups = self.durable.borrow().groups;
        tracing::debug!(path = %self.path.display(), groups, "ledger closed");
    }

    /// Asks the writer to stop and returns its thread; `None` when an earlier call has taken it.
    fn stop_writer(&self) -> Option<JoinHandle<()>> {
        let mut pending = self.buffer.pending.lock();
        if pending.state == State::Open {
            pending.state = State::Closed;
        }
        self.buffer.changed.notify_one();
        drop(pending);
        self.writer.lock().take()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if let Some(writer) = self.stop_writer()
            && writer.join().is_err()
        {
            tracing::error!(path = %self.path.display(), "the ledger's writer panicked");
        }
    }
}

impl WriteBuffer {
    /// The loop of the writer thread. Returns when the file is closed and the buffer empty, or after the first failure.
    fn run_writer(&self, mut file: fs::File, durable: watch::Sender<DurableProgress>) {
        let mut group = Vec::new();
        while let Some(length) = self.next_group(&mut group) {
            if let Err(error) = file.write_all(&group).and_then(|()| file.sync_data()) {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "cannot write the ledger"
                );
                self.pending.lock().state = State::Failed;
                return;
            }
            group.clear();
            durable.send_modify(|durable| {
                durable.length = length;
                durable.groups += 1;
            });
        }
    }

    /// Waits for lines, swaps them into the empty `group` and returns the file's length after them; `None` once the
    /// file is closed and every line taken.
    fn next_group(&self, group: &mut Vec<u8>) -> Option<u64> {
        let idle = |pending: &mut Pending| pending.lines.is_empty() && pending.state == State::Open;
        let mut pending = self.pending.lock();
        self.changed.wait_while(&mut pending, idle);
        if pending.lines.is_empty() {
            return None;
        }
        std::mem::swap(&mut pending.lines, group);
        Some(pending.appended_length)
    }
}

/// Reads the entries, cuts off a torn last line, seeks to the end and returns the length of the file.
fn recover<E: DeserializeOwned>(
    file: &mut fs::File,
    path: &Path,
    mut replay: impl FnMut(E),
) -> Result<u64, Error> {
    let mut lines = BufReader::new(&*file);
    let mut line = Vec::new();
    let (mut valid_length, mut number) = (0_u64, 0_u64);
    let torn = loop {
        line.clear();
        let read = lines.read_until(b'\n', &mut line).map_err(Error::Io)? as u64;
        if read == 0 {
            break 0;
        }
        number += 1;
        if !line.ends_with(b"\n") {
            break read;
        }
        match serde_json::from_slice(&line) {
            Ok(entry) => replay(entry),
            Err(_) if lines.fill_buf().map_err(Error::Io)?.is_empty() => break read,
            Err(source) => {
                return Err(Error::Damaged {
                    line: number,
                    source,
                });
            }
        }
        valid_length += read;
    };
    if torn > 0 {
        tracing::warn!(path = %path.display(), bytes = torn, "cut off a torn last line of the ledger");
        file.set_len(valid_length)
            .and_then(|()| file.sync_all())
            .map_err(Error::Io)?;
    }
    file.seek(SeekFrom::Start(valid_length))
        .map_err(Error::Io)?;
    Ok(valid_length)
}

/// Syncs the folder: a new file survives a crash only when its directory entry does.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
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
        let lines = BufReader::new(file.take(self.length)).lines();
        Ok(lines.zip(1..).map(|(line, number)| {
            let line = line.map_err(Error::Io)?;
            serde_json::from_str(&line).map_err(|source| Error::Damaged {
                line: number,
                source,
            })
        }))
    }
}

#[cfg(test)]
mod tests;
