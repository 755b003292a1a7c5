//! A service's worker on Kafka, ready to be run on a thread.

use std::sync::Arc;

use contracts::Contract;
use observability::Outage;
use tokio::runtime::Handle;

use crate::codec::Codec;
use crate::effects::{EffectHandler, Executor, Limits};
use crate::log::kafka::client::drop_in_background;
use crate::log::kafka::{Cluster, KafkaLog, Sender};
use crate::metrics::Metrics;
use crate::worker::{Error, Settings, Status, Worker};
use crate::{Command, Decider};

/// What a processor is made of.
pub struct Processor<D: Decider, P: EffectHandler<D>> {
    /// The rule book.
    pub rules: D,
    /// Carries out its effects.
    pub perform: P,
    /// Where the log is.
    pub cluster: Arc<Cluster>,
    /// Bytes.
    pub codec: Codec,
    /// Sends answers and timers.
    pub sender: Sender,
    /// Names this worker among all processes: its static membership and its transactional id.
    pub instance: String,
    /// Figures.
    pub metrics: Metrics,
    /// Of the worker.
    pub settings: Settings,
    /// Of its effects.
    pub limits: Limits,
}

impl<D: Decider, P: EffectHandler<D>> Processor<D, P>
where
    Command<D>: Into<contracts::Command>,
{
    /// Runs until `stopped`, on the calling thread. `tell` is given the worker's status once, before the first step.
    ///
    /// # Errors
    ///
    /// When the worker has to end; the process must not go on without it.
    pub fn run(
        self,
        runtime: &Handle,
        stopped: impl Fn() -> bool,
        tell: impl FnOnce(Status),
    ) -> Result<(), Error> {
        let service = D::Contract::SERVICE;
        let mut outage = Outage::of(format!("{service} log"));
        let log = loop {
            match KafkaLog::new(Arc::clone(&self.cluster), service, &self.instance) {
                Ok(log) => break log,
                Err(crate::log::Error::Unavailable(reason)) if !stopped() => outage.failed(reason),
                Err(error) => return Err(Error::Log(error)),
            }
        };
        outage.answered();
        drop(outage);
        let executor = Executor::start(
            runtime,
            self.perform,
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
        tell(worker.status());
        let ended = loop {
            if stopped() {
                worker.close();
                break Ok(());
            }
            if let Err(error) = worker.step() {
                break Err(error);
            }
        };
        // Closing a consumer in the middle of a rebalance can hang.
        drop_in_background(worker);
        ended
    }
}
