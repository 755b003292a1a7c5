//! Whether the services are up: the public port, and what a process says of itself on its admin port.

use std::net::SocketAddr;

use serde_json::Value;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::{DEADLINE, Finding};
use platform_client::Api;
use platform_client::retry;

pub const GATEWAY: &str = "gateway";
pub const ADMIN: &str = "admin";

const START: &str = "start the services (make up, or ordermesh serve all)";

/// The gateway's own health is that of the platform's front door.
pub async fn gateway(api: &Api) -> Finding {
    let mut request = Request::new(HealthCheckRequest::default());
    request.set_timeout(DEADLINE);
    let address = api.address();
    match HealthClient::new(api.peer()).check(request).await {
        Ok(answer) => match answer.into_inner().status() {
            ServingStatus::Serving => Finding::ok(GATEWAY, format!("{address}: serving")),
            status => Finding::failed(
                GATEWAY,
                format!("{address}: {}", status.as_str_name().to_lowercase()),
                "its admin port tells what keeps it",
            ),
        },
        Err(status) => {
            let detail = match status.code() {
                Code::Unavailable => format!("{address} does not answer"),
                _ => format!("{address}: {}", retry::describe(&status)),
            };
            Finding::failed(
                GATEWAY,
                detail,
                format!("{START}, or name another with --api"),
            )
        }
    }
}

/// What keeps a process from being ready is told by its parts.
pub async fn admin(address: SocketAddr) -> Finding {
    let place = match platform_client::reachable(address) {
        Ok(place) => place,
        Err(error) => return Finding::failed(ADMIN, format!("{address}: {error:#}"), START),
    };
    match report(&format!("http://{place}/health/ready")).await {
        Ok(report) => judge(place.as_str(), &report),
        Err(error) => Finding::failed(
            ADMIN,
            format!("{place} does not answer: {}", platform_client::root(&error)),
            format!("{START}, or name another with --admin"),
        ),
    }
}

async fn report(url: &str) -> reqwest::Result<Value> {
    platform_client::http(DEADLINE)?
        .get(url)
        .send()
        .await?
        .json()
        .await
}

fn judge(place: &str, report: &Value) -> Finding {
    let components = report["components"].as_object();
    let waiting: Vec<_> = components
        .into_iter()
        .flatten()
        .filter_map(|(name, reason)| Some(format!("{name} ({})", reason.as_str()?)))
        .collect();
    if report["ready"] == Value::Bool(true) {
        let parts = components.map_or(0, serde_json::Map::len);
        return Finding::ok(ADMIN, format!("{place}: {parts} parts ready"));
    }
    let detail = if report["shutting_down"] == Value::Bool(true) {
        "shutting down".to_owned()
    } else if waiting.is_empty() {
        "what answers is no admin port".to_owned()
    } else {
        format!("not ready: {}", waiting.join(", "))
    };
    Finding::failed(
        ADMIN,
        format!("{place}: {detail}"),
        "look at the log of the services (make logs)",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::doctor::Health;

    #[test]
    fn what_keeps_a_process_from_being_ready_is_told() {
        let ready = json!({"ready": true, "components": {"orders": null, "gateway": null}});
        let finding = judge("a:1", &ready);
        assert_eq!(finding.health, Health::Ok);
        assert_eq!(finding.detail, "a:1: 2 parts ready");

        let waiting = json!({"ready": false, "shutting_down": false,
            "components": {"orders": "no partitions", "gateway": null}});
        let finding = judge("a:1", &waiting);
        assert_eq!(finding.health, Health::Failed);
        assert_eq!(finding.detail, "a:1: not ready: orders (no partitions)");

        let finding = judge("a:1", &json!("hello"));
        assert_eq!(finding.detail, "a:1: what answers is no admin port");
    }
}
