//! What the services of this process share: the log, the contracts, the metrics.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chassis::{Component, Process};
use contracts::{Contract, Service};
use engine::effects::{Attempt, EffectHandler, Limits, Unknown};
use engine::worker::Settings;
use engine::{Cluster, Codec, Command, CommandClient, Decider, Metrics, Processor, Sender};
use tokio::runtime::Handle;

use super::calls::Calls;
use super::status::{follow, follow_health};
use super::{Args, Role, startup};

/// For one answer of the payment provider or the carrier.
pub(super) const PARTNER_DEADLINE: Duration = Duration::from_secs(5);
/// How long one tracking call waits for a parcel.
pub(super) const TRACKING_WAIT: Duration = Duration::from_secs(20);

/// What the services of this process share.
pub(super) struct Runtime {
    pub(super) process: Process,
    pub(super) cluster: Arc<Cluster>,
    pub(super) codec: Codec,
    sender: Sender,
    metrics: Metrics,
    instance: String,
}

impl Runtime {
    /// Connects to the log, and registers the contracts of `services` and `roles`.
    ///
    /// # Errors
    ///
    /// What is missing does not come by waiting.
    pub(super) async fn connect(
        args: &Args,
        process: &Process,
        parts: &Component,
        services: &[Service],
        roles: &BTreeSet<Role>,
    ) -> anyhow::Result<Self> {
        let cluster = Arc::new(platform_client::cluster(&args.stack.kafka));
        startup::topics(&cluster, parts).await?;
        let schemas = startup::schemas(args, process, parts, services, roles).await?;
        let attended = schemas.clone();
        process.spawn_beside("registry", async move { attended.attend().await });
        let sender = Sender::new(Arc::clone(&cluster))?;
        let (attended, told) = (sender.clone(), sender.clone());
        process.spawn_beside("commands", async move { attended.attend().await });
        if !services.is_empty() {
            let component = process.readiness().component("commands");
            let follow = follow_health(move || told.health(), component);
            process.spawn_beside("commands readiness", follow);
        }
        Ok(Self {
            process: process.clone(),
            sender,
            cluster,
            codec: Codec::new(schemas),
            metrics: Metrics::new(process.registry())?,
            instance: args.instance_name(),
        })
    }

    /// A client of the commands of a service; `calls` waits for its outcomes.
    pub(super) fn caller<C: Contract>(&self, calls: &mut Calls) -> CommandClient<C> {
        let caller = CommandClient::new(
            Arc::clone(&self.cluster),
            self.sender.clone(),
            self.codec.clone(),
        );
        calls.add(&caller);
        caller
    }

    /// Runs a service's worker on a thread of its own.
    pub(super) fn run_worker<D, P>(
        &self,
        rules: D,
        perform: P,
        settings: Settings,
        calls: &Calls,
    ) -> anyhow::Result<()>
    where
        D: Decider,
        P: EffectHandler<D>,
        Command<D>: Into<contracts::Command>,
    {
        let service = D::Contract::SERVICE;
        let component = self.process.readiness().component(service.name());
        let runtime = Handle::current();
        let processor = Processor {
            rules,
            perform,
            cluster: Arc::clone(&self.cluster),
            codec: self.codec.clone(),
            sender: self.sender.clone(),
            instance: self.instance.clone(),
            metrics: self.metrics.clone(),
            settings,
            limits: Limits {
                deadline: PARTNER_DEADLINE + TRACKING_WAIT,
                ..Limits::default()
            },
        };
        let calls = calls.clone();
        let process = self.process.clone();
        self.process
            .spawn_thread(format!("{service} worker"), move |shutdown| {
                // Tasks are started from this thread.
                let _inside = runtime.enter();
                processor.run(
                    &runtime,
                    || calls.are_over(&shutdown),
                    |status| {
                        // Ends with the process; nothing waits for it.
                        let rounds = status.clone();
                        let follow =
                            follow(move || rounds.rounds(), move || status.ready(), component);
                        process.spawn_beside("worker status", follow);
                    },
                )
            })?;
        Ok(())
    }
}

/// Orders and stock items ask nothing of the outside world.
pub(super) struct NoEffects;

impl<D: Decider<Effect = std::convert::Infallible>> EffectHandler<D> for NoEffects {
    fn target(&self, effect: &std::convert::Infallible) -> &'static str {
        match *effect {}
    }

    async fn perform(
        &self,
        _key: &str,
        effect: &std::convert::Infallible,
        _attempt: Attempt,
    ) -> Result<Command<D>, Unknown> {
        match *effect {}
    }
}
