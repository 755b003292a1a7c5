//! Runs effects and timers on tokio and sends what comes of them to the service's own commands.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use contracts::core::v1::Metadata;
use contracts::{Contract, Message};
use futures::{FutureExt as _, StreamExt as _};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue;
use uuid::Uuid;

use super::breaker::{Breaker, Pass};
use super::{Agenda, Attempt, Origin, Perform, backoff};
use crate::codec::Codec;
use crate::log::Partition;
use crate::log::kafka::Sender;
use crate::metrics::Metrics;
use crate::{Command, Decider, Outstanding};

/// A timer that is due later rings then, which its rule book finds stale or not.
const LONGEST_TIMER_MS: u64 = 365 * 24 * 60 * 60 * 1000;

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
    orders: mpsc::UnboundedSender<Order<D>>,
}

enum Order<D: Decider> {
    Replace {
        partition: Partition,
        id: String,
        outstanding: Vec<Outstanding<D>>,
        origin: Origin,
    },
    Forget {
        partition: Partition,
    },
}

impl<D: Decider> Agenda<D> for Executor<D>
where
    Command<D>: Into<contracts::Command>,
{
    fn replace(
        &mut self,
        partition: Partition,
        id: String,
        outstanding: Vec<Outstanding<D>>,
        origin: Origin,
    ) {
        let _ = self.orders.send(Order::Replace {
            partition,
            id,
            outstanding,
            origin,
        });
    }

    fn forget(&mut self, partition: Partition) {
        let _ = self.orders.send(Order::Forget { partition });
    }

    fn is_alive(&self) -> bool {
        !self.orders.is_closed()
    }
}

impl<D: Decider> Executor<D>
where
    Command<D>: Into<contracts::Command>,
{
    /// Starts the executor on `runtime`; it ends when this handle is dropped.
    pub fn start<P: Perform<D>>(
        runtime: &Handle,
        perform: P,
        sender: Sender,
        codec: Codec,
        metrics: Metrics,
        limits: Limits,
    ) -> Self {
        let (orders, inbox) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            perform,
            answers: Answers { sender, codec },
            metrics,
            limits,
            targets: Mutex::default(),
        });
        runtime.spawn(
            Agent {
                shared,
                running: HashMap::new(),
                timers: DelayQueue::new(),
            }
            .run(inbox),
        );
        Self { orders }
    }
}

/// Sends commands to the service's own topic.
struct Answers {
    sender: Sender,
    codec: Codec,
}

impl Answers {
    /// Until it is durable: an answer that is lost would leave its effect unanswered in the log.
    async fn send<C: Into<contracts::Command>>(&self, id: &str, command: C, actor: &'static str) {
        let message = Message::new(id, command);
        let service = message.service();
        let metadata = Metadata {
            id: Uuid::now_v7().to_string(),
            aggregate_id: id.to_owned(),
            time_ms: unix_ms(),
            actor: actor.to_owned(),
            ..Metadata::default()
        };
        let kind = message.kind();
        let payload = self.codec.encode_message(message, metadata);
        let mut random = fastrand::Rng::new();
        for number in 1.. {
            let sent = match self.sender.send(service, id, &payload, &[]) {
                Ok(durable) => durable.await,
                Err(error) => Err(error),
            };
            match sent {
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(%service, kind, %error, "answer not written, retrying");
                    tokio::time::sleep(backoff::after(number, &mut random)).await;
                }
            }
        }
    }
}

struct Shared<P> {
    perform: P,
    answers: Answers,
    metrics: Metrics,
    limits: Limits,
    targets: Mutex<HashMap<&'static str, Arc<Target>>>,
}

struct Target {
    permits: Semaphore,
    breaker: Mutex<Breaker>,
}

impl<P> Shared<P> {
    fn target(&self, name: &'static str) -> Arc<Target> {
        let mut targets = self.targets.lock().expect("no holder panics");
        Arc::clone(targets.entry(name).or_insert_with(|| {
            Arc::new(Target {
                permits: Semaphore::new(self.limits.concurrency),
                breaker: Mutex::default(),
            })
        }))
    }
}

/// The task that owns everything that runs.
struct Agent<D: Decider, P: Perform<D>> {
    shared: Arc<Shared<P>>,
    running: HashMap<Partition, HashMap<String, Vec<Running<D>>>>,
    timers: DelayQueue<Due<D>>,
}

struct Due<D: Decider> {
    partition: Partition,
    id: String,
    command: Command<D>,
}

struct Running<D: Decider> {
    what: Outstanding<D>,
    stop: Stop,
}

enum Stop {
    Effect(AbortHandle),
    /// `None` once it has fired.
    Timer(Option<delay_queue::Key>),
}

