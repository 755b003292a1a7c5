//! The worker: one OS thread, one consumer, one transactional producer, some partitions.
//!
//! [`Worker::step`] is the whole life: gather a window, decide it, write it in one transaction, and only then tell
//! anyone. Restart, rebalance, abort and doubt share one road back: forget every state and take the partitions over
//! as if they had just been assigned.

mod aggregate;
mod batch;
mod checkpoint;
mod dead_letter;
mod decide;
mod figures;
mod membership;
mod ownership;
mod partition;
mod replay;
mod standstill;
mod status;
mod takeover;
mod trace;
mod window;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use contracts::{Contract, Topic};
use observability::Outage;

pub use self::checkpoint::StateKey;
pub use self::replay::{Replay, Replayed};
pub use self::status::Status;

use self::figures::Figures;
use self::membership::MembershipCheck;
use self::partition::PartitionState;
use self::standstill::Standstill;
use self::takeover::TakeOver;
use self::trace::Spans;
use self::window::Window;
use crate::Decider;
use crate::codec::{Codec, Poison};
use crate::effects::EffectScheduler;
use crate::log::kafka::Cluster;
use crate::log::{self, Input, Log, Partition, Signal};
use crate::metrics::Metrics;

/// Most inputs in one transaction.
const LARGEST_BATCH: usize = 2_000;
/// Longest wait for an input, so that intervals are kept.
const IDLE_WAIT: Duration = Duration::from_millis(100);
/// Between looks at a partition whose take-over waits for something.
const RETRY: Duration = Duration::from_millis(200);

/// What a worker can be told to do differently.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a finished aggregate is remembered at least: retries within it are safe.
    pub horizon: Duration,
    /// Kept in memory beyond the horizon.
    pub slack: Duration,
    /// Between checkpoints.
    pub checkpoint_every: Duration,
    /// What the worker leaves out, so that the simulator can show what it is for; `None` everywhere else.
    pub without: Option<Safeguard>,
}

/// Something that keeps a worker right, and that only the simulator switches off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safeguard {
    /// After an abort every state is forgotten and taken over again.
    ForgettingStates,
    /// States that were replayed at take-over are written by the next checkpoint.
    CheckpointingReplayed,
    /// What only a service asks about leaves memory by that service's time.
    AskersTime,
    /// A consumer that has lost its place for good is made anew.
    ReplacingClients,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            horizon: Duration::from_secs(15 * 60),
            slack: Duration::from_secs(10 * 60),
            checkpoint_every: Duration::from_secs(5),
            without: None,
        }
    }
}

impl Settings {
    /// How long a finished aggregate stays in memory at least, milliseconds.
    pub fn remembered_ms(&self) -> i64 {
        i64::try_from((self.horizon + self.slack).as_millis()).unwrap_or(i64::MAX / 4)
    }
}

/// Why a worker ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else runs with our instance id.
    #[error("another process runs with this instance id: {0}")]
    Fenced(String),
    /// The log, or what the worker knows of it, contradicts itself.
    #[error(transparent)]
    TakeOver(#[from] takeover::Error),
    /// The log is not what it was.
    #[error(transparent)]
    Log(log::Error),
    /// Effects and timers are no longer carried out.
    #[error("the executor of effects and timers has ended")]
    EffectScheduler,
    /// Nearly everything that came was a dead letter.
    #[error("{dead} of {inputs} records were dead letters: stopped instead of draining the log")]
    Poisoned {
        /// Dead letters in the window.
        dead: usize,
        /// Inputs in the window.
        inputs: usize,
    },
}

/// Why a command is not decided.
pub enum Reject {
    /// It goes to the dead letters; nothing has changed.
    Poison(Poison),
    /// Something may have changed: the window is dropped, and the command is a dead letter the next time.
    GoBack(Poison),
}

/// What deciding needs besides a partition.
pub struct WorkerContext<D: Decider> {
    /// The rule book.
    pub rules: D,
    /// Bytes.
    pub codec: Codec,
    /// Figures.
    pub metrics: Metrics,
    /// Settings.
    pub settings: Settings,
    cluster: Arc<Cluster>,
    commands_topic: String,
}

impl<D: Decider> WorkerContext<D> {
    fn partition_of(&self, key: &[u8]) -> Partition {
        self.cluster.partition_of(key)
    }
}

