//! The worker's transactional producer, on a separate thread.
//!
//! librdkafka's transaction calls block, and some of them for longer than their time-outs when the broker's connections
//! are lost for good: `send_offsets_to_transaction` waits for a coordinator without a limit (librdkafka #5456, #5511).
//! So they run on a thread that the worker can abandon together with its producer: the end of that transaction is
//! unclear then, and the next producer of the same transactional id ends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use contracts::{Service, Topic};
use rdkafka::consumer::ConsumerGroupMetadata;

use super::client::fresh_client_succeeds;
use super::transactor::Transactor;
use super::{Appended, Cluster, Error, Failure, LOOKUP_TIMEOUT, PartitionWrites};
use crate::log::limits::{SOCKET_TIMEOUT, TRANSACTION_TIMEOUT};
use crate::log::replacement::{FailureTracker, PATIENCE};

/// Between two checks of a producer during a call.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// Longer than [`PATIENCE`]: during initialisation a producer asks a loading coordinator only twice a second.
const INIT_PATIENCE: Duration = PATIENCE.saturating_mul(2);
/// Longest duration of a transaction by its own time-outs: flush, send offsets, commit or abort.
const MAX_WAIT: Duration = TRANSACTION_TIMEOUT.saturating_add(SOCKET_TIMEOUT.saturating_mul(3));

pub struct TransactionThread {
    cluster: Arc<Cluster>,
    service: Service,
    transactional_id: String,
    commands_topic: String,
    /// Number of producers created so far.
    producers: u32,
    /// `None` after an unclear end, until [`TransactionThread::recreate`].
    producer: Option<ProducerThread>,
}

/// Handle on a producer's thread; dropping it ends the thread, which drops the producer.
struct ProducerThread {
    commits: mpsc::Sender<Commit>,
    initialised: mpsc::Receiver<Result<(), Error>>,
    committed: mpsc::Receiver<Result<Vec<Appended>, Failure>>,
    /// All its connections are idle, as of its last statistics.
    is_idle: Arc<AtomicBool>,
    /// It is abandoned and must not initialise its transactional id any more.
    is_abandoned: Arc<AtomicBool>,
}

impl Drop for ProducerThread {
    fn drop(&mut self) {
        self.is_abandoned.store(true, Ordering::Relaxed);
    }
}

struct Commit {
    generation: Arc<ConsumerGroupMetadata>,
    writes: Vec<PartitionWrites>,
}

impl TransactionThread {
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

    /// Creates a new producer under the same transactional id, which ends an open transaction of the former one.
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
        let producer = ProducerThread::start(transactor, is_idle)?;
        match self.wait(&producer.initialised, &producer.is_idle, INIT_PATIENCE) {
            Some(initialised) => initialised?,
            None => {
                let reason = "the producer does not get its transactional id";
                return Err(Error::Unavailable(reason.to_owned()));
            }
        }
        tracing::debug!(service = %self.service, client_id, "producer created");
        self.producer = Some(producer);
        Ok(())
    }

    pub fn commit(
        &mut self,
        generation: &Arc<ConsumerGroupMetadata>,
        writes: Vec<PartitionWrites>,
    ) -> Result<Vec<Appended>, Failure> {
        let Some(producer) = &self.producer else {
            return Err(Failure::Unclear(
                "the producer has to be recreated first".into(),
            ));
        };
        let commit = Commit {
            generation: Arc::clone(generation),
            writes,
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

    /// Waits for a result of the producer's thread; `None` when the thread must be abandoned: it waits although all its
    /// connections are idle and a fresh client gets an answer, or for longer than all its time-outs.
    fn wait<T>(
        &self,
        done: &mpsc::Receiver<T>,
        is_idle: &AtomicBool,
        patience: Duration,
    ) -> Option<T> {
        let mut failures = FailureTracker::with_patience(patience);
        // Counts checks instead of time: a process that was frozen meanwhile receives the result of its transaction
        // first.
        let mut waited = Duration::ZERO;
        while waited < MAX_WAIT {
            match done.recv_timeout(CHECK_INTERVAL) {
                Ok(done) => return Some(done),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => waited += CHECK_INTERVAL,
            }
            if !is_idle.load(Ordering::Relaxed) {
                failures.answered();
            } else if failures.failed(waited) {
                if fresh_client_succeeds(&self.cluster, &self.commands_topic) {
                    // It may have ended meanwhile.
                    return done.try_recv().ok();
                }
                waited += LOOKUP_TIMEOUT;
            }
        }
        None
    }
}

impl ProducerThread {
    fn start(transactor: Transactor, is_idle: Arc<AtomicBool>) -> Result<Self, Error> {
        let (commits, received) = mpsc::channel::<Commit>();
        let (initialised_sender, initialised) = mpsc::channel();
        let (committed_sender, committed) = mpsc::channel();
        let is_abandoned = Arc::<AtomicBool>::default();
        let abandoned = Arc::clone(&is_abandoned);
        let run = move || {
            // A send fails when the worker has abandoned this thread.
            let init = transactor.init(&abandoned);
            let is_ready = init.is_ok();
            if initialised_sender.send(init).is_err() || !is_ready {
                return;
            }
            while let Ok(Commit { generation, writes }) = received.recv() {
                let ended = transactor.commit(&generation, writes);
                if committed_sender.send(ended).is_err() {
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
