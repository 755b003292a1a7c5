//! Checks before a process serves: the topics at the broker, the contracts at the registry.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chassis::{Component, Process};
use contracts::{Service, Topic};
use engine::Cluster;
use observability::Outage;
use registry::Schemas;

use super::{Args, Role};

/// Longest wait of one attempt for the registry; afterwards the readiness reports it.
const REGISTRY_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// Waits for the broker and checks the topics.
///
/// # Errors
///
/// Topics are missing (`ordermesh topics apply` creates them), or have another number of partitions.
pub(super) async fn topics(cluster: &Arc<Cluster>, startup: &Component) -> anyhow::Result<()> {
    let mut outage = Outage::of("broker");
    loop {
        let checked_cluster = Arc::clone(cluster);
        let checked =
            tokio::task::spawn_blocking(move || engine::topics::check(&checked_cluster)).await?;
        match checked {
            Err(error @ engine::topics::Error::Broker { .. }) => {
                outage.failed(&error);
                startup.not_ready(format!("waiting for the broker: {error}"));
            }
            result => {
                outage.answered();
                return Ok(result?);
            }
        }
    }
}

/// Registers the contracts that the services write, and looks up those that they read. Waits for the registry.
///
/// # Errors
///
/// A contract is incompatible with the registered versions.
pub(super) async fn schemas(
    args: &Args,
    process: &Process,
    startup: &Component,
    services: &[Service],
    roles: &BTreeSet<Role>,
) -> anyhow::Result<Schemas> {
    let mut writes = BTreeSet::new();
    let mut reads = BTreeSet::new();
    for service in services {
        for topic in [
            Topic::Commands,
            Topic::Events,
            Topic::State,
            Topic::Outcomes,
        ] {
            writes.insert((*service, topic));
            reads.insert((*service, topic));
        }
        // Orders sends commands to all services; the other services reply to orders.
        let receivers: &[Service] = if *service == Service::Orders {
            &Service::ALL
        } else {
            &[Service::Orders]
        };
        writes.extend(
            receivers
                .iter()
                .map(|receiver| (*receiver, Topic::Commands)),
        );
    }
    if roles.contains(&Role::Query) {
        reads.extend(Service::ALL.map(|service| (service, Topic::Events)));
    }
    let mut settings = registry::Settings::new(
        args.stack.registry.url.clone(),
        args.stack.kafka.prefix.clone(),
    );
    settings.deadline = REGISTRY_ATTEMPT_TIMEOUT;
    let metrics = registry::Metrics::new(process.registry())?;
    let writes: Vec<_> = writes.into_iter().collect();
    let reads: Vec<_> = reads.into_iter().collect();
    let mut outage = Outage::of("schema registry");
    loop {
        match Schemas::register(&settings, metrics.clone(), &writes, &reads).await {
            Err(error @ registry::Error::Unavailable { .. }) => {
                outage.failed(&error);
                startup.not_ready(format!("waiting for the schema registry: {error}"));
            }
            result => {
                outage.answered();
                return Ok(result?);
            }
        }
    }
}
