//! Group commit: a thread takes the lines of all callers that wait, appends them and syncs the file once. Lines that
//! arrive meanwhile form the next group.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::AppendOnlyFile;

/// Maximum of the queued appends, and of the appends in one group.
const QUEUE: usize = 1_024;

/// Why lines were not appended, or are not durable.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The writer is closed.
    #[error("the file is closed")]
    Closed,
    /// The file cannot be written or synced. All later appends fail as well, until it is opened again.
    #[error("a write failed")]
    Failed(#[source] io::Error),
}

/// Appends the lines of concurrent callers, in the order of the calls. After the first failure every call fails.
///
/// When it is dropped, it writes what was appended and unlocks the file; it blocks meanwhile.
#[derive(Debug)]
pub struct Writer {
    queue: Mutex<Queue>,
    durable: watch::Receiver<Durable>,
    /// `None` only during drop.
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Queue {
    /// `None` once the writer is closed.
    sender: Option<mpsc::Sender<Vec<u8>>>,
    /// Length of the file once everything appended so far is written, bytes.
    appended_length: u64,
}

/// How much of the file is durable.
#[derive(Debug)]
struct Durable {
    /// Bytes from the start of the file.
    length: u64,
    /// Number of groups written, one sync each.
    groups: u64,
    /// Why the thread has ended.
    failure: Option<Arc<io::Error>>,
}

impl Writer {
    /// Starts the thread, named `thread`.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub fn start(file: AppendOnlyFile, thread: &str) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let length = file.length;
        let (durable_sender, durable) = watch::channel(Durable {
            length,
            groups: 0,
            failure: None,
        });
        let thread = thread::Builder::new()
            .name(thread.to_owned())
            .spawn(move || run(file, receiver, &durable_sender))?;
        Ok(Self {
            queue: Mutex::new(Queue {
                sender: Some(sender),
                appended_length: length,
            }),
            durable,
            thread: Some(thread),
        })
    }

    /// Appends complete lines, and returns when they are durable: they survive a crash of the machine.
    ///
    /// # Errors
    ///
    /// See [`AppendError`].
    pub async fn append(&self, lines: Vec<u8>) -> Result<(), AppendError> {
        let position = self.reserve().await?.append(lines);
        self.wait_durable(position).await
    }

    /// Reserves a slot in the queue. Appending with it never blocks, so it may be done under a lock.
    ///
    /// # Errors
    ///
    /// See [`AppendError`].
    pub async fn reserve(&self) -> Result<Permit<'_>, AppendError> {
        let sender = self.queue.lock().sender.clone();
        let reserved = sender.ok_or(AppendError::Closed)?.reserve_owned().await;
        Ok(Permit {
            queue: &self.queue,
            // The receiver is dropped when the thread ends.
            slot: reserved.map_err(|_| self.failure())?,
        })
    }

    /// Length of the file once everything appended so far is written, bytes.
    pub fn appended_length(&self) -> u64 {
        self.queue.lock().appended_length
    }

    /// Length of the file that is durable, bytes.
    pub fn durable_length(&self) -> u64 {
        self.durable.borrow().length
    }

    /// Number of groups written, one sync each.
    pub fn groups(&self) -> u64 {
        self.durable.borrow().groups
    }

    /// Waits until the file is durable up to `position`.
    ///
    /// # Errors
    ///
    /// The file cannot be written or synced up to there.
    pub async fn wait_durable(&self, position: u64) -> Result<(), AppendError> {
        let mut durable = self.durable.clone();
        let reached = durable.wait_for(|durable| durable.length >= position).await;
        // The sender is dropped when the thread ends: `position` is never reached.
        reached.map(drop).map_err(|_| self.failure())
    }

    /// Writes what was appended, stops the thread and unlocks the file. It waits until every [`Permit`] is used or
    /// dropped.
    ///
    /// May be called more than once, also concurrently: each call returns once the file is unlocked.
    pub async fn close(&self) {
        self.queue.lock().sender = None;
        // The sender is dropped after the file, when the thread ends. A panic of the thread was printed by the panic
        // hook, and is an error to everyone who waits.
        let _ = self.durable.clone().wait_for(|_| false).await;
    }

    /// A copy of the error with which the thread has ended.
    fn failure(&self) -> AppendError {
        AppendError::Failed(match &self.durable.borrow().failure {
            Some(error) => io::Error::new(error.kind(), Arc::clone(error)),
            None => io::Error::other("the writer thread panicked"),
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.lock().sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A slot in the queue of a [`Writer`].
#[derive(Debug)]
pub struct Permit<'a> {
    queue: &'a Mutex<Queue>,
    slot: mpsc::OwnedPermit<Vec<u8>>,
}

impl Permit<'_> {
    /// Appends complete lines to the queue. They are durable once [`Writer::wait_durable`] returns for the position
    /// that this returns.
    pub fn append(self, lines: Vec<u8>) -> u64 {
        debug_assert!(lines.is_empty() || lines.ends_with(b"\n"));
        // Locked while it is sent: positions have the order of the queue.
        let mut queue = self.queue.lock();
        queue.appended_length += lines.len() as u64;
        drop(self.slot.send(lines));
        queue.appended_length
    }
}

/// The thread. Returns when the writer is closed and the queue empty, or after the first failure.
fn run(
    mut file: AppendOnlyFile,
    mut queue: mpsc::Receiver<Vec<u8>>,
    durable: &watch::Sender<Durable>,
) {
    let mut group = Vec::new();
    while queue.blocking_recv_many(&mut group, QUEUE) > 0 {
        let result = file.append(&group.concat());
        group.clear();
        if let Err(error) = result {
            durable.send_modify(|durable| durable.failure = Some(Arc::new(error)));
            return;
        }
        durable.send_modify(|durable| {
            durable.length = file.length;
            durable.groups += 1;
        });
    }
}

#[cfg(test)]
mod tests;
