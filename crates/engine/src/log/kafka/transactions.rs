//! The worker's transactional producer, on a thread of its own.
//!
//! librdkafka's transaction calls block, and some of them for longer than their time-outs when the broker's connections
//! are gone for good: `send_offsets_to_transaction` waits for a coordinator without an end (librdkafka #5456, #5511). So
//! they run on a thread that the worker can leave behind together with its producer: whatever that transaction has come
//! to is unclear then, and the next producer of the same transactional id ends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use contracts::{Service, Topic};
use rdkafka::consumer::ConsumerGroupMetadata;

use super::client::is_answered_afresh;
use super::settings::{SOCKET_TIMEOUT, TRANSACTION_TIMEOUT};
use super::transactor::Transactor;
use super::{Appended, Cluster, Error, Failure, LOOKUP_TIMEOUT, PartitionWrites};
use crate::log::replacement::{Failing, PATIENCE};

/// Between two looks at a producer that is at work.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A producer that takes its transactional id asks a coordinator that is loading only twice a second.
const INIT_PATIENCE: Duration = PATIENCE.saturating_mul(2);
/// The longest that a transaction takes by its own time-outs: to flush, to send offsets, to commit or to abort.
const LONGEST: Duration = TRANSACTION_TIMEOUT.saturating_add(SOCKET_TIMEOUT.saturating_mul(3));

pub struct Transactions {
    cluster: Arc<Cluster>,
    service: Service,
    transactional_id: String,
    commands_topic: String,
    /// Producers that were made.
    producers: u32,
    /// `None` after an unclear end, until [`Transactions::recreate`].
    producer: Option<Producer>,
}

/// A producer at work on its thread; the thread ends, and drops it, when this is dropped.
struct Producer {
    commits: mpsc::Sender<Commit>,
    initialised: mpsc::Receiver<Result<(), Error>>,
    committed: mpsc::Receiver<Result<Vec<Appended>, Failure>>,
    /// None of its connections is at work, as of its last statistics.
    is_idle: Arc<AtomicBool>,
    /// It is left behind: it must not take the transactional id any more.
    is_abandoned: Arc<AtomicBool>,
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.is_abandoned.store(true, Ordering::Relaxed);
    }
}

struct Commit {
    generation: Arc<ConsumerGroupMetadata>,
    shares: Vec<PartitionWrites>,
}

impl Transactions {
    pub fn new(
        cluster: Arc<Cluster>,
        service: Service,
        transactional_id: String,
    ) -> Result<Self, Error> {
        let mut transactions = Self {
            commands_topic: cluster.topic(service, Topic::Commands),
            cluster,
            service,
            transactional_id,
            producers: 0,
            producer: None,
        };
        transactions.recreate()?;
        Ok(transactions)
    }

    /// A new producer under the same transactional id ends whatever the old one left open.
    pub fn recreate(&mut self) -> Result<(), Error> {
        self.producer = None;
        self.producers += 1;
        let client_id = format!("{}.producer-{}", self.transactional_id, self.producers);
        let is_idle = Arc::<AtomicBool>::default();
        let transactor = Transactor::new(
            Arc::clone(&self.cluster),
            self.service,
            (&self.transactional_id, &client_id),
            Arc::clone(&is_idle),
        )?;
        let producer = Producer::start(transactor, is_idle)?;
        match self.wait(&producer.initialised, &producer.is_idle, INIT_PATIENCE) {
            Some(initialised) => initialised?,
            None => {
                let reason = "the producer does not get its transactional id";
                return Err(Error::Unavailable(reason.to_owned()));
            }
        }
        tracing::debug!(service = %self.service, client_id, "producer made");
        self.producer = Some(producer);
        Ok(())
    }

    pub fn commit(
        &mut self,
        generation: &Arc<ConsumerGroupMetadata>,
        shares: Vec<PartitionWrites>,
    ) -> Result<Vec<Appended>, Failure> {
        let Some(producer) = &self.producer else {
            return Err(Failure::Unclear(
                "the producer has to be made anew first".into(),
            ));
        };
        let commit = Commit {
            generation: Arc::clone(generation),
            shares,
        };
        let committed = match producer.commits.send(commit) {
            Ok(()) => self.wait(&producer.committed, &producer.is_idle, PATIENCE),
            Err(_) => None,
        };
        let committed = committed.unwrap_or_else(|| {
            let reason = "the producer gets no answer, although the broker answers a fresh client";
            Err(Failure::Unclear(reason.to_owned()))
        });
        if matches!(committed, Err(Failure::Unclear(_) | Failure::Fenced(_))) {
            self.producer = None;
        }
        committed
    }

    /// Waits for the producer's thread; `None` when it is to be left behind: it waits although none of its connections is
    /// at work and a fresh client gets an answer, or for longer than any time-out allows.
    fn wait<T>(
        &self,
        done: &mpsc::Receiver<T>,
        is_idle: &AtomicBool,
        patience: Duration,
    ) -> Option<T> {
        let mut failing = Failing::with_patience(patience);
        // Looks, and no clock: a process that was frozen meanwhile first hears what has become of its transaction.
        let mut waited = Duration::ZERO;
        while waited < LONGEST {
            match done.recv_timeout(LOOK_EVERY) {
                Ok(done) => return Some(done),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => waited += LOOK_EVERY,
            }
            if !is_idle.load(Ordering::Relaxed) {
                failing.answered();
            } else if failing.failed(waited) {
                if is_answered_afresh(&self.cluster, &self.commands_topic) {
                    // It may have ended meanwhile.
                    return done.try_recv().ok();
                }
                waited += LOOKUP_TIMEOUT;
            }
        }
        None
    }
}

impl Producer {
    fn start(transactor: Transactor, is_idle: Arc<AtomicBool>) -> Result<Self, Error> {
        let (commits, taken) = mpsc::channel::<Commit>();
        let (tell_initialised, initialised) = mpsc::channel();
        let (tell_committed, committed) = mpsc::channel();
        let is_abandoned = Arc::<AtomicBool>::default();
        let abandoned = Arc::clone(&is_abandoned);
        let run = move || {
            // A failed send: the worker has left this thread behind.
            let init = transactor.init(&abandoned);
            let is_ready = init.is_ok();
            if tell_initialised.send(init).is_err() || !is_ready {
                return;
            }
            while let Ok(Commit { generation, shares }) = taken.recv() {
                let ended = transactor.commit(&generation, shares);
                if tell_committed.send(ended).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("transactions".to_owned())
            .spawn(run)
            .map_err(|error| Error::Unavailable(format!("no thread for a producer: {error}")))?;
        Ok(Self {
            commits,
            initialised,
            committed,
            is_idle,
            is_abandoned,
        })
    }
}
