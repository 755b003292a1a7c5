//! A process of one service: the real worker on the simulated log, and the real executor on a runtime with a paused
//! clock.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contracts::{Contract as _, Service, Topic};
use engine::effects::{Attempt, EffectHandler, Executor, Limits, Unknown};
use engine::log::partitioner::partition_of;
use engine::log::simulated::{Broker, FaultInjector, Probe, SimulatedLog};
use engine::worker::{Settings, Worker};
use engine::{Cluster, Codec, Command, Decider, Metrics};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use crate::effect_runtime::SimulatedRuntime;
use crate::rng::SeededRng;
use crate::safeguard::Safeguard;

/// What every process of a world is made with.
#[derive(Clone)]
pub struct Parts {
    pub broker: Broker,
    pub dice: SeededRng,
    pub codec: Codec,
    pub metrics: Metrics,
    pub cluster: Arc<Cluster>,
    pub settings: Settings,
    pub unknown: u32,
    pub without: Option<Safeguard>,
    /// What processes have seen that must not be.
    pub violations: Arc<Mutex<Vec<String>>>,
}

/// Whether a command is an answer to an effect.
pub type Answers<D> = fn(&<D as Decider>::Effect, &Command<D>) -> bool;

/// For rule books that ask nothing of the outside world.
pub struct NoEffects;

impl<D: Decider<Effect = Infallible>> EffectHandler<D> for NoEffects {
    fn target(&self, effect: &Infallible) -> &'static str {
        match *effect {}
    }

    async fn perform(
        &self,
        _key: &str,
        effect: &Infallible,
        _attempt: Attempt,
    ) -> Result<Command<D>, Unknown> {
        match *effect {}
    }
}

/// A process, as the scheduler sees it.
pub trait Process {
    /// One round of its worker.
    ///
    /// # Errors
    ///
    /// Why it ends.
    fn step(&mut self) -> Result<(), engine::worker::Error>;

    /// Its effects and timers do what there is to do by now.
    fn drive(&mut self);

    /// What its log shows.
    fn pulse(&self) -> &Probe;
}

struct RunningProcess<D: Decider>
where
    Command<D>: Into<contracts::Command>,
{
    worker: Worker<D, SimulatedLog, Executor<D>>,
    pulse: Probe,
    broker: Broker,
    runtime: Runtime,
    begun: (Instant, i64),
}

/// Begins a process; `None` when the broker does not let it.
pub fn begin<D: Decider, P: EffectHandler<D>>(
    parts: &Parts,
    fate: Rc<dyn FaultInjector>,
    instance: &str,
    rules: D,
    perform: P,
    answers: Answers<D>,
) -> Option<Box<dyn Process>>
where
    Command<D>: Into<contracts::Command>,
{
    let service: Service = D::Contract::SERVICE;
    let broker = parts.broker.clone();
    let weakness = parts.without.and_then(Safeguard::weakness);
    let log = SimulatedLog::new(broker.clone(), fate, service, instance, weakness).ok()?;
    let runtime = runtime();
    let now = runtime.block_on(async { Instant::now() });
    let begun = (now, broker.clock().unix_ms());
    let around = SimulatedRuntime {
        broker: broker.clone(),
        dice: parts.dice.clone(),
        unknown: parts.unknown,
        begun,
    };
    let executor = Executor::start(
        runtime.handle(),
        Asking {
            perform,
            parts: parts.clone(),
            answers,
            begun_ms: begun.1,
        },
        around,
        parts.codec.clone(),
        parts.metrics.clone(),
        Limits {
            concurrency: 4,
            ..Limits::default()
        },
    );
    let pulse = log.pulse();
    let worker = Worker::new(
        rules,
        Arc::clone(&parts.cluster),
        parts.codec.clone(),
        log,
        executor,
        parts.metrics.clone(),
        Settings {
            without: parts.without.and_then(Safeguard::of_worker),
            ..parts.settings.clone()
        },
    );
    Some(Box::new(RunningProcess {
        worker,
        pulse,
        broker,
        runtime,
        begun,
    }))
}

impl<D: Decider> Process for RunningProcess<D>
where
    Command<D>: Into<contracts::Command>,
{
    fn step(&mut self) -> Result<(), engine::worker::Error> {
        self.worker.step()
    }

    fn drive(&mut self) {
        let elapsed_ms = self.broker.clock().unix_ms() - self.begun.1;
        elapse(&self.runtime, self.begun.0, elapsed_ms);
    }

    fn pulse(&self) -> &Probe {
        &self.pulse
    }
}

/// A runtime on this thread whose clock stands still.
pub fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("nothing of the system is asked for")
}

/// Lets a runtime work until that much time has passed since it was begun: timer after timer, in order.
pub fn elapse(runtime: &Runtime, begun: Instant, elapsed_ms: i64) {
    let until = begun + Duration::from_millis(elapsed_ms.unsigned_abs());
    runtime.block_on(async {
        tokio::time::sleep_until(until).await;
        // What became due in that very moment.
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    });
}

/// Takes down what partners are asked, and may forget what a key is for.
struct Asking<D: Decider, P> {
    perform: P,
    parts: Parts,
    answers: Answers<D>,
    begun_ms: i64,
}

impl<D: Decider, P> Asking<D, P> {
    /// What was in the log before the process began has been read before it asks for anything.
    fn check(&self, key: &str, effect: &D::Effect) {
        let id = key.split('/').next().unwrap_or_default().as_bytes();
        let broker = &self.parts.broker;
        let partition = partition_of(id, broker.partitions());
        let place = (D::Contract::SERVICE, Topic::Commands, partition);
        let commands = broker.fetch(place, 0, usize::MAX).inputs.into_iter();
        let known = commands
            .filter(|input| input.time_ms < self.begun_ms && input.key.as_deref() == Some(id))
            .filter_map(|input| self.parts.codec.command::<D::Contract>(&input).ok())
            .any(|(_, command)| (self.answers)(effect, &command));
        if known {
            let violation = format!("{key} is asked for although its answer was in the log before");
            let mut violations = self.parts.violations.lock().expect("no holder panics");
            violations.push(violation);
        }
    }
}

impl<D: Decider, P: EffectHandler<D>> EffectHandler<D> for Asking<D, P> {
    fn target(&self, effect: &D::Effect) -> &'static str {
        self.perform.target(effect)
    }

    async fn perform(
        &self,
        key: &str,
        effect: &D::Effect,
        attempt: Attempt,
    ) -> Result<Command<D>, Unknown> {
        let journal = self.parts.broker.journal();
        let target = self.perform.target(effect);
        journal.note(format_args!("{target} is asked {key} ({})", attempt.number));
        if attempt.number == 1 {
            self.check(key, effect);
        }
        let mut key = key.to_owned();
        if self.parts.without == Some(Safeguard::EffectKey) {
            key = format!("{key}/{}", self.parts.broker.clock().unix_ms());
        }
        let answer = self.perform.perform(&key, effect, attempt).await;
        journal.note(format_args!(
            "{target} answers {key}: {}",
            match &answer {
                Ok(_) => "definitely",
                Err(unknown) => &unknown.reason,
            }
        ));
        answer
    }
}
