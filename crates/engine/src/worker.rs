//! The worker: one OS thread, one consumer, one transactional producer, some partitions.
//!
//! [`Worker::step`] is one iteration of the loop: gather a window, decide it, write it in one transaction, and only
//! then publish the results. Restart, rebalance, abort and an unclear transaction share one recovery path: drop every
//! state and take the partitions over as if they had just been assigned.

mod aggregate;
mod batch;
mod checkpoint;
mod dead_letter;
mod decide;
mod invariants;
mod measurements;
mod membership;
mod ownership;
mod partition;
mod partitions;
mod replay;
mod stalls;
mod status;
mod takeover;
mod trace;
mod window;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use contracts::{Contract, Topic};
use observability::Outage;

pub use self::checkpoint::StateKey;
pub use self::invariants::Invariant;
pub use self::replay::{Replay, Replayed};
pub use self::status::{ObservableState, Status};

use self::measurements::Measurements;
use self::membership::MembershipCheck;
use self::partitions::Partitions;
use self::stalls::StallDetector;
use self::trace::WindowSpans;
use self::window::Window;
use crate::Decider;
use crate::codec::{Codec, Poison};
use crate::effects::EffectScheduler;
use crate::log::{self, Cluster, Input, Log, Partition, Signal};
use crate::metrics::Metrics;

/// Most inputs in one transaction.
const MAX_BATCH_INPUTS: usize = 2_000;
/// Longest wait for an input, so that periodic work runs on time.
const IDLE_WAIT: Duration = Duration::from_millis(100);
/// Between two tries of a take-over that has to wait.
const TAKE_OVER_RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// Between two tries of a command that cannot be decoded yet.
const BLOCK_RETRY_INTERVAL: Duration = TAKE_OVER_RETRY_INTERVAL.saturating_mul(5);

/// Settings of a worker.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Shortest time that a finished aggregate stays in memory: retries within it are safe.
    pub horizon: Duration,
    /// Extra time in memory beyond the horizon.
    pub slack: Duration,
    /// Between checkpoints.
    pub checkpoint_every: Duration,
    /// A safeguard that is switched off, so that a simulation shows what it prevents.
    #[cfg(feature = "simulation")]
    pub disabled: Option<WorkerSafeguard>,
}

/// A rule that the worker's correctness depends on; only a simulation can disable it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerSafeguard {
    /// After an abort the worker drops every state and takes its partitions over again.
    ForgettingStates,
    /// The next checkpoint writes the states that were replayed at take-over.
    CheckpointingReplayed,
    /// Aggregates that only another service uses are evicted by the time in that service's commands.
    AskersTime,
    /// A consumer that has lost its group membership for good is recreated.
    ReplacingClients,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            horizon: Duration::from_secs(15 * 60),
            slack: Duration::from_secs(10 * 60),
            checkpoint_every: Duration::from_secs(5),
            #[cfg(feature = "simulation")]
            disabled: None,
        }
    }
}

impl Settings {
    /// Whether a safeguard is on. Only a simulation can switch one off.
    #[cfg(feature = "simulation")]
    fn has(&self, safeguard: WorkerSafeguard) -> bool {
        self.disabled != Some(safeguard)
    }

    /// Every safeguard is on.
    #[cfg(not(feature = "simulation"))]
    const fn has(&self, _: WorkerSafeguard) -> bool {
        true
    }

    /// Shortest time that a finished aggregate stays in memory, milliseconds.
    pub fn remembered_ms(&self) -> i64 {
        i64::try_from((self.horizon + self.slack).as_millis()).unwrap_or(i64::MAX / 4)
    }
}

/// Why a worker ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process runs with this worker's instance id.
    #[error("another process runs with this instance id: {0}")]
    Fenced(String),
    /// The log contradicts itself or the worker's checkpoint.
    #[error(transparent)]
    TakeOver(#[from] takeover::Error),
    /// The log is damaged or misconfigured.
    #[error(transparent)]
    Log(log::Error),
    /// The executor has ended: effects and timers no longer run.
    #[error("the executor of effects and timers has ended")]
    EffectScheduler,
    /// Most records of a window were dead letters.
    #[error("{dead} of {inputs} records were dead letters: stopped instead of draining the log")]
    Poisoned {
        /// Dead letters in the window.
        dead: usize,
        /// Inputs in the window.
        inputs: usize,
    },
}

