//! What a process waits for before it serves: a broker with the topics, a registry with the contracts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chassis::{Component, Process};
use contracts::{Service, Topic};
use engine::Cluster;
use observability::Outage;
use registry::Schemas;

use super::{Args, Role};

/// How long one try waits for the registry before readiness says so.
const REGISTRY_TRY: Duration = Duration::from_secs(5);

/// Waits for the broker and checks the topics.
///
/// # Errors
///
/// Topics are missing, which is for `ordermesh topics apply`, or have another number of partitions.
pub(super) async fn topics(cluster: &Arc<Cluster>, parts: &Component) -> anyhow::Result<()> {
    let mut outage = Outage::of("broker");
    loop {
        let asked = Arc::clone(cluster);
        let checked = tokio::task::spawn_blocking(move || engine::topics::check(&asked)).await?;
        match checked {
            Err(error @ engine::topics::Error::Broker { .. }) => {
                outage.failed(&error);
                parts.not_ready(format!("waiting for the broker: {error}"));
            }
            result => {
                outage.answered();
                return Ok(result?);
            }
        }
    }
}

/// Registers the contracts that the services write, and looks up those that they read; waits for the registry.
///
/// # Errors
///
/// A contract does not fit what is registered.
pub(super) async fn schemas(
    args: &Args,
    process: &Process,
    parts: &Component,
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
        // Orders asks everybody; everybody answers orders.
        let asked: &[Service] = if *service == Service::Orders {
            &Service::ALL
        } else {
            &[Service::Orders]
        };
        writes.extend(asked.iter().map(|asked| (*asked, Topic::Commands)));
    }
    if roles.contains(&Role::Query) {
        reads.extend(Service::ALL.map(|service| (service, Topic::Events)));
    }
    let mut settings = registry::Settings::new(
        args.stack.registry.url.clone(),
        args.stack.kafka.prefix.clone(),
    );
    settings.deadline = REGISTRY_TRY;
    let metrics = registry::Metrics::new(process.registry())?;
    let writes: Vec<_> = writes.into_iter().collect();
    let reads: Vec<_> = reads.into_iter().collect();
    let mut outage = Outage::of("schema registry");
    loop {
        match Schemas::register(&settings, metrics.clone(), &writes, &reads).await {
            Err(error @ registry::Error::Unavailable { .. }) => {
                outage.failed(&error);
                parts.not_ready(format!("waiting for the schema registry: {error}"));
            }
            result => {
                outage.answered();
                return Ok(result?);
            }
        }
    }
}
