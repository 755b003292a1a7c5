//! Engines on threads.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use contracts::Contract as _;
use engine::effects::{Attempt, EffectHandler, Executor, Limits, Unknown};
use engine::log::Log;
use engine::log::kafka::KafkaLog;
use engine::worker::{Error, Settings, Status, Worker};
use engine::{Codec, Command, Decider, Metrics};
use prometheus::proto::Metric;

use crate::{KafkaFixture, eventually};

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

/// A worker on a thread of its own.
pub struct RunningWorker {
    /// What it says of itself.
    pub status: Status,
    /// Its figures.
    pub figures: prometheus::Registry,
    stopped: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), Error>>,
}

impl KafkaFixture {
    /// The log of a worker of `D`'s service.
    ///
    /// # Panics
    ///
    /// When Kafka cannot be reached.
    pub fn log<D: Decider>(&self, instance: &str) -> KafkaLog {
        KafkaLog::new(Arc::clone(&self.cluster), D::Contract::SERVICE, instance)
            .expect("Kafka runs")
    }

    /// A worker that has not polled yet, for tests that take its steps themselves.
    ///
    /// # Panics
    ///
    /// Never: its metrics are registered on a registry of their own.
    pub fn worker<D: Decider, L: Log, P: EffectHandler<D>>(
        &self,
        rules: D,
        perform: P,
        log: L,
        codec: Codec,
        settings: Settings,
        figures: &prometheus::Registry,
    ) -> Worker<D, L, Executor<D>>
    where
        Command<D>: Into<contracts::Command>,
    {
        let metrics = Metrics::new(figures).expect("the registry is empty");
        let executor = Executor::start(
            self.runtime.handle(),
            perform,
            self.sender(),
            codec.clone(),
            metrics.clone(),
            Limits::default(),
        );
        Worker::new(
            rules,
            Arc::clone(&self.cluster),
            codec,
            log,
            executor,
            metrics,
            settings,
        )
    }

    /// Runs a worker of `D` under the instance name `one` until it is stopped.
    pub fn run<D: Decider, P: EffectHandler<D>>(
        &self,
        rules: D,
        perform: P,
        settings: Settings,
    ) -> RunningWorker
    where
        Command<D>: Into<contracts::Command>,
    {
        self.run_as("one", rules, perform, settings)
    }

    /// Runs a worker of `D` under a name of its own.
    pub fn run_as<D: Decider, P: EffectHandler<D>>(
        &self,
        instance: &str,
        rules: D,
        perform: P,
        settings: Settings,
    ) -> RunningWorker
    where
        Command<D>: Into<contracts::Command>,
    {
        self.run_on(rules, perform, self.log::<D>(instance), settings)
    }

    /// Runs a worker of `D` on a log of its own.
    pub fn run_on<D: Decider, P: EffectHandler<D>, L: Log + Send + 'static>(
        &self,
        rules: D,
        perform: P,
        log: L,
        settings: Settings,
    ) -> RunningWorker
    where
        Command<D>: Into<contracts::Command>,
    {
        let figures = prometheus::Registry::new();
        let mut worker = self.worker(rules, perform, log, self.codec.clone(), settings, &figures);
        let stopped = Arc::new(AtomicBool::new(false));
        let status = worker.status();
        let thread = std::thread::spawn({
            let stopped = Arc::clone(&stopped);
            move || {
                let ended = loop {
                    if stopped.load(Ordering::Relaxed) {
                        worker.close();
                        break Ok(());
                    }
                    if let Err(error) = worker.step() {
                        break Err(error);
                    }
                };
                // Closing a consumer in the middle of a rebalance can hang: nobody waits for it.
                std::thread::spawn(move || drop(worker));
                ended
            }
        });
        RunningWorker {
            status,
            figures,
            stopped,
            thread,
        }
    }
}

impl RunningWorker {
    /// Waits until it does its work.
    pub fn ready(&self) {
        eventually("the worker is ready", || self.status.ready().ok());
    }

    /// Stops it; it must have been at work.
    ///
    /// # Panics
    ///
    /// When it had ended by itself.
    pub fn stop(self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .expect("the worker does not panic")
            .expect("the worker was at work until it was stopped");
    }

    /// Waits until it ends by itself, and says why.
    ///
    /// # Panics
    ///
    /// When it does not end.
    pub fn failed(self) -> Error {
        eventually("the worker ends by itself", || {
            self.thread.is_finished().then_some(())
        });
        self.thread
            .join()
            .expect("the worker does not panic")
            .expect_err("nobody stopped the worker")
    }

    /// The sum of a counter or gauge over its labels.
    pub fn figure(&self, name: &str) -> f64 {
        self.sum(name, |metric| {
            metric.get_counter().get_value() + metric.get_gauge().get_value()
        })
    }

    /// The same of what has this value as one of its labels.
    pub fn figure_of(&self, name: &str, label: &str) -> f64 {
        self.sum(name, |metric| {
            let is_meant = metric.get_label().iter().any(|pair| pair.value() == label);
            f64::from(u8::from(is_meant))
                * (metric.get_counter().get_value() + metric.get_gauge().get_value())
        })
    }

    /// What a histogram has observed, together.
    pub fn seconds(&self, name: &str) -> f64 {
        self.sum(name, |metric| metric.get_histogram().get_sample_sum())
    }

    fn sum(&self, name: &str, value: impl Fn(&Metric) -> f64) -> f64 {
        let families = self.figures.gather();
        families
            .iter()
            .filter(|family| family.name() == name)
            .flat_map(|family| family.get_metric())
            .map(value)
            .sum()
    }
}