/// Why a command was not decided.
pub enum Reject {
    /// It becomes a dead letter; no state has changed.
    Poison(Poison),
    /// State may have changed: the worker drops the window and resets its partitions. The command becomes a dead letter
    /// the next time.
    Reset(Poison),
}

/// Rule book, codec and settings: what deciding needs besides the partition's state.
pub struct WorkerContext<D: Decider> {
    /// The rule book.
    pub rules: D,
    /// Encodes and decodes records.
    pub codec: Codec,
    /// Metrics of the engine.
    pub metrics: Metrics,
    /// Settings of the worker.
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
pub struct Worker<D: Decider, L: Log, S: EffectScheduler<D>> {
    context: WorkerContext<D>,
    log: L,
    scheduler: S,
    status: Status,
    phase: WorkerPhase,
    partitions: Partitions<D>,
    takeover_retry_at: Duration,
    window: Window,
    /// Spans of the commands in the open window.
    spans: WindowSpans,
    measurements: Measurements,
    membership: MembershipCheck,
    stalls: StallDetector,
    /// Logs outages of the broker.
    outage: Outage,
    /// When the last transaction ended.
    transaction_ended: Duration,
    inputs: Vec<Input>,
    /// Positions after the window's inputs.
    reached: BTreeMap<Partition, i64>,
    /// Commands whose decision failed; they become dead letters the next time.
    poisoned: HashSet<(Partition, i64)>,
}

/// The phase of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerPhase {
    /// It writes transactions.
    Running,
    /// Its producer has to be recreated: nothing is written meanwhile.
    RecreatingProducer {
        /// Since when, Unix milliseconds.
        since_ms: i64,
        /// Earliest time of the next try.
        at: Duration,
    },
}

impl WorkerPhase {
    /// The name of the phase, for operators.
    const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::RecreatingProducer { .. } => "recreating_producer",
        }
    }
}

impl<D: Decider, L: Log, S: EffectScheduler<D>> Worker<D, L, S> {
    /// A worker that has not polled yet.
    pub fn new(
        rules: D,
        cluster: Arc<Cluster>,
        codec: Codec,
        log: L,
        scheduler: S,
        metrics: Metrics,
        settings: Settings,
    ) -> Self {
        let commands_topic = cluster.topic(D::Contract::SERVICE, Topic::Commands);
        metrics.initialise::<D::Contract>();
        Self {
            context: WorkerContext {
                rules,
                codec,
                metrics,
                settings,
                cluster,
                commands_topic,
            },
            log,
            scheduler,
            status: Status::default(),
            phase: WorkerPhase::Running,
            partitions: Partitions::default(),
            takeover_retry_at: Duration::ZERO,
            window: Window::default(),
            spans: WindowSpans::default(),
            measurements: Measurements::default(),
            membership: MembershipCheck::default(),
            stalls: StallDetector::default(),
            outage: Outage::of(format!("{} log", D::Contract::SERVICE)),
            transaction_ended: Duration::ZERO,
            inputs: Vec::new(),
            reached: BTreeMap::new(),
            poisoned: HashSet::new(),
        }
    }

    /// The worker's status, for readiness.
    pub fn status(&self) -> Status {
        self.status.clone()
    }

    /// One iteration of the worker's loop.
    ///
    /// # Errors
    ///
    /// The worker has to end. Temporary failures are retried by the next steps.
    pub fn step(&mut self) -> Result<(), Error> {
        if !self.scheduler.is_alive() {
            return Err(Error::EffectScheduler);
        }
        self.recreate()?;
        match self.gather() {
            Ok(Some(generation)) => self.process_window(&generation)?,
            Ok(None) => {}
            Err(error) => {
                self.handle_log_error(error)?;
                // The fetched inputs are lost, and some partitions may not have been sought back.
                self.reset_partitions();
            }
        }
        self.take_over()?;
        self.run_due_work()?;
        self.check_membership()?;
        self.publish_metrics();
        self.status.iteration_done();
        Ok(())
    }

    /// Recreates the producer when that is due. This fences any other producer of the same transactional id, so it
    /// happens only while this member is in the group.
    fn recreate(&mut self) -> Result<(), Error> {
        let WorkerPhase::RecreatingProducer { at, .. } = self.phase else {
            return Ok(());
        };
        if at > self.log.now() {
            return Ok(());
        }
        match self.log.is_member() {
            Ok(true) => match self.log.recreate() {
                Ok(()) => {
                    self.phase = WorkerPhase::Running;
                    self.report_partitions();
                    let service = D::Contract::SERVICE.name();
                    self.context
                        .metrics
                        .producers_recreated
                        .with_label_values(&[service])
                        .inc();
                    Ok(())
                }
                Err(error) => self.handle_log_error(error),
            },
            // The consumer rejoins while it is polled.
            Ok(false) => Ok(()),
            Err(error) => self.handle_log_error(error),
        }
    }

