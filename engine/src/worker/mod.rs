//! The worker: one OS thread, one consumer, one transactional producer, some partitions.
//!
//! [`Worker::step`] is the whole life: gather a window, decide it, write it in one transaction, and only then tell
//! anyone. Restart, rebalance, abort and doubt share one road back: forget every state and take the partitions over
//! as if they had just been assigned.

mod aggregate;
mod checkpoint;
mod dead_letter;
mod decide;
mod partition;
mod status;
mod takeover;
mod window;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use contracts::{Body as _, Contract, Topic};

pub use self::status::Status;

use self::dead_letter::dead_letter;
use self::decide::Decided;
use self::partition::Running;
use self::takeover::TakeOver;
use self::window::Window;
use crate::codec::{Codec, Poison, Undecodable};
use crate::effects::{Agenda, Origin};
use crate::log::kafka::Cluster;
use crate::log::{self, Failure, Input, Log, Output, Partition, Share, Signal};
use crate::metrics::Metrics;
use crate::{Command, Decider, Outstanding, State};

/// Most inputs in one transaction.
const LARGEST_BATCH: usize = 2_000;
/// Longest wait for an input, so that intervals are kept.
const IDLE_WAIT: Duration = Duration::from_millis(100);
/// A call that took longer may have been interrupted by a frozen process; beyond the group's session.
const FROZEN: Duration = Duration::from_secs(15);
/// Time for some heartbeats.
const HEARTBEATS: Duration = Duration::from_secs(3);
/// Between looks at a partition whose take-over waits for something.
const RETRY: Duration = Duration::from_millis(200);
/// A window with at least this many dead letters, and more than half of it dead, is a bad deploy and no bad record.
const POISON_LIMIT: usize = 64;

/// What a worker can be told to do differently.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a finished aggregate is remembered at least: retries within it are safe.
    pub horizon: Duration,
    /// Kept in memory beyond the horizon.
    pub slack: Duration,
    /// Between checkpoints.
    pub checkpoint_every: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            horizon: Duration::from_secs(15 * 60),
            slack: Duration::from_secs(10 * 60),
            checkpoint_every: Duration::from_secs(5),
        }
    }
}

