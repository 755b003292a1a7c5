//! Runs effects and timers on tokio and sends their results to the service's own commands topic.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use contracts::Contract;
use futures::StreamExt as _;
use observability::TraceParent;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue;

use super::carry_out::{PendingEffect, Shared, carry_out};
use super::clock::duration_until;
use super::result_sender::ResultSender;
use super::{EffectContext, EffectHandler, EffectRuntime, EffectScheduler};
use crate::codec::Codec;
use crate::log::Partition;
use crate::metrics::Metrics;
use crate::{Command, Decider, Outstanding};

/// Timers fire after this time at the latest. One that is due later fires too early: its rule book compares deadlines,
/// not times. The queue panics beyond about two years, and a clock may be wrong by more.
const LONGEST_TIMER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Limits of the executor.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Concurrent effects per target.
    pub concurrency: usize,
    /// Longest duration of one try.
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

/// The worker's handle on the executor task.
pub struct Executor<D: Decider> {
    requests: mpsc::UnboundedSender<ScheduleRequest<D>>,
}

enum ScheduleRequest<D: Decider> {
    Replace {
        partition: Partition,
        id: String,
        outstanding: Vec<Outstanding<D>>,
        context: EffectContext,
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
        context: EffectContext,
    ) {
        let _ = self.requests.send(ScheduleRequest::Replace {
            partition,
            id,
            outstanding,
            context,
        });
    }

    fn forget(&mut self, partition: Partition) {
        let _ = self.requests.send(ScheduleRequest::Forget { partition });
    }

    fn is_alive(&self) -> bool {
        !self.requests.is_closed()
    }
}

impl<D: Decider> Executor<D>
where
    Command<D>: Into<contracts::Command>,
{
    /// Starts the executor on the runtime of `handle`; it ends when this handle is dropped.
    pub fn start<P: EffectHandler<D>>(
        handle: &Handle,
        handler: P,
        environment: impl EffectRuntime,
        codec: Codec,
        metrics: Metrics,
        limits: Limits,
    ) -> Self {
        let (requests, received) = mpsc::unbounded_channel();
        let environment: Arc<dyn EffectRuntime> = Arc::new(environment);
        let shared = Arc::new(Shared {
            handler,
            results: ResultSender::new(Arc::clone(&environment), codec),
            environment,
            metrics,
            limits,
            targets: Mutex::default(),
        });
        handle.spawn(
            ExecutorTask {
                shared,
                scheduled: BTreeMap::new(),
                timers: DelayQueue::new(),
            }
            .run(received),
        );
        Self { requests }
    }
}

/// The task that owns all effects and timers.
struct ExecutorTask<D: Decider, P: EffectHandler<D>> {
    shared: Arc<Shared<P>>,
    scheduled: BTreeMap<Partition, BTreeMap<String, Vec<ScheduledItem<D>>>>,
    timers: DelayQueue<ScheduledTimer<D>>,
}

struct ScheduledTimer<D: Decider> {
    partition: Partition,
    id: String,
    command: Command<D>,
    trace: Option<TraceParent>,
}

struct ScheduledItem<D: Decider> {
    outstanding: Outstanding<D>,
    handle: ItemHandle,
}

enum ItemHandle {
    Effect(AbortHandle),
    /// `None` once it has fired.
    Timer(Option<delay_queue::Key>),
}

impl<D: Decider, P: EffectHandler<D>> ExecutorTask<D, P>
where
    Command<D>: Into<contracts::Command>,
{
    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<ScheduleRequest<D>>) {
        let service = D::Contract::SERVICE.name();
        let metrics = &self.shared.metrics;
        let timers_waiting = metrics.timers_waiting.with_label_values(&[service]);
        loop {
            tokio::select! {
                // Fixed order, so that a run is reproducible; due timers are few and do not starve the requests.
                biased;
                Some(due) = self.timers.next() => self.fire(due),
                request = requests.recv() => match request {
                    Some(ScheduleRequest::Replace { partition, id, outstanding, context }) => {
                        self.replace(partition, id, outstanding, context);
                    }
                    Some(ScheduleRequest::Forget { partition }) => self.forget(partition),
                    None => break,
                },
            }
            timers_waiting.set(i64::try_from(self.timers.len()).unwrap_or(i64::MAX));
        }
        timers_waiting.set(0);
        let partitions: Vec<_> = self.scheduled.keys().copied().collect();
        for partition in partitions {
            self.forget(partition);
        }
    }

    fn replace(
        &mut self,
        partition: Partition,
        id: String,
        outstanding: Vec<Outstanding<D>>,
        context: EffectContext,
    ) {
        let mut previous = self
            .scheduled
            .entry(partition)
            .or_default()
            .remove(&id)
            .unwrap_or_default();
        let mut current = Vec::with_capacity(outstanding.len());
        for outstanding in outstanding {
            match previous
                .iter()
                .position(|item| item.outstanding == outstanding)
            {
                Some(index) => current.push(previous.swap_remove(index)),
                None => {
                    let handle = self.start_item(partition, &id, &outstanding, context);
                    current.push(ScheduledItem {
                        outstanding,
                        handle,
                    });
                }
            }
        }
        for item in previous {
            self.cancel_item(item);
        }
        if !current.is_empty() {
            self.scheduled
                .entry(partition)
                .or_default()
                .insert(id, current);
        }
    }

    fn start_item(
        &mut self,
        partition: Partition,
        id: &str,
        outstanding: &Outstanding<D>,
        context: EffectContext,
    ) -> ItemHandle {
        match outstanding {
            Outstanding::Effect {
                key,
                effect,
                not_before_ms,
            } => {
                let pending = PendingEffect {
                    id: id.to_owned(),
                    key: key.clone(),
                    effect: effect.clone(),
                    not_before_ms: *not_before_ms,
                    context,
                };
                let task = carry_out::<D, P>(Arc::clone(&self.shared), pending);
                ItemHandle::Effect(tokio::spawn(task).abort_handle())
            }
            Outstanding::Timer { due_ms, command } => {
                let due = ScheduledTimer {
                    partition,
                    id: id.to_owned(),
                    command: command.clone(),
                    trace: context.trace,
                };
                let now_ms = self.shared.environment.unix_ms();
                let wait = duration_until(*due_ms, now_ms).min(LONGEST_TIMER);
                let key = self.timers.insert(due, wait);
                ItemHandle::Timer(Some(key))
            }
        }
    }

    fn cancel_item(&mut self, item: ScheduledItem<D>) {
        match item.handle {
            ItemHandle::Effect(task) => task.abort(),
            ItemHandle::Timer(Some(key)) => {
                self.timers.try_remove(&key);
            }
            ItemHandle::Timer(None) => {}
        }
    }

    fn forget(&mut self, partition: Partition) {
        for (_, list) in self.scheduled.remove(&partition).unwrap_or_default() {
            for item in list {
                self.cancel_item(item);
            }
        }
    }

    fn fire(&mut self, due: delay_queue::Expired<ScheduledTimer<D>>) {
        let key = due.key();
        let ScheduledTimer {
            partition,
            id,
            command,
            trace,
        } = due.into_inner();
        let list = self
            .scheduled
            .get_mut(&partition)
            .and_then(|ids| ids.get_mut(&id));
        for item in list.into_iter().flatten() {
            if let ItemHandle::Timer(timer) = &mut item.handle
                && *timer == Some(key)
            {
                *timer = None;
            }
        }
        let service = D::Contract::SERVICE.name();
        self.shared
            .metrics
            .timers_fired
            .with_label_values(&[service])
            .inc();
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move { shared.results.send(&id, command, "timer", trace).await });
    }
}