/// A worker of one service.
pub struct Worker<D: Decider, L: Log, A: EffectScheduler<D>> {
    tools: WorkerContext<D>,
    log: L,
    agenda: A,
    status: Status,
    running: BTreeMap<Partition, PartitionState<D>>,
    queue: VecDeque<Partition>,
    takeover: Option<TakeOver<D>>,
    takeover_retry_at: Duration,
    window: Window,
    /// Of the commands in the open window.
    spans: Spans,
    figures: Figures,
    membership: MembershipCheck,
    standstill: Standstill,
    /// Of the broker.
    outage: Outage,
    /// When the last transaction ended.
    round_ended: Duration,
    inputs: Vec<Input>,
    /// Positions behind the window's inputs.
    reached: BTreeMap<Partition, i64>,
    /// Commands that did not survive being decided; they are dead letters the next time.
    poisoned: HashSet<(Partition, i64)>,
    /// When the producer is made anew.
    recreate_at: Option<Duration>,
}

impl<D: Decider, L: Log, A: EffectScheduler<D>> Worker<D, L, A> {
    /// A worker that has not polled yet.
    pub fn new(
        rules: D,
        cluster: Arc<Cluster>,
        codec: Codec,
        log: L,
        agenda: A,
        metrics: Metrics,
        settings: Settings,
    ) -> Self {
        let commands_topic = cluster.topic(D::Contract::SERVICE, Topic::Commands);
        metrics.begin::<D::Contract>();
        Self {
            tools: WorkerContext {
                rules,
                codec,
                metrics,
                settings,
                cluster,
                commands_topic,
            },
            log,
            agenda,
            status: Status::default(),
            running: BTreeMap::new(),
            queue: VecDeque::new(),
            takeover: None,
            takeover_retry_at: Duration::ZERO,
            window: Window::default(),
            spans: Spans::default(),
            figures: Figures::default(),
            membership: MembershipCheck::default(),
            standstill: Standstill::default(),
            outage: Outage::of(format!("{} log", D::Contract::SERVICE)),
            round_ended: Duration::ZERO,
            inputs: Vec::new(),
            reached: BTreeMap::new(),
            poisoned: HashSet::new(),
            recreate_at: None,
        }
    }

    /// What the worker is at, for readiness.
    pub fn status(&self) -> Status {
        self.status.clone()
    }

    /// One round.
    ///
    /// # Errors
    ///
    /// When the worker has to end; trouble that passes is waited for inside.
    pub fn step(&mut self) -> Result<(), Error> {
        if !self.agenda.is_alive() {
            return Err(Error::EffectScheduler);
        }
        self.recreate()?;
        match self.gather() {
            Ok(Some(generation)) => self.process(&generation)?,
            Ok(None) => {}
            Err(error) => {
                self.trouble(error)?;
                // What had been fetched is gone, and some partitions may not have been sought back to it.
                self.reset_partitions();
            }
        }
        self.take_over()?;
        self.run_due_work()?;
        self.check_membership()?;
        self.show();
        self.status.went_round();
        Ok(())
    }

    /// Makes the producer anew, which fences whoever runs under its name: so only while the group says that this is
    /// still us.
    fn recreate(&mut self) -> Result<(), Error> {
        if self.recreate_at.is_none_or(|at| at > self.log.now()) {
            return Ok(());
        }
        match self.log.is_member() {
            Ok(true) => match self.log.recreate() {
                Ok(()) => {
                    self.recreate_at = None;
                    let service = D::Contract::SERVICE.name();
                    self.tools
                        .metrics
                        .producers_recreated
                        .with_label_values(&[service])
                        .inc();
                    Ok(())
                }
                Err(error) => self.trouble(error),
            },
            // It joins again while it is polled.
            Ok(false) => Ok(()),
            Err(error) => self.trouble(error),
        }
    }

    /// Trouble that passes is waited for; anything else ends the worker.
    fn trouble(&mut self, error: log::Error) -> Result<(), Error> {
        match error {
            log::Error::Unavailable(reason) => {
                self.outage.failed(&reason);
                self.status.log_unavailable(reason);
                self.membership.doubt(self.log.now());
                Ok(())
            }
            log::Error::Displaced(reason) => self.rejoin(&reason),
            log::Error::Fenced(reason) => Err(Error::Fenced(reason)),
            error => Err(Error::Log(error)),
        }
    }