impl Settings {
    /// How long a finished aggregate stays in memory.
    fn remembered_ms(&self) -> i64 {
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
    Agenda,
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
pub struct Tools<D: Decider> {
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

impl<D: Decider> Tools<D> {
    fn partition_of(&self, key: &[u8]) -> Partition {
        self.cluster.partition_of(key)
    }
}

/// A worker of one service.
pub struct Worker<D: Decider, L: Log, A: Agenda<D>> {
    tools: Tools<D>,
    log: L,
    agenda: A,
    status: Status,
    running: BTreeMap<Partition, Running<D>>,
    queue: VecDeque<Partition>,
    takeover: Option<TakeOver<D>>,
    takeover_retry_at: Duration,
    window: Window,
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

impl<D: Decider, L: Log, A: Agenda<D>> Worker<D, L, A> {
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
        Self {
            tools: Tools {
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
            return Err(Error::Agenda);
        }
        self.recreate()?;
        match self.gather() {
            Ok(Some(generation)) => self.process(&generation)?,
            Ok(None) => {}
            Err(error) => {
                self.trouble(error)?;
                // What had been fetched is gone, and some partitions may not have been sought back to it.
                self.go_back();
            }
        }
        self.take_over()?;
        self.tend()
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
                tracing::warn!(service = %D::Contract::SERVICE, reason, "log unavailable, retrying");
                self.status.log_unavailable(reason);
                Ok(())
            }
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
                self.go_back();
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
                    self.status.joined();
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

    fn forget(&mut self, partition: Partition) {
        self.running.remove(&partition);
        self.queue.retain(|queued| *queued != partition);
        if self
            .takeover
            .as_ref()
            .is_some_and(|takeover| takeover.partition() == partition)
        {
            self.takeover = None;
        }
        self.agenda.forget(partition);
    }

    /// The one road back.
    fn go_back(&mut self) {
        let partitions: Vec<_> = self
            .running
            .keys()
            .copied()
            .chain(self.takeover.as_ref().map(TakeOver::partition))
            .chain(self.queue.iter().copied())
            .collect();
        self.inputs.clear();
        self.reached.clear();
        for partition in partitions {
            self.forget(partition);
            if let Err(error) = self.log.pause(partition) {
                tracing::debug!(%error, partition, "partition could not be paused; the next poll says why");
            }
            self.queue.push_back(partition);
        }
        self.report();
    }

    /// Decides the window and writes it.
    fn process(&mut self, generation: &L::Generation) -> Result<(), Error> {
        let mut shares: BTreeMap<Partition, Share> = BTreeMap::new();
        let inputs = std::mem::take(&mut self.inputs);
        let mut dead = 0;
        let mut taken = 0;
        for input in &inputs {
            let partition = input.partition;
            let Some(running) = self.running.get_mut(&partition) else {
                continue;
            };
            let share = shares.entry(partition).or_insert_with(|| Share {
                partition,
                offset: running.position,
                outputs: Vec::new(),
            });
            // Fetched before a seek, or waiting behind a record that cannot be decoded yet.
            if input.offset < share.offset || running.blocked_until.is_some() {
                continue;
            }
            match Self::take(
                &self.tools,
                &self.poisoned,
                running,
                input,
                &mut share.outputs,
            ) {
                Taken::Done => {}
                Taken::Dead => dead += 1,
                Taken::Blocked(reason) => {
                    self.status.blocked(partition, reason);
                    running.blocked_until = Some(self.log.now() + RETRY * 5);
                    continue;
                }
                Taken::GoBack(poison) => {
                    tracing::error!(
                        service = %D::Contract::SERVICE, partition, offset = input.offset,
                        class = poison.class, message = poison.message,
                        "command cannot be processed; its window goes back"
                    );
                    self.poisoned.insert((partition, input.offset));
                    self.go_back();
                    return Ok(());
                }
            }
            taken += 1;
            running.time_ms = running.time_ms.max(input.time_ms);
            share.offset = input.offset + 1;
        }
        self.inputs = inputs;
        self.inputs.clear();
        if dead >= POISON_LIMIT && dead * 2 > taken {
            return Err(Error::Poisoned {
                dead,
                inputs: taken,
            });
        }
        self.pause_blocked();
        self.advance(&mut shares);
        self.add_checkpoints(&mut shares);
        self.add_positions(&mut shares);
        shares.retain(|partition, share| {
            !share.outputs.is_empty()
                || self
                    .running
                    .get(partition)
                    .is_some_and(|running| share.offset > running.committed)
        });
        if shares.is_empty() || self.recreate_at.is_some() {
            return Ok(());
        }
        self.write(generation, shares.into_values().collect(), taken)
    }

    /// Markers and aborted records behind the window's inputs are passed together with them.
    fn advance(&mut self, shares: &mut BTreeMap<Partition, Share>) {
        for (partition, offset) in std::mem::take(&mut self.reached) {
            let Some(running) = self.running.get_mut(&partition) else {
                continue;
            };
            if running.blocked_until.is_some() {
                continue;
            }
            match shares.get_mut(&partition) {
                Some(share) => share.offset = share.offset.max(offset),
                None => running.position = running.position.max(offset),
            }
        }
    }

    fn take(
        tools: &Tools<D>,
        poisoned: &HashSet<(Partition, i64)>,
        running: &mut Running<D>,
        input: &Input,
        outputs: &mut Vec<Output>,
    ) -> Taken {
        let service = D::Contract::SERVICE.name();
        let poison = if poisoned.contains(&(input.partition, input.offset)) {
            Poison {
                class: "unprocessable",
                message: "deciding it failed; see the service's log".into(),
                schema_id: None,
            }
        } else {
            match Self::open(tools, input) {
                Ok((metadata, command)) => {
                    let before = outputs.len();
                    // What is left of the rule book's panics, in its answers and its look at the end.
                    let decided = catch_unwind(AssertUnwindSafe(|| {
                        decide::decide(tools, running, input, &metadata, &command, outputs)
                    }));
                    match decided.unwrap_or_else(|_| Err(Reject::GoBack(decide::panicked()))) {
                        Ok(decided) => {
                            let outcome = match decided {
                                Decided::Events(0) => "no_change",
                                Decided::Events(_) => "accepted",
                                Decided::Rejected => "rejected",
                            };
                            tools
                                .metrics
                                .commands
                                .with_label_values(&[service, command.kind(), outcome])
                                .inc();
                            return Taken::Done;
                        }
                        Err(Reject::GoBack(poison)) => return Taken::GoBack(poison),
                        Err(Reject::Poison(poison)) => {
                            outputs.truncate(before);
                            poison
                        }
                    }
                }
                Err(Undecodable::Poison(poison)) => poison,
                Err(Undecodable::Newer(id)) => {
                    return Taken::Blocked(format!(
                        "schema {id} is newer than this version: it must be upgraded"
                    ));
                }
                Err(Undecodable::Pending(id)) => {
                    return Taken::Blocked(format!(
                        "waiting for the registry to resolve schema {id}"
                    ));
                }
            }
        };
        tracing::warn!(
            service,
            partition = input.partition,
            offset = input.offset,
            class = poison.class,
            message = poison.message,
            "dead letter"
        );
        tools
            .metrics
            .dead_letters
            .with_label_values(&[service, poison.class])
            .inc();
        outputs.push(dead_letter(tools, input, &poison));
        Taken::Dead
    }

    /// Decodes a command and checks that its key can be trusted.
    fn open(
        tools: &Tools<D>,
        input: &Input,
    ) -> Result<(contracts::core::v1::Metadata, Command<D>), Undecodable> {
        let (metadata, command) = tools.codec.command::<D::Contract>(input)?;
        let wrong = |message: String| {
            Undecodable::Poison(Poison {
                class: "wrong-key",
                message,
                schema_id: None,
            })
        };
        let key = input.key.as_deref().unwrap_or_default();
        if key != metadata.aggregate_id.as_bytes() {
            return Err(wrong("the key is not the aggregate's id".into()));
        }
        if input.headers_unreadable {
            return Err(wrong("its headers cannot be read".into()));
        }
        if !catch_unwind(|| D::is_id(&metadata.aggregate_id)).unwrap_or(false) {
            return Err(wrong("the key is no id of such an aggregate".into()));
        }
        let expected = tools.partition_of(key);
        if expected != input.partition {
            return Err(wrong(format!("the key belongs to partition {expected}")));
        }
        Ok((metadata, command))
    }

    fn pause_blocked(&mut self) {
        for (partition, running) in &self.running {
            if running.blocked_until.is_some()
                && let Err(error) = self.log.pause(*partition)
            {
                tracing::debug!(%error, partition, "partition could not be paused; the next poll says why");
            }
        }
    }

    fn add_checkpoints(&mut self, shares: &mut BTreeMap<Partition, Share>) {
        let now = self.log.now();
        for (partition, running) in &mut self.running {
            let due = running.round.is_none() && running.checkpoint_at <= now;
            if due {
                running.checkpoint_at = now + self.tools.settings.checkpoint_every;
                let evictable = running.finished.front().is_some_and(|(time_ms, _)| {
                    *time_ms <= running.time_ms - self.tools.settings.remembered_ms()
                });
                if !running.dirty.is_empty() || evictable {
                    checkpoint::begin(running);
                }
            }
            if running.round.is_some() {
                let share = shares.entry(*partition).or_insert_with(|| Share {
                    partition: *partition,
                    offset: running.position,
                    outputs: Vec::new(),
                });
                checkpoint::write_piece(&self.tools, *partition, running, &mut share.outputs);
            }
        }
    }

    /// A position that has passed the committed offset without input (markers, aborted records) is committed too.
    fn add_positions(&mut self, shares: &mut BTreeMap<Partition, Share>) {
        for (partition, running) in &self.running {
            if running.position > running.committed {
                let share = shares.entry(*partition).or_insert_with(|| Share {
                    partition: *partition,
                    offset: running.position,
                    outputs: Vec::new(),
                });
                share.offset = share.offset.max(running.position);
            }
        }
    }

    fn write(
        &mut self,
        generation: &L::Generation,
        shares: Vec<Share>,
        inputs: usize,
    ) -> Result<(), Error> {
        let service = D::Contract::SERVICE.name();
        let offsets: Vec<_> = shares
            .iter()
            .map(|share| (share.partition, share.offset))
            .collect();
        let begun = self.log.now();
        let written = self.log.commit(generation, shares);
        let ended = self.log.now();
        let took = ended.saturating_sub(begun);
        self.window
            .learn(took, ended.saturating_sub(self.round_ended));
        self.round_ended = ended;
        let metrics = &self.tools.metrics;
        metrics
            .transaction_seconds
            .with_label_values(&[service])
            .observe(took.as_secs_f64());
        match written {
            Ok(appended) => {
                #[allow(clippy::cast_precision_loss)]
                metrics
                    .batch_inputs
                    .with_label_values(&[service])
                    .observe(inputs as f64);
                for end in appended {
                    if let Some(running) = self.running.get_mut(&end.partition) {
                        running.events_end = running.events_end.max(end.events_end);
                    }
                }
                for (partition, offset) in offsets {
                    self.poisoned
                        .retain(|(p, o)| *p != partition || *o >= offset);
                    self.committed(partition, offset);
                }
                self.status.log_available();
                Ok(())
            }
            Err(failure) => self.failed(failure, took),
        }
    }

    /// Only now is anybody told.
    fn committed(&mut self, partition: Partition, offset: i64) {
        let Some(running) = self.running.get_mut(&partition) else {
            return;
        };
        running.position = running.position.max(offset);
        running.committed = offset;
        self.status.unblocked(partition);
        let started = running.agenda_started;
        for id in running.changed.drain() {
            if !started {
                continue;
            }
            if let Some(aggregate) = running.aggregates.get(&id) {
                let outstanding = outstanding::<D>(&aggregate.state, &id);
                self.agenda
                    .replace(partition, id, outstanding, Origin::Decided);
            }
        }
    }

    fn failed(&mut self, failure: Failure, took: Duration) -> Result<(), Error> {
        let service = D::Contract::SERVICE.name();
        tracing::warn!(service, error = %failure, "transaction failed, taking the partitions over again");
        let result = match &failure {
            Failure::Aborted(_) => "aborted",
            Failure::Unclear(_) => "unclear",
            Failure::Fenced { .. } => "fenced",
        };
        self.tools
            .metrics
            .failed_transactions
            .with_label_values(&[service, result])
            .inc();
        match failure {
            Failure::Aborted(_) => {}
            // After a long silence a replacement may have taken over: some heartbeats tell.
            Failure::Unclear(_) if took < FROZEN => self.recreate_at = Some(self.log.now()),
            Failure::Unclear(_) | Failure::Fenced { expired: true, .. } => {
                self.recreate_at = Some(self.log.now() + HEARTBEATS);
            }
            Failure::Fenced { reason, .. } => return Err(Error::Fenced(reason)),
        }
        self.go_back();
        Ok(())
    }

    /// Works on the partition that is being taken over, one at a time.
    fn take_over(&mut self) -> Result<(), Error> {
        let now = self.log.now();
        if now < self.takeover_retry_at || self.recreate_at.is_some() {
            return Ok(());
        }
        if self.takeover.is_none() {
            let Some(partition) = self.queue.front().copied() else {
                return Ok(());
            };
            match TakeOver::begin(&mut self.log, partition) {
                Ok(takeover) => {
                    self.queue.pop_front();
                    self.takeover = Some(takeover);
                }
                Err(error) => return self.take_over_later(error),
            }
        }
        let Some(mut takeover) = self.takeover.take() else {
            return Ok(());
        };
        let wait = Duration::from_millis(if self.running.is_empty() { 10 } else { 1 });
        match takeover.step(&self.tools, &mut self.log, wait) {
            Ok(Some(running)) => {
                let partition = takeover.partition();
                if let Err(error) = self.log.start(partition, running.position) {
                    self.queue.push_front(partition);
                    return self.take_over_later(error.into());
                }
                self.running.insert(partition, running);
                self.report();
                Ok(())
            }
            Ok(None) => {
                self.takeover = Some(takeover);
                Ok(())
            }
            // Begun anew, behind the partitions that can be read.
            Err(error @ takeover::Error::Newer { .. }) => {
                self.queue.push_back(takeover.partition());
                self.take_over_later(error)
            }
            Err(error) => {
                self.takeover = Some(takeover);
                self.take_over_later(error)
            }
        }
    }

    fn take_over_later(&mut self, error: takeover::Error) -> Result<(), Error> {
        self.takeover_retry_at = self.log.now() + RETRY;
        match error {
            takeover::Error::Log(error) => self.trouble(error),
            takeover::Error::Registry => {
                self.status.log_unavailable(error.to_string());
                Ok(())
            }
            takeover::Error::Newer { .. } => {
                self.takeover_retry_at = self.log.now() + RETRY * 10;
                tracing::error!(service = %D::Contract::SERVICE, %error, "partition refused");
                self.status.log_unavailable(error.to_string());
                Ok(())
            }
            error @ takeover::Error::Damaged { .. } => Err(error.into()),
        }
    }

    /// What is due: effects that may start, blocked partitions, quiet positions.
    fn tend(&mut self) -> Result<(), Error> {
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

    fn start_agenda(&mut self, partition: Partition) {
        let Some(running) = self.running.get_mut(&partition) else {
            return;
        };
        for (id, aggregate) in &running.aggregates {
            let outstanding = outstanding::<D>(&aggregate.state, id);
            if !outstanding.is_empty() {
                self.agenda
                    .replace(partition, id.clone(), outstanding, Origin::TakenOver);
            }
        }
        running.agenda_started = true;
    }

    fn report(&self) {
        let restoring = self
            .queue
            .iter()
            .copied()
            .chain(self.takeover.as_ref().map(TakeOver::partition))
            .collect();
        self.status
            .partitions(self.running.keys().copied().collect(), restoring);
        let service = D::Contract::SERVICE.name();
        self.tools
            .metrics
            .partitions
            .with_label_values(&[service])
            .set(i64::try_from(self.running.len()).unwrap_or(i64::MAX));
    }

    /// Stops effects and timers; the partitions are left by dropping the worker.
    pub fn close(&mut self) {
        let partitions: Vec<_> = self.running.keys().copied().collect();
        for partition in partitions {
            self.agenda.forget(partition);
        }
    }
}

/// What a state waits for. A rule book that panics here must not stop the partition: it is said, and nothing is waited
/// for.
fn outstanding<D: Decider>(state: &State<D>, id: &str) -> Vec<Outstanding<D>> {
    catch_unwind(AssertUnwindSafe(|| D::outstanding(state, id))).unwrap_or_else(|_| {
        tracing::error!(service = %D::Contract::SERVICE, id, "the rule book panicked on what is outstanding");
        Vec::new()
    })
}

enum Taken {
    Done,
    Dead,
    Blocked(String),
    GoBack(Poison),
}
