//! The gRPC health service of a server.

use futures::future::join_all;
use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::client::Peer;
use crate::process::Process;
use crate::readiness::Readiness;

/// A service of a server, and the source of its health.
#[derive(Debug)]
pub(super) struct ServiceHealth {
    pub(super) name: String,
    /// Whether the peer behind the service serves; `None` for a local service.
    peer: Option<watch::Receiver<bool>>,
}

impl ServiceHealth {
    /// A service with local handlers.
    pub(super) fn local(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            peer: None,
        }
    }

    /// A service whose calls are forwarded to a peer.
    pub(super) fn forwarded(name: &str, peer: &Peer) -> Self {
        Self {
            name: name.to_owned(),
            peer: Some(peer.serving()),
        }
    }
}

/// Updates the health service from the readiness of the process and the health of its peers.
pub(super) async fn follow(
    process: Process,
    mut reporter: HealthReporter,
    services: Vec<ServiceHealth>,
) {
    let mut names: Vec<_> = services
        .iter()
        .map(|service| service.name.clone())
        .collect();
    // The health of the server itself (the empty name) depends on its process only.
    names.push(String::new());
    let server = ServiceHealth::local("");
    let reports = services
        .into_iter()
        .chain([server])
        .map(|service| report(process.readiness(), &reporter, service));
    process
        .shutdown()
        .run_until_cancelled(join_all(reports))
        .await;
    for name in &names {
        reporter
            .set_service_status(name, ServingStatus::NotServing)
            .await;
        // Ends the Watch streams: the server would wait for them.
        reporter.clear_service_status(name).await;
    }
}

async fn report(readiness: &Readiness, reporter: &HealthReporter, service: ServiceHealth) {
    let mut ready = readiness.watch();
    // A local service always counts as serving; the sender lives as long as this task.
    let (_sender, always) = watch::channel(true);
    let mut serving = service.peer.unwrap_or(always);
    loop {
        let status = if ready.borrow_and_update().ready && *serving.borrow_and_update() {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        reporter.set_service_status(&service.name, status).await;
        let changed = tokio::select! {
            changed = ready.changed() => changed,
            changed = serving.changed() => changed,
        };
        if changed.is_err() {
            return std::future::pending().await;
        }
    }
}
