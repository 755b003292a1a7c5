//! What a server says of its health.

use futures::future::join_all;
use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::client::Peer;
use crate::process::Process;
use crate::readiness::Readiness;

/// A service of a server, and who really serves it.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) name: String,
    /// Whether the peer behind it serves; `None` when it is served here.
    peer: Option<watch::Receiver<bool>>,
}

impl Served {
    /// A service that is served here.
    pub(super) fn here(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            peer: None,
        }
    }

    /// A service that is forwarded to a peer.
    pub(super) fn by(name: &str, peer: &Peer) -> Self {
        Self {
            name: name.to_owned(),
            peer: Some(peer.serving()),
        }
    }
}

/// Keeps the health service in step with the readiness of the process and the health of its peers.
pub(super) async fn follow(process: Process, mut reporter: HealthReporter, services: Vec<Served>) {
    let mut names: Vec<_> = services
        .iter()
        .map(|service| service.name.clone())
        .collect();
    // The server as a whole is as ready as its process, whoever else is down.
    names.push(String::new());
    let whole = Served::here("");
    let reports = services
        .into_iter()
        .chain([whole])
        .map(|service| report(process.readiness(), &reporter, service));
    process
        .shutdown()
        .run_until_cancelled(join_all(reports))
        .await;
    for name in &names {
        reporter
            .set_service_status(name, ServingStatus::NotServing)
            .await;
        // Ends the streams of those who watch; the server would wait for them.
        reporter.clear_service_status(name).await;
    }
}

async fn report(readiness: &Readiness, reporter: &HealthReporter, service: Served) {
    let mut ready = readiness.watch();
    // Of a service that is served here nobody else ever has to say anything.
    let (_here, here) = watch::channel(true);
    let mut serving = service.peer.unwrap_or(here);
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