    /// Collects a window; the generation vouches for all of it. A rebalance drops what has been collected.
    fn gather(&mut self) -> Result<Option<L::Generation>, log::Error> {
        self.inputs.clear();
        let waiting = self.takeover.is_some() || !self.queue.is_empty();
        let wait =
            if waiting && self.recreate_at.is_none() && self.takeover_retry_at <= self.log.now() {
                Duration::from_millis(1)
            } else {
                IDLE_WAIT
            };
        if self.poll(wait)? {
            return Ok(None);
        }
        let Some(generation) = self.log.generation() else {
            // The place in the group is lost: nothing vouches for what was fetched.
            if !self.inputs.is_empty() {
                self.reset_partitions();
            }
            return Ok(None);
        };
        let deadline = self.log.now() + self.window.length();
        while !self.inputs.is_empty() && self.inputs.len() < LARGEST_BATCH {
            let wait = deadline.saturating_sub(self.log.now());
            if wait.is_zero() {
                break;
            }
            if self.poll(wait)? {
                return Ok(None);
            }
        }
        Ok(Some(generation))
    }

    /// Polls once; whether the assignment changed.
    fn poll(&mut self, wait: Duration) -> Result<bool, log::Error> {
        let room = LARGEST_BATCH - self.inputs.len();
        let signals = self.log.poll(room, wait, &mut self.inputs)?;
        let mut rebalanced = false;
        for signal in signals {
            match signal {
                Signal::Assigned(partitions) => {
                    tracing::info!(service = %D::Contract::SERVICE, ?partitions, "partitions assigned");
                    for partition in partitions {
                        self.forget(partition);
                        self.queue.push_back(partition);
                    }
                    rebalanced = true;
                }
                Signal::Revoked(partitions) => {
                    tracing::info!(service = %D::Contract::SERVICE, ?partitions, "partitions revoked");
                    for partition in partitions {
                        self.forget(partition);
                    }
                    rebalanced = true;
                }
                Signal::Reached { partition, offset } => {
                    self.reached.insert(partition, offset);
                }
                Signal::Disconnected => self.membership.doubt(self.log.now()),
            }
        }
        if rebalanced {
            self.drop_window()?;
            self.report();
        }
        Ok(rebalanced)
    }

    /// A later generation must never vouch for an earlier poll: what is kept is fetched anew.
    fn drop_window(&mut self) -> Result<(), log::Error> {
        self.inputs.clear();
        self.reached.clear();
        for (partition, running) in &self.running {
            if running.blocked_until.is_none() {
                self.log.start(*partition, running.position)?;
            }
        }
        Ok(())
    }

    /// What is due: effects that may start, blocked partitions, quiet positions.
    fn run_due_work(&mut self) -> Result<(), Error> {
        let now = self.log.now();
        let mut unblocked = false;
        let partitions: Vec<_> = self.running.keys().copied().collect();
        for partition in partitions {
            let Some(running) = self.running.get_mut(&partition) else {
                continue;
            };
            let position = running.position;
            if running.blocked_until.is_some_and(|until| until <= now) {
                running.blocked_until = Some(now + RETRY * 5);
                match self.log.start(partition, position) {
                    Ok(()) => {
                        running.blocked_until = None;
                        unblocked = true;
                    }
                    Err(error) => self.trouble(error)?,
                }
                continue;
            }
            if !running.agenda_started && position >= running.answers_until {
                self.start_agenda(partition);
            }
        }
        if unblocked {
            self.report();
        }
        Ok(())
    }

    fn report(&mut self) {
        let restoring = self
            .queue
            .iter()
            .copied()
            .chain(self.takeover.as_ref().map(TakeOver::partition))
            .collect();
        self.status
            .partitions(self.running.keys().copied().collect(), restoring);
        self.figures.show_at_once();
    }

    /// Stops effects and timers; the partitions are left by dropping the worker.
    pub fn close(&mut self) {
        let partitions: Vec<_> = self.running.keys().copied().collect();
        for partition in partitions {
            self.agenda.forget(partition);
        }
        self.running.clear();
        self.queue.clear();
        self.takeover = None;
        self.figures.show_at_once();
        self.show();
    }
}
