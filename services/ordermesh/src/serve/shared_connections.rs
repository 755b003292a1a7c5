//! The connections and metrics that the services of this process share.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chassis::{Component, Process};
use contracts::{Contract, Service};
use engine::effects::{EffectHandler, Limits};
use engine::worker::Settings;
use engine::{Cluster, Codec, Command, CommandClient, Decider, Metrics, Processor, Sender};
use tokio::runtime::Handle;

use super::pending_calls::PendingCalls;
use super::readiness::{report_health, report_loop_health};
use super::{Args, Role, startup};

/// Deadline of one call to the payment provider or the carrier.
pub(super) const PARTNER_DEADLINE: Duration = Duration::from_secs(5);
/// How long one tracking call waits for a change of the parcel.
pub(super) const TRACKING_WAIT: Duration = Duration::from_secs(20);

/// The connections and metrics that the services of this process share.
pub(super) struct SharedConnections {
    pub(super) process: Process,
    pub(super) cluster: Arc<Cluster>,
    pub(super) codec: Codec,
    sender: Sender,
    metrics: Metrics,
    instance: String,
}

impl SharedConnections {
    /// Connects to the log, and registers the contracts of `services` and `roles`.
    ///
    /// # Errors
    ///
    /// A failure that waiting cannot resolve, such as missing topics.
    pub(super) async fn connect(
        args: &Args,
        process: &Process,
        startup: &Component,
        services: &[Service],
        roles: &BTreeSet<Role>,
    ) -> anyhow::Result<Self> {
        let cluster = Arc::new(platform_client::cluster(&args.stack.kafka));
        startup::topics(&cluster, startup).await?;
        let schemas = startup::schemas(args, process, startup, services, roles).await?;
        let monitored_schemas = schemas.clone();
        process.spawn_detached("registry", async move { monitored_schemas.monitor().await });
        let sender = Sender::new(Arc::clone(&cluster))?;
        let (monitored_sender, sender_health) = (sender.clone(), sender.clone());
        process.spawn_detached("commands", async move { monitored_sender.monitor().await });
        if !services.is_empty() {
            let component = process.readiness().component("commands");
            let report = report_health(move || sender_health.health(), component);
            process.spawn_detached("commands readiness", report);
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

    /// A command client of a service; `pending_calls` receives its outcomes.
    pub(super) fn command_client<C: Contract>(
        &self,
        pending_calls: &mut PendingCalls,
    ) -> CommandClient<C> {
        let client = CommandClient::new(
            Arc::clone(&self.cluster),
            self.sender.clone(),
            self.codec.clone(),
        );
        pending_calls.add(&client);
        client
    }

    /// Runs a service's worker on a thread of its own.
    pub(super) fn run_worker<D, P>(
        &self,
        rules: D,
        handler: P,
        settings: Settings,
        pending_calls: &PendingCalls,
    ) -> anyhow::Result<()>
    where
        D: Decider,
        P: EffectHandler<D>,
        Command<D>: Into<contracts::Command>,
    {
        let service = D::Contract::SERVICE;
        let component = self.process.readiness().component(service.name());
        let tokio_handle = Handle::current();
        let processor = Processor {
            rules,
            handler,
            cluster: Arc::clone(&self.cluster),
            codec: self.codec.clone(),
            sender: self.sender.clone(),
            instance: self.instance.clone(),
            metrics: self.metrics.clone(),
            settings,
            limits: Limits {
                // Tracking calls take the longest; the deadline must allow for them.
                deadline: PARTNER_DEADLINE + TRACKING_WAIT,
                ..Limits::default()
            },
        };
        let pending_calls = pending_calls.clone();
        let process = self.process.clone();
        self.process
            .spawn_thread(format!("{service} worker"), move |shutdown| {
                // The worker spawns tasks from this thread.
                let _guard = tokio_handle.enter();
                processor.run(
                    &tokio_handle,
                    || pending_calls.allow_shutdown(&shutdown),
                    |status| {
                        let observed = status.clone();
                        process
                            .states()
                            .add(service.name(), move || observed.observable_state());
                        // Detached: it runs until the process ends.
                        let worker_status = status.clone();
                        let report = report_loop_health(
                            move || worker_status.iterations(),
                            move || status.ready(),
                            component,
                        );
                        process.spawn_detached("worker status", report);
                    },
                )
            })?;
        Ok(())
    }
}
