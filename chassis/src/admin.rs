//! Health and metrics of the process, over HTTP.

use std::net::SocketAddr;
use std::{future, io};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use prometheus::{Encoder as _, TextEncoder};
use tokio::net::TcpListener;

use crate::process::Process;

/// Why the admin port could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on the admin address {address}")]
pub struct Error {
    address: SocketAddr,
    source: io::Error,
}

/// The admin port: bound, but not served yet.
///
/// `/health/live` says that the process runs, `/health/ready` that it takes work (200, else 503 with the reason of
/// each component), `/metrics` has the process's metrics in the Prometheus text format.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
}

impl Admin {
    /// Opens the port.
    ///
    /// # Errors
    ///
    /// The address is in use or not ours.
    pub async fn bind(address: SocketAddr) -> Result<Self, Error> {
        let bind = async {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        };
        bind.await.map_err(|source| Error { address, source })
    }

    /// The address that was bound: the port is never 0.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the process ends: a probe still gets its answer while the process drains.
    pub fn serve(self, process: &Process) {
        register_process_metrics(process);
        let router = Router::new()
            .route("/health/live", get(async || "live\n"))
            .route("/health/ready", get(ready))
            .route("/metrics", get(metrics))
            .with_state(process.clone());
        tracing::info!(address = %self.address, "serving health and metrics");
        process.spawn_beside("admin", async move {
            axum::serve(self.listener, router)
                .with_graceful_shutdown(future::pending())
                .await
        });
    }
}

async fn ready(State(process): State<Process>) -> impl IntoResponse {
    let report = process.readiness().report();
    let status = if report.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(report))
}

async fn metrics(State(process): State<Process>) -> impl IntoResponse {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&process.registry().gather(), &mut text) {
        Ok(()) => (
            [(header::CONTENT_TYPE, encoder.format_type().to_owned())],
            text,
        )
            .into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be encoded");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Memory, CPU time and open files, where the system tells them.
fn register_process_metrics(process: &Process) {
    #[cfg(target_os = "linux")]
    {
        let collector = prometheus::process_collector::ProcessCollector::for_self();
        if let Err(error) = process.registry().register(Box::new(collector)) {
            tracing::debug!(%error, "the metrics of the process are registered already");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = process;
}

#[cfg(test)]
mod tests {
    use prometheus::IntCounter;
    use serde_json::{Value, json};

    use super::*;

    async fn serve(process: &Process) -> String {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let admin = Admin::bind(any_port).await.expect("some port is free");
        let url = format!("http://{}", admin.local_addr());
        admin.serve(process);
        url
    }

    #[tokio::test]
    async fn readiness_is_told_with_its_reasons() {
        let process = Process::new();
        let component = process.readiness().component("database");
        let url = serve(&process).await;

        let live = reqwest::get(format!("{url}/health/live"))
            .await
            .expect("it listens");
        assert_eq!(live.status().as_u16(), 200);

        component.not_ready("connecting");
        let answer = reqwest::get(format!("{url}/health/ready"))
            .await
            .expect("it listens");
        assert_eq!(answer.status().as_u16(), 503);
        let report: Value = answer.json().await.expect("it is JSON");
        let expected = json!({"ready": false, "shutting_down": false, "components": {"database": "connecting"}});
        assert_eq!(report, expected);

        component.ready();
        let answer = reqwest::get(format!("{url}/health/ready"))
            .await
            .expect("it listens");
        assert_eq!(answer.status().as_u16(), 200);
    }

    #[tokio::test]
    async fn metrics_are_those_of_the_process() {
        let process = Process::new();
        let counter = IntCounter::new("tests_total", "Tests.").expect("the name is valid");
        counter.inc_by(3);
        process
            .registry()
            .register(Box::new(counter))
            .expect("it is the only one");
        let url = serve(&process).await;
        let answer = reqwest::get(format!("{url}/metrics"))
            .await
            .expect("it listens");
        let text = answer.text().await.expect("it is text");
        assert!(text.contains("tests_total 3"), "{text}");
    }

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let first = Admin::bind(any_port).await.expect("some port is free");
        let error = Admin::bind(first.local_addr())
            .await
            .expect_err("it is in use");
        assert!(error.to_string().contains(&first.local_addr().to_string()));
    }
}
