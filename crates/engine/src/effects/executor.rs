//! Runs effects and timers on tokio and sends what comes of them to the service's own commands.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contracts::Contract;
use futures::StreamExt as _;
use observability::TraceParent;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue;

use super::answers::Answers;
use super::carry_out::{Asked, Shared, carry_out};
use super::clock::until;
use super::{EffectContext, EffectHandler, EffectRuntime, EffectScheduler};
use crate::codec::Codec;
use crate::log::Partition;
use crate::metrics::Metrics;
use crate::{Command, Decider, Outstanding};

/// A timer that is due later rings then, which its rule book finds stale or not. The queue panics beyond about two
/// years, and a clock may be wrong by more.
const LONGEST_TIMER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Bounds on what runs at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Effects per target.
    pub concurrency: usize,
    /// Longest try.
    pub deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            concurrency: 256,
            deadline: Duration::from_secs(5),
        }
    }
}

/// The worker's end of the executor.
pub struct Executor<D: Decider> {
    orders: mpsc::UnboundedSender<SchedulerCommand<D>>,
}

enum SchedulerCommand<D: Decider> {
    Replace {
        partition: Partition,
        id: String,
        outstanding: Vec<Outstanding<D>>,
        occasion: EffectContext,
    },
    Forget {
        partition: Partition,
    },
}

impl<D: Decider> EffectScheduler<D> for Executor<D>
where
    Command<D>: Into<contracts::Command>,
{
    fn replace(
        &mut self,
        partition: Partition,
        id: String,
        outstanding: Vec<Outstanding<D>>,
        occasion: EffectContext,
    ) {
        let _ = self.orders.send(SchedulerCommand::Replace {
            partition,
            id,
            outstanding,
            occasion,
        });
    }

    fn forget(&mut self, partition: Partition) {
        let _ = self.orders.send(SchedulerCommand::Forget { partition });
    }

    fn is_alive(&self) -> bool {
        !self.orders.is_closed()
    }
}

impl<D: Decider> Executor<D>
where
    Command<D>: Into<contracts::Command>,
{
    /// Starts the executor on `tokio`; it ends when this handle is dropped.
    pub fn start<P: EffectHandler<D>>(
        tokio: &Handle,
        perform: P,
        runtime: impl EffectRuntime,
        codec: Codec,
        metrics: Metrics,
        limits: Limits,
    ) -> Self {
        let (orders, inbox) = mpsc::unbounded_channel();
        let runtime: Arc<dyn EffectRuntime> = Arc::new(runtime);
        let shared = Arc::new(Shared {
            perform,
            answers: Answers::new(Arc::clone(&runtime), codec),
            runtime,
            metrics,
            limits,
            targets: Mutex::default(),
        });
        tokio.spawn(
            Agent {
                shared,
                running: BTreeMap::new(),
                timers: DelayQueue::new(),
            }
            .run(inbox),
        );
        Self { orders }
    }
}

/// The task that owns everything that runs.
struct Agent<D: Decider, P: EffectHandler<D>> {
    shared: Arc<Shared<P>>,
    running: BTreeMap<Partition, BTreeMap<String, Vec<RunningEffect<D>>>>,
    timers: DelayQueue<Due<D>>,
}

struct Due<D: Decider> {
    partition: Partition,
    id: String,
    command: Command<D>,
    trace: Option<TraceParent>,
}

struct RunningEffect<D: Decider> {
    what: Outstanding<D>,
    stop: Stop,
}

enum Stop {
    Effect(AbortHandle),
    /// `None` once it has fired.
    Timer(Option<delay_queue::Key>),
}

impl<D: Decider, P: EffectHandler<D>> Agent<D, P>
where
    Command<D>: Into<contracts::Command>,
{
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<SchedulerCommand<D>>) {
        let service = D::Contract::SERVICE.name();
        let metrics = &self.shared.metrics;
        let timers_waiting = metrics.timers_waiting.with_label_values(&[service]);
        loop {
            tokio::select! {
                // Not by chance, so that the same happens again; due timers are few, so that nobody starves.
                biased;
                Some(due) = self.timers.next() => self.fire(due),
                order = inbox.recv() => match order {
                    Some(SchedulerCommand::Replace { partition, id, outstanding, occasion }) => {
                        self.replace(partition, id, outstanding, occasion);
                    }
                    Some(SchedulerCommand::Forget { partition }) => self.forget(partition),
                    None => break,
                },
            }
            timers_waiting.set(i64::try_from(self.timers.len()).unwrap_or(i64::MAX));
        }
        timers_waiting.set(0);
        let partitions: Vec<_> = self.running.keys().copied().collect();
        for partition in partitions {
            self.forget(partition);
        }
    }

    fn replace(
        &mut self,
        partition: Partition,
        id: String,
        outstanding: Vec<Outstanding<D>>,
        occasion: EffectContext,
    ) {
        let mut before = self
            .running
            .entry(partition)
            .or_default()
            .remove(&id)
            .unwrap_or_default();
        let mut now = Vec::with_capacity(outstanding.len());
        for what in outstanding {
            match before.iter().position(|running| running.what == what) {
                Some(index) => now.push(before.swap_remove(index)),
                None => {
                    let stop = self.begin(partition, &id, &what, occasion);
                    now.push(RunningEffect { what, stop });
                }
            }
        }
        for running in before {
            self.end(running);
        }
        if !now.is_empty() {
            self.running.entry(partition).or_default().insert(id, now);
        }
    }

    fn begin(
        &mut self,
        partition: Partition,
        id: &str,
        what: &Outstanding<D>,
        occasion: EffectContext,
    ) -> Stop {
        match what {
            Outstanding::Effect {
                key,
                effect,
                not_before_ms,
            } => {
                let asked = Asked {
                    id: id.to_owned(),
                    key: key.clone(),
                    effect: effect.clone(),
                    not_before_ms: *not_before_ms,
                    occasion,
                };
                let task = carry_out::<D, P>(Arc::clone(&self.shared), asked);
                Stop::Effect(tokio::spawn(task).abort_handle())
            }
            Outstanding::Timer { due_ms, command } => {
                let due = Due {
                    partition,
                    id: id.to_owned(),
                    command: command.clone(),
                    trace: occasion.trace,
                };
                let now_ms = self.shared.runtime.unix_ms();
                let wait = until(*due_ms, now_ms).min(LONGEST_TIMER);
                let key = self.timers.insert(due, wait);
                Stop::Timer(Some(key))
            }
        }
    }

    fn end(&mut self, running: RunningEffect<D>) {
        match running.stop {
            Stop::Effect(task) => task.abort(),
            Stop::Timer(Some(key)) => {
                self.timers.try_remove(&key);
            }
            Stop::Timer(None) => {}
        }
    }

    fn forget(&mut self, partition: Partition) {
        for (_, list) in self.running.remove(&partition).unwrap_or_default() {
            for running in list {
                self.end(running);
            }
        }
    }

    fn fire(&mut self, due: delay_queue::Expired<Due<D>>) {
        let key = due.key();
        let Due {
            partition,
            id,
            command,
            trace,
        } = due.into_inner();
        let list = self
            .running
            .get_mut(&partition)
            .and_then(|ids| ids.get_mut(&id));
        for running in list.into_iter().flatten() {
            if let Stop::Timer(slot) = &mut running.stop
                && *slot == Some(key)
            {
                *slot = None;
            }
        }
        let service = D::Contract::SERVICE.name();
        self.shared
            .metrics
            .timers_fired
            .with_label_values(&[service])
            .inc();
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move { shared.answers.send(&id, command, "timer", trace).await });
    }
}