impl<D: Decider, P: Perform<D>> Agent<D, P>
where
    Command<D>: Into<contracts::Command>,
{
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Order<D>>) {
        loop {
            tokio::select! {
                order = inbox.recv() => match order {
                    Some(Order::Replace { partition, id, outstanding, origin }) => {
                        self.replace(partition, id, outstanding, origin);
                    }
                    Some(Order::Forget { partition }) => self.forget(partition),
                    None => break,
                },
                Some(due) = self.timers.next() => self.fire(due),
            }
        }
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
        origin: Origin,
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
                    let stop = self.begin(partition, &id, &what, origin);
                    now.push(Running { what, stop });
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
        origin: Origin,
    ) -> Stop {
        match what {
            Outstanding::Effect { key, effect } => {
                let task = carry_out::<D, P>(
                    Arc::clone(&self.shared),
                    id.to_owned(),
                    key.clone(),
                    effect.clone(),
                    origin,
                );
                Stop::Effect(tokio::spawn(task).abort_handle())
            }
            Outstanding::Timer { due_ms, command } => {
                let wait = u64::try_from(due_ms.saturating_sub(unix_ms())).unwrap_or(0);
                // The queue panics beyond about two years; a clock may be wrong by more.
                let wait = wait.min(LONGEST_TIMER_MS);
                let key = self.timers.insert(
                    Due {
                        partition,
                        id: id.to_owned(),
                        command: command.clone(),
                    },
                    Duration::from_millis(wait),
                );
                Stop::Timer(Some(key))
            }
        }
    }

    fn end(&mut self, running: Running<D>) {
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
        tokio::spawn(async move { shared.answers.send(&id, command, "timer").await });
    }
}

/// Tries an effect until its partner gives a definite answer, and sends the answer.
async fn carry_out<D: Decider, P: Perform<D>>(
    shared: Arc<Shared<P>>,
    id: String,
    key: String,
    effect: D::Effect,
    origin: Origin,
) where
    Command<D>: Into<contracts::Command>,
{
    let service = D::Contract::SERVICE.name();
    let name = shared.perform.target(&effect);
    let target = shared.target(name);
    let outstanding = Counted(
        shared
            .metrics
            .effects_outstanding
            .with_label_values(&[service]),
    );
    outstanding.0.inc();
    let count = |result: &str| {
        shared
            .metrics
            .effects
            .with_label_values(&[service, name, result])
            .inc();
    };
    let mut may_have_run = origin == Origin::TakenOver;
    let mut random = fastrand::Rng::new();
    for number in 1.. {
        let attempt = Attempt {
            number,
            may_have_run,
        };
        let tried = try_once(&shared, &target, &key, &effect, attempt).await;
        may_have_run = true;
        match tried {
            Ok(command) => {
                count("answered");
                shared.answers.send(&id, command, name).await;
                return;
            }
            Err(Some(unknown)) => {
                count(if unknown.partner_fault {
                    "unknown"
                } else {
                    "not_yet"
                });
                tracing::debug!(service, target_name = name, key, reason = %unknown, number, "no definite answer");
            }
            Err(None) => count("timed_out"),
        }
        tokio::time::sleep(backoff::after(number, &mut random)).await;
    }
}

/// One try, as soon as the breaker and the concurrency limit let it pass; `Err(None)` when its time ran out.
async fn try_once<D: Decider, P: Perform<D>>(
    shared: &Shared<P>,
    target: &Target,
    key: &str,
    effect: &D::Effect,
    attempt: Attempt,
) -> Result<Command<D>, Option<super::Unknown>> {
    let _permit = loop {
        let permit = target
            .permits
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let pass = target
            .breaker
            .lock()
            .expect("no holder panics")
            .ask(Instant::now());
        match pass {
            Pass::Go => break permit,
            Pass::Wait(wait) => {
                drop(permit);
                tokio::time::sleep(wait).await;
            }
        }
    };
    // An effect that is stopped here, its partition having gone, must not leave the breaker waiting for its probe.
    let passed = Passed {
        target,
        told: false,
    };
    let call = AssertUnwindSafe(shared.perform.perform(key, effect, attempt)).catch_unwind();
    let tried = tokio::time::timeout(shared.limits.deadline, call)
        .await
        .map(|ended| {
            ended.unwrap_or_else(|_| {
                Err(super::Unknown {
                    reason: "the call panicked".into(),
                    partner_fault: true,
                })
            })
        });
    match tried {
        Ok(Ok(command)) => {
            passed.tell(Breaker::succeeded);
            Ok(command)
        }
        Ok(Err(unknown)) => {
            if unknown.partner_fault {
                passed.tell(|breaker| breaker.failed(Instant::now()));
            } else {
                passed.tell(Breaker::succeeded);
            }
            Err(Some(unknown))
        }
        Err(_) => {
            passed.tell(|breaker| breaker.failed(Instant::now()));
            Err(None)
        }
    }
}

struct Passed<'a> {
    target: &'a Target,
    told: bool,
}

impl Passed<'_> {
    fn tell(mut self, change: impl FnOnce(&mut Breaker)) {
        change(&mut self.target.breaker.lock().expect("no holder panics"));
        self.told = true;
    }
}

impl Drop for Passed<'_> {
    fn drop(&mut self) {
        if !self.told {
            self.target
                .breaker
                .lock()
                .expect("no holder panics")
                .abandoned();
        }
    }
}

/// Counts an effect as outstanding for as long as its task lives.
struct Counted(prometheus::IntGauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn unix_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}