    /// Handles an error of the log: an unavailable broker is recorded, a displaced member rejoins the group, any other
    /// error ends the worker.
    fn handle_log_error(&mut self, error: log::Error) -> Result<(), Error> {
        match error {
            log::Error::Unavailable(reason) => {
                self.outage.failed(&reason);
                self.status.log_unavailable(reason);
                self.membership.check_soon(self.log.now());
                Ok(())
            }
            log::Error::Displaced(reason) => self.rejoin(&reason),
            log::Error::Fenced(reason) => Err(Error::Fenced(reason)),
            error => Err(Error::Log(error)),
        }
    }

    /// Collects a window under one group generation. A rebalance drops what has been collected.
    fn gather(&mut self) -> Result<Option<L::Generation>, log::Error> {
        self.inputs.clear();
        let can_take_over =
            self.phase == WorkerPhase::Running && self.takeover_retry_at <= self.log.now();
        let wait = if can_take_over && self.partitions.is_restoring() {
            Duration::from_millis(1)
        } else {
            IDLE_WAIT
        };
        if self.poll(wait)? {
            return Ok(None);
        }
        let Some(generation) = self.log.generation() else {
            // The membership is lost: the inputs belong to no valid generation.
            if !self.inputs.is_empty() {
                self.reset_partitions();
            }
            return Ok(None);
        };
        let deadline = self.log.now() + self.window.length();
        while !self.inputs.is_empty() && self.inputs.len() < MAX_BATCH_INPUTS {
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
        let room = MAX_BATCH_INPUTS - self.inputs.len();
        let signals = self.log.poll(room, wait, &mut self.inputs)?;
        let mut rebalanced = false;
        for signal in signals {
            match signal {
                Signal::Assigned(partitions) => {
                    tracing::info!(service = %D::Contract::SERVICE, ?partitions, "partitions assigned");
                    for partition in partitions {
                        self.forget(partition);
                        self.partitions.assign(partition);
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
                Signal::Disconnected => self.membership.check_soon(self.log.now()),
            }
        }
        if rebalanced {
            self.drop_window()?;
            self.report_partitions();
        }
        Ok(rebalanced)
    }

    /// Inputs of an earlier generation must not be committed under a later one: kept partitions are fetched again.
    fn drop_window(&mut self) -> Result<(), log::Error> {
        self.inputs.clear();
        self.reached.clear();
        for (partition, phase) in self.partitions.phases() {
            if let Some(state) = phase.state().filter(|_| !phase.is_paused()) {
                self.log.start(partition, state.position)?;
            }
        }
        Ok(())
    }

    /// Retries blocked partitions that are due, and starts the effects of partitions whose earlier answers are processed.
    fn run_due_work(&mut self) -> Result<(), Error> {
        let now = self.log.now();
        for partition in self.partitions.due_blocks(now) {
            let Some(state) = self.partitions.get(partition) else {
                continue;
            };
            match self.log.start(partition, state.position) {
                Ok(()) => {
                    self.partitions.retry_block(partition, None);
                    self.report_partitions();
                }
                Err(error) => {
                    self.partitions
                        .retry_block(partition, Some(now + BLOCK_RETRY_INTERVAL));
                    self.handle_log_error(error)?;
                }
            }
        }
        let due: Vec<_> = self
            .partitions
            .restored()
            .filter(|(_, state)| !state.effects_started && state.position >= state.answers_until)
            .map(|(partition, _)| partition)
            .collect();
        for partition in due {
            self.start_effects(partition);
        }
        Ok(())
    }

    fn report_partitions(&mut self) {
        self.status
            .observe(self.log.unix_ms(), self.phase, &self.partitions);
        self.measurements.publish_soon();
    }

    /// Stops effects and timers. The member keeps its place in the group until its session ends.
    pub fn close(&mut self) {
        for partition in self.partitions.in_turn() {
            self.forget(partition);
        }
        self.measurements.publish_soon();
        self.publish_metrics();
    }
}
