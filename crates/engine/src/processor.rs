//! A service's worker on Kafka, to be run on a thread.

use std::sync::Arc;

use contracts::Contract;
use observability::Outage;
use tokio::runtime::Handle;

use crate::codec::Codec;
use crate::effects::{EffectHandler, Executor, Limits};
use crate::log::Cluster;
use crate::log::kafka::{KafkaLog, Sender};
use crate::metrics::Metrics;
use crate::worker::{Error, Settings, Status, Worker};
use crate::{Command, Decider};

/// The parts of a processor.
pub struct Processor<D: Decider, P: EffectHandler<D>> {
    /// The rule book.
    pub rules: D,
    /// Carries out its effects.
    pub handler: P,
    /// The Kafka cluster.
    pub cluster: Arc<Cluster>,
    /// Encodes and decodes records.
    pub codec: Codec,
    /// Sends the results of effects, and due timers.
    pub sender: Sender,
    /// Unique name of this worker among all processes, for its static membership and its transactional id.
    pub instance: String,
    /// Metrics of the engine.
    pub metrics: Metrics,
    /// Settings of the worker.
    pub settings: Settings,
    /// Limits of its effects.
    pub limits: Limits,
}

impl<D: Decider, P: EffectHandler<D>> Processor<D, P>
where
    Command<D>: Into<contracts::Command>,
{
    /// Runs until `stopped`, on the calling thread. Passes the worker's status to `report_status` once, before the
    /// first step.
    ///
    /// # Errors
    ///
    /// The worker has to end; the process must not continue without it.
    pub fn run(
        self,
        runtime: &Handle,
        stopped: impl Fn() -> bool,
        report_status: impl FnOnce(Status),
    ) -> Result<(), Error> {
        let service = D::Contract::SERVICE;
        let mut outage = Outage::of(format!("{service} log"));
        let log = loop {
            match KafkaLog::new(Arc::clone(&self.cluster), service, &self.instance) {
                Ok(log) => break log,
                Err(crate::log::Error::Unavailable(_)) if stopped() => return Ok(()),
                Err(crate::log::Error::Unavailable(reason)) => outage.failed(reason),
                Err(error) => return Err(Error::Log(error)),
            }
        };
        outage.answered();
        drop(outage);
        let executor = Executor::start(
            runtime,
            self.handler,
            self.sender,
            self.codec.clone(),
            self.metrics.clone(),
            self.limits,
        );
        let mut worker = Worker::new(
            self.rules,
            self.cluster,
            self.codec,
            log,
            executor,
            self.metrics,
            self.settings,
        );
        report_status(worker.status());
        while !stopped() {
            worker.step()?;
        }
        worker.close();
        Ok(())
    }
}
