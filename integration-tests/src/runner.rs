//! Workers on threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use contracts::Contract as _;
use engine::effects::{EffectHandler, Executor, Limits};
use engine::log::Log;
use engine::log::kafka::KafkaLog;
use engine::worker::{Error, Settings, Status, Worker};
use engine::{Codec, Command, Decider, Metrics};
use prometheus::proto::Metric;

use crate::{KafkaFixture, eventually};

/// A worker on a thread of its own.
pub struct RunningWorker {
    /// Status of the worker.
    pub status: Status,
    /// Registry of its metrics.
    pub registry: prometheus::Registry,
    stopped: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), Error>>,
}

impl KafkaFixture {
    /// The Kafka log of a worker of `D`'s service.
    ///
    /// # Panics
    ///
    /// When Kafka cannot be reached.
    pub fn log<D: Decider>(&self, instance: &str) -> KafkaLog {
        KafkaLog::new(Arc::clone(&self.cluster), D::Contract::SERVICE, instance)
            .expect("Kafka runs")
    }

    /// A worker that has not polled yet, for tests that call its steps themselves.
    ///
    /// # Panics
    ///
    /// Never: its metrics are registered on a registry of their own.
    pub fn worker<D: Decider, L: Log, P: EffectHandler<D>>(
        &self,
        rules: D,
        handler: P,
        log: L,
        codec: Codec,
        settings: Settings,
        registry: &prometheus::Registry,
    ) -> Worker<D, L, Executor<D>>
    where
        Command<D>: Into<contracts::Command>,
    {
        let metrics = Metrics::new(registry).expect("the registry is empty");
        let executor = Executor::start(
            self.runtime.handle(),
            handler,
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

    /// Runs a worker of `D` as instance `one` until it is stopped.
    pub fn run<D: Decider, P: EffectHandler<D>>(
        &self,
        rules: D,
        handler: P,
        settings: Settings,
    ) -> RunningWorker
    where
        Command<D>: Into<contracts::Command>,
    {
        self.run_as("one", rules, handler, settings)
    }

    /// Runs a worker of `D` as another instance.
    pub fn run_as<D: Decider, P: EffectHandler<D>>(
        &self,
        instance: &str,
        rules: D,
        handler: P,
        settings: Settings,
    ) -> RunningWorker
    where
        Command<D>: Into<contracts::Command>,
    {
        self.run_on(rules, handler, self.log::<D>(instance), settings)
    }

    /// Runs a worker of `D` on another log.
    pub fn run_on<D: Decider, P: EffectHandler<D>, L: Log + Send + 'static>(
        &self,
        rules: D,
        handler: P,
        log: L,
        settings: Settings,
    ) -> RunningWorker
    where
        Command<D>: Into<contracts::Command>,
    {
        let registry = prometheus::Registry::new();
        let mut worker = self.worker(rules, handler, log, self.codec.clone(), settings, &registry);
        let stopped = Arc::new(AtomicBool::new(false));
        let status = worker.status();
        let thread = std::thread::spawn({
            let stopped = Arc::clone(&stopped);
            move || {
                let result = loop {
                    if stopped.load(Ordering::Relaxed) {
                        worker.close();
                        break Ok(());
                    }
                    if let Err(error) = worker.step() {
                        break Err(error);
                    }
                };
                // Closing a consumer in the middle of a rebalance can hang: its thread is detached.
                std::thread::spawn(move || drop(worker));
                result
            }
        });
        RunningWorker {
            status,
            registry,
            stopped,
            thread,
        }
    }
}

impl RunningWorker {
    /// Waits until the worker is ready.
    pub fn wait_until_ready(&self) {
        eventually("the worker is ready", || self.status.ready().ok());
    }

    /// Stops the worker.
    ///
    /// # Panics
    ///
    /// When the worker had already ended.
    pub fn stop(self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .expect("the worker does not panic")
            .expect("the worker was at work until it was stopped");
    }

    /// Waits until the worker ends by itself. Returns its error.
    ///
    /// # Panics
    ///
    /// When the worker does not end.
    pub fn wait_for_failure(self) -> Error {
        eventually("the worker ends by itself", || {
            self.thread.is_finished().then_some(())
        });
        self.thread
            .join()
            .expect("the worker does not panic")
            .expect_err("the worker ended by itself")
    }

    /// Sum of a counter or gauge over its labels.
    pub fn metric(&self, name: &str) -> f64 {
        self.sum(name, |metric| {
            metric.get_counter().get_value() + metric.get_gauge().get_value()
        })
    }

    /// Sum of a counter or gauge over the series with this label value.
    pub fn metric_with_label(&self, name: &str, label: &str) -> f64 {
        self.sum(name, |metric| {
            let is_meant = metric.get_label().iter().any(|pair| pair.value() == label);
            f64::from(u8::from(is_meant))
                * (metric.get_counter().get_value() + metric.get_gauge().get_value())
        })
    }

    /// Sum of a histogram over its labels.
    pub fn histogram_sum(&self, name: &str) -> f64 {
        self.sum(name, |metric| metric.get_histogram().get_sample_sum())
    }

    fn sum(&self, name: &str, value: impl Fn(&Metric) -> f64) -> f64 {
        let families = self.registry.gather();
        families
            .iter()
            .filter(|family| family.name() == name)
            .flat_map(|family| family.get_metric())
            .map(value)
            .sum()
    }
}
