//! The admin port: health, metrics and log filter of the process, over HTTP.

use std::net::SocketAddr;
use std::{future, io};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use observability::exposition::expose;
use observability::{BadFilter, log_filter};
use tokio::net::TcpListener;

use crate::metrics;
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
/// - `/health/live`: 200, or 503 with the component that only a restart of the process repairs.
/// - `/health/ready`: 200, or 503 with the reason of each component that is not ready.
/// - `/state`: the state of each component of the process, as JSON.
/// - `/metrics`: the metrics of the process in the Prometheus text format, or in OpenMetrics when the `Accept` header
///   names it.
/// - `/log`: GET returns the log filter, PUT replaces it.
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
    /// The address is in use or belongs to another host.
    pub async fn bind(address: SocketAddr) -> Result<Self, Error> {
        let bind = async {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        };
        bind.await.map_err(|source| Error { address, source })
    }

    /// The bound address; its port is never 0.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the process ends; probes are still answered while the process drains.
    pub fn serve(self, process: &Process) {
        if let Err(error) = metrics::register(process) {
            tracing::error!(%error, "metrics of the process are missing");
        }
        let router = Router::new()
            .route("/health/live", get(live))
            .route("/health/ready", get(ready))
            .route("/state", get(show_states))
            .route("/metrics", get(scrape))
            .route("/log", get(show_filter).put(change_filter))
            .with_state(process.clone());
        tracing::info!(address = %self.address, "serving health and metrics");
        process.spawn_detached("admin", async move {
            axum::serve(self.listener, router)
                .with_graceful_shutdown(future::pending())
                .await
        });
    }
}

async fn live(State(process): State<Process>) -> (StatusCode, String) {
    match process.readiness().not_live() {
        None => (StatusCode::OK, "live\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
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

async fn show_states(State(process): State<Process>) -> impl IntoResponse {
    Json(process.states().collect())
}

async fn scrape(State(process): State<Process>, headers: HeaderMap) -> impl IntoResponse {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    match expose(process.registry(), accept) {
        Ok(exposition) => (
            [(header::CONTENT_TYPE, exposition.content_type)],
            exposition.text,
        )
            .into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be encoded");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn show_filter() -> impl IntoResponse {
    match log_filter() {
        Some(filter) => (StatusCode::OK, format!("{}\n", filter.text())),
        None => filter_error(&BadFilter::Fixed),
    }
}

async fn change_filter(text: String) -> impl IntoResponse {
    let changed = match log_filter() {
        Some(filter) => filter.change(&text).map(|()| filter),
        None => Err(BadFilter::Fixed),
    };
    match changed {
        Ok(filter) => {
            let filter = filter.text();
            tracing::info!(filter, "the log's filter was changed");
            (StatusCode::OK, format!("{filter}\n"))
        }
        Err(error) => filter_error(&error),
    }
}

fn filter_error(error: &BadFilter) -> (StatusCode, String) {
    let status = match error {
        BadFilter::Empty | BadFilter::Directive { .. } => StatusCode::BAD_REQUEST,
        BadFilter::Fixed => StatusCode::CONFLICT,
    };
    (status, format!("{error}\n"))
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
    async fn the_state_of_each_component_is_shown() {
        let process = Process::new();
        let url = serve(&process).await;
        process
            .states()
            .add("orders", || json!({ "phase": "running" }));
        let states: Value = reqwest::get(format!("{url}/state"))
            .await
            .expect("it listens")
            .json()
            .await
            .expect("it is JSON");
        assert_eq!(states, json!({ "orders": { "phase": "running" } }));
    }

    #[tokio::test]
    async fn readiness_is_reported_with_reasons() {
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

        component.set_stalled("has stalled for 120 s".to_owned(), true);
        for (health, expected) in [("live", "database: has stalled"), ("ready", "has stalled")] {
            let answer = reqwest::get(format!("{url}/health/{health}"))
                .await
                .expect("it listens");
            assert_eq!(answer.status().as_u16(), 503);
            let text = answer.text().await.expect("it is text");
            assert!(text.contains(expected), "{text}");
        }
    }

    #[tokio::test]
    async fn the_registered_metrics_are_served() {
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
        assert!(!text.contains("# EOF"), "{text}");
    }

    #[tokio::test]
    async fn open_metrics_is_served_on_request() {
        let url = serve(&Process::new()).await;
        let accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
        let answer = reqwest::Client::new()
            .get(format!("{url}/metrics"))
            .header("accept", accept)
            .send()
            .await
            .expect("it listens");
        let content = answer.headers()["content-type"].to_str();
        let content = content.expect("it is text").to_owned();
        assert!(
            content.starts_with("application/openmetrics-text"),
            "{content}"
        );
        let text = answer.text().await.expect("it is text");
        assert!(text.ends_with("\n# EOF\n"), "{text}");
    }

    #[tokio::test]
    async fn process_metrics_match_their_definitions() {
        let process = Process::new();
        process.readiness().component("log").ready();
        process.readiness().component("database");
        serve(&process).await;
        let families = process.registry().gather();
        let defined = || metrics::ALL.iter().chain(observability::metrics::ALL);
        for family in &families {
            let metric = defined().find(|metric| metric.name == family.name());
            let metric = metric.unwrap_or_else(|| panic!("{} is not listed", family.name()));
            for sample in family.get_metric() {
                let labels = sample.get_label().iter().map(|pair| pair.name());
                let mut listed = metric.labels.to_vec();
                listed.sort_unstable();
                assert_eq!(labels.collect::<Vec<_>>(), listed, "{}", metric.name);
            }
            let kind = format!("{:?}", family.get_field_type()).to_lowercase();
            assert_eq!(kind, metric.kind.name(), "{}", metric.name);
        }
        let value = |name: &str, label: &str| {
            let family = families.iter().find(|family| family.name() == name)?;
            let labelled = |metric: &&prometheus::proto::Metric| {
                let mut labels = metric.get_label().iter();
                label.is_empty() || labels.any(|pair| pair.value() == label)
            };
            let metric = family.get_metric().iter().find(labelled)?;
            Some(metric.get_gauge().get_value() as u64)
        };
        assert_eq!(value("ordermesh_ready", "log"), Some(1));
        assert_eq!(value("ordermesh_ready", "database"), Some(0));
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(value("ordermesh_build_info", version), Some(1));
        assert_eq!(value("ordermesh_tokio_workers", ""), Some(1));
        assert!(value("ordermesh_tokio_tasks", "").is_some_and(|tasks| tasks > 0));
        // Call metrics appear with the first call.
        for metric in defined().filter(|metric| !metric.name.starts_with("ordermesh_rpc_")) {
            let exposed = families.iter().any(|family| family.name() == metric.name);
            assert!(exposed, "{} is missing", metric.name);
        }
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
