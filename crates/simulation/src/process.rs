//! A process of one service: the real worker on the simulated log, and the real effect executor on a runtime with a
//! paused clock.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use contracts::{Contract as _, Service, Topic};
use engine::effects::{Attempt, EffectHandler, Executor, Indeterminate, Limits};
use engine::log::partitioner::partition_of;
use engine::log::simulated::{Broker, FaultInjector, Probe, SimulatedLog};
use engine::worker::{Settings, Worker};
use engine::{Cluster, Codec, Command, Decider, Metrics};
use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use crate::effect_runtime::SimulatedRuntime;
use crate::rng::SeededRng;
use crate::safeguard::Safeguard;

/// The resources that all processes of a run share.
#[derive(Clone)]
pub struct ProcessContext {
    pub broker: Broker,
    pub rng: SeededRng,
    pub codec: Codec,
    pub metrics: Metrics,
    pub cluster: Arc<Cluster>,
    pub settings: Settings,
    /// See [`crate::Plan::unknown_send_ppm`].
    pub unknown_send_ppm: u32,
    pub disabled_safeguard: Option<Safeguard>,
    /// Violations that the processes have found.
    pub violations: Arc<Mutex<Vec<String>>>,
}

/// A function that returns whether a command is an answer to an effect.
pub type IsAnswer<D> = fn(&<D as Decider>::Effect, &Command<D>) -> bool;

/// A process, as the scheduler sees it.
pub trait Process {
    /// One step of its worker.
    ///
    /// # Errors
    ///
    /// Why the worker ends.
    fn step(&mut self) -> Result<(), engine::worker::Error>;

    /// Runs the effects and timers that are due.
    fn run_effects(&mut self);

    /// The probe of its log.
    fn probe(&self) -> &Probe;
}

struct RunningProcess<D: Decider>
where
    Command<D>: Into<contracts::Command>,
{
    worker: Worker<D, SimulatedLog, Executor<D>>,
    probe: Probe,
    broker: Broker,
    runtime: Runtime,
    started: (Instant, i64),
}

/// Starts a process; `None` when the broker refuses.
pub fn start<D: Decider, P: EffectHandler<D>>(
    context: &ProcessContext,
    faults: Rc<dyn FaultInjector>,
    instance: &str,
    rules: D,
    handler: P,
    is_answer: IsAnswer<D>,
) -> Option<Box<dyn Process>>
where
    Command<D>: Into<contracts::Command>,
{
    let service: Service = D::Contract::SERVICE;
    let broker = context.broker.clone();
    let disabled_in_log = context
        .disabled_safeguard
        .and_then(Safeguard::disabled_in_log);
    let log = SimulatedLog::new(broker.clone(), faults, service, instance, disabled_in_log).ok()?;
    let runtime = paused_runtime();
    let now = runtime.block_on(async { Instant::now() });
    let started = (now, broker.clock().unix_ms());
    let effect_runtime = SimulatedRuntime {
        broker: broker.clone(),
        rng: context.rng.clone(),
        unknown_send_ppm: context.unknown_send_ppm,
        started,
    };
    let executor = Executor::start(
        runtime.handle(),
        CheckedEffects {
            handler,
            context: context.clone(),
            is_answer,
            started_ms: started.1,
        },
        effect_runtime,
        context.codec.clone(),
        context.metrics.clone(),
        Limits {
            concurrency: 4,
            ..Limits::default()
        },
    );
    let probe = log.probe();
    let worker = Worker::new(
        rules,
        Arc::clone(&context.cluster),
        context.codec.clone(),
        log,
        executor,
        context.metrics.clone(),
        Settings {
            disabled: context
                .disabled_safeguard
                .and_then(Safeguard::disabled_in_worker),
            ..context.settings.clone()
        },
    );
    Some(Box::new(RunningProcess {
        worker,
        probe,
        broker,
        runtime,
        started,
    }))
}

impl<D: Decider> Process for RunningProcess<D>
where
    Command<D>: Into<contracts::Command>,
{
    fn step(&mut self) -> Result<(), engine::worker::Error> {
        self.worker.step()
    }

    fn run_effects(&mut self) {
        let elapsed_ms = self.broker.clock().unix_ms() - self.started.1;
        run_until(&self.runtime, self.started.0, elapsed_ms);
    }

    fn probe(&self) -> &Probe {
        &self.probe
    }
}

/// A runtime on this thread with a paused clock.
pub fn paused_runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("needs no I/O driver")
}

/// Runs a runtime until that much time has passed since it was started, timer by timer in order.
pub fn run_until(runtime: &Runtime, started: Instant, elapsed_ms: i64) {
    let until = started + Duration::from_millis(elapsed_ms.unsigned_abs());
    runtime.block_on(async {
        tokio::time::sleep_until(until).await;
        // Runs the tasks that became due at the last instant.
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    });
}

/// Records the calls of partners in the journal, checks their order, and replaces the keys of effects while
/// [`Safeguard::EffectKey`] is disabled.
struct CheckedEffects<D: Decider, P> {
    handler: P,
    context: ProcessContext,
    is_answer: IsAnswer<D>,
    started_ms: i64,
}

impl<D: Decider, P> CheckedEffects<D, P> {
    /// Reports an effect whose answer was in the log before the process started.
    fn check_unanswered(&self, key: &str, effect: &D::Effect) {
        let id = key.split('/').next().unwrap_or_default().as_bytes();
        let broker = &self.context.broker;
        let partition = partition_of(id, broker.partitions());
        let tp = (D::Contract::SERVICE, Topic::Commands, partition);
        let commands = broker.fetch(tp, 0, usize::MAX).inputs.into_iter();
        let is_answered = commands
            .filter(|input| input.time_ms < self.started_ms && input.key.as_deref() == Some(id))
            .filter_map(|input| self.context.codec.command::<D::Contract>(&input).ok())
            .any(|(_, command)| (self.is_answer)(effect, &command));
        if is_answered {
            let violation = format!("{key} is executed although its answer was already in the log");
            let mut violations = self.context.violations.lock();
            violations.push(violation);
        }
    }
}

impl<D: Decider, P: EffectHandler<D>> EffectHandler<D> for CheckedEffects<D, P> {
    fn target(&self, effect: &D::Effect) -> &'static str {
        self.handler.target(effect)
    }

    async fn perform(
        &self,
        key: &str,
        effect: &D::Effect,
        attempt: Attempt,
    ) -> Result<Command<D>, Indeterminate> {
        let journal = self.context.broker.journal();
        let target = self.handler.target(effect);
        journal.note(format_args!(
            "{target} is called with {key} (attempt {})",
            attempt.number
        ));
        if attempt.number == 1 {
            self.check_unanswered(key, effect);
        }
        let mut key = key.to_owned();
        if self.context.disabled_safeguard == Some(Safeguard::EffectKey) {
            key = format!("{key}/{}", self.context.broker.clock().unix_ms());
        }
        let answer = self.handler.perform(&key, effect, attempt).await;
        journal.note(format_args!(
            "{target} answers {key}: {}",
            match &answer {
                Ok(_) => "definite",
                Err(indeterminate) => &indeterminate.reason,
            }
        ));
        answer
    }
}
