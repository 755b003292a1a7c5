//! An append-only file of JSON lines with group commit.
//!
//! Whoever appends leaves its line in a buffer and waits. One thread takes the buffer, writes it and syncs it; the
//! lines that arrive meanwhile are the next group. So the disk is synced once for all calls that wait, however many.

use std::fs::{self, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// What can go wrong with a ledger's file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened, read, written or synced.
    #[error("input or output failed")]
    Io(#[source] io::Error),
    /// Another process has the file open.
    #[error("another process has it open")]
    InUse,
    /// A line before the last is no entry: this is not the mark of a crash.
    #[error("line {line} is no entry")]
    Damaged {
        /// Counted from 1.
        line: u64,
        /// Why.
        source: serde_json::Error,
    },
    /// An earlier write failed, so that nobody knows what the file holds until it is opened anew.
    #[error("an earlier write failed")]
    Failed,
    /// The file is closed.
    #[error("it is closed")]
    Closed,
}

/// An append-only file of JSON lines.
pub(super) struct File {
    path: PathBuf,
    queue: Arc<Queue>,
    durable: watch::Receiver<Durable>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// Lines that wait for the writer.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    /// Whole lines.
    lines: Vec<u8>,
    /// Length of the file once `lines` and all before are written, bytes.
    appended: u64,
    state: State,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    Closed,
    Failed,
}

/// How far the file is safe from a crash.
#[derive(Clone, Copy)]
struct Durable {
    /// Bytes from the start of the file.
    length: u64,
    /// Syncs so far.
    groups: u64,
}

impl File {
    /// Opens the file, hands its entries to `replay` in order, and cuts off a line that a crash has torn.
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

        let queue = Arc::new(Queue::default());
        queue.lock().appended = length;
        let (sender, durable) = watch::channel(Durable { length, groups: 0 });
        let writer = thread::Builder::new()
            .name("sandbox-ledger".into())
            .spawn({
                let queue = Arc::clone(&queue);
                move || queue.write(file, sender)
            })
            .map_err(Error::Io)?;
        Ok(Self {
            path: path.into(),
            queue,
            durable,
            writer: Mutex::new(Some(writer)),
        })
    }

    /// Leaves an entry for the writer. It is durable once [`File::durable`] says so.
    pub(super) fn append(&self, entry: &impl Serialize) -> Result<(), Error> {
        let mut line = serde_json::to_vec(entry).expect("an entry has string keys only");
        line.push(b'\n');
        let mut waiting = self.queue.lock();
        match waiting.state {
            State::Open => {}
            State::Closed => return Err(Error::Closed),
            State::Failed => return Err(Error::Failed),
        }
        waiting.lines.extend_from_slice(&line);
        waiting.appended += line.len() as u64;
        self.queue.changed.notify_one();
        Ok(())
    }

    /// Length of the file once everything appended so far is written, bytes.
    pub(super) fn appended(&self) -> u64 {
        self.queue.lock().appended
    }

    /// Waits until the file is durable up to `length`.
    pub(super) async fn durable(&self, length: u64) -> Result<(), Error> {
        let mut durable = self.durable.clone();
        let reached = durable.wait_for(|durable| durable.length >= length).await;
        // The writer has ended, so that it is never reached.
        reached.map(drop).map_err(|_| Error::Failed)
    }

    /// What is durable now, to be read.
    pub(super) fn reader(&self) -> Reader {
        Reader {
            path: self.path.clone(),
            length: self.durable.borrow().length,
        }
    }

    /// Writes what is left and ends the writer. Harmless when done twice.
    pub(super) async fn close(&self) {
        let Some(writer) = self.end() else { return };
        let ended = tokio::task::spawn_blocking(|| writer.join()).await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::error!(path = %self.path.display(), "the ledger's writer panicked");
        }
        let groups = self.durable.borrow().groups;
        tracing::debug!(path = %self.path.display(), groups, "ledger closed");
    }

    /// Asks the writer to end; `None` when somebody else has done so.
    fn end(&self) -> Option<JoinHandle<()>> {
        let mut waiting = self.queue.lock();
        if waiting.state == State::Open {
            waiting.state = State::Closed;
        }
        self.queue.changed.notify_one();
        drop(waiting);
        self.writer
            .lock()
            .expect("nobody panics while holding it")
            .take()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if let Some(writer) = self.end()
            && writer.join().is_err()
        {
            tracing::error!(path = %self.path.display(), "the ledger's writer panicked");
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("nobody panics while holding it")
    }

    /// The writer's life: ends when the queue is closed and empty, or by the first failure.
    fn write(&self, mut file: fs::File, durable: watch::Sender<Durable>) {
        let mut group = Vec::new();
        while let Some(length) = self.next_group(&mut group) {
            if let Err(error) = file.write_all(&group).and_then(|()| file.sync_data()) {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "cannot write the ledger"
                );
                self.lock().state = State::Failed;
                return;
            }
            group.clear();
            durable.send_modify(|durable| {
                durable.length = length;
                durable.groups += 1;
            });
        }
    }

    /// Waits for lines, swaps them into the empty `group` and tells the file's length after them; `None` at the end.
    fn next_group(&self, group: &mut Vec<u8>) -> Option<u64> {
        let idle = |waiting: &mut Waiting| waiting.lines.is_empty() && waiting.state == State::Open;
        let mut waiting = self
            .changed
            .wait_while(self.lock(), idle)
            .expect("nobody panics while holding it");
        if waiting.lines.is_empty() {
            return None;
        }
        std::mem::swap(&mut waiting.lines, group);
        Some(waiting.appended)
    }
}

/// Reads the entries, cuts off a torn last line and leaves the file at its end; tells its length.
fn recover<E: DeserializeOwned>(
    file: &mut fs::File,
    path: &Path,
    mut replay: impl FnMut(E),
) -> Result<u64, Error> {
    let mut lines = BufReader::new(&*file);
    let mut line = Vec::new();
    let (mut whole, mut number) = (0_u64, 0_u64);
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
        whole += read;
    };
    if torn > 0 {
        tracing::warn!(path = %path.display(), bytes = torn, "cut off a torn last line of the ledger");
        file.set_len(whole)
            .and_then(|()| file.sync_all())
            .map_err(Error::Io)?;
    }
    file.seek(SeekFrom::Start(whole)).map_err(Error::Io)?;
    Ok(whole)
}

/// A new file is safe only when its folder is.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// The durable part of a file, to be read.
pub(super) struct Reader {
    path: PathBuf,
    length: u64,
}

impl Reader {
    /// The entries in order. Reads as it goes, so it blocks.
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
