//! Checks that the services are up: the health of the public port, and the readiness report of the admin port.

use std::net::SocketAddr;

use platform_client::Api;
use platform_client::retry;
use serde_json::Value;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::{CheckResult, DEADLINE};

pub const GATEWAY: &str = "gateway";
pub const ADMIN: &str = "admin";

const START_HINT: &str = "start the services (make up, or ordermesh serve all)";

/// Checks the gRPC health of the gateway.
pub async fn gateway(api: &Api) -> CheckResult {
    let mut request = Request::new(HealthCheckRequest::default());
    request.set_timeout(DEADLINE);
    let address = api.address();
    match HealthClient::new(api.peer()).check(request).await {
        Ok(answer) => match answer.into_inner().status() {
            ServingStatus::Serving => CheckResult::ok(GATEWAY, format!("{address}: serving")),
            status => CheckResult::failed(
                GATEWAY,
                format!("{address}: {}", status.as_str_name().to_lowercase()),
                "its admin port reports what is not ready",
            ),
        },
        Err(status) => {
            let detail = match status.code() {
                Code::Unavailable => format!("{address} does not answer"),
                _ => format!("{address}: {}", retry::describe(&status)),
            };
            CheckResult::failed(
                GATEWAY,
                detail,
                format!("{START_HINT}, or name another with --api"),
            )
        }
    }
}

/// Checks the readiness of a process. Components that are not ready report why.
pub async fn admin(address: SocketAddr) -> CheckResult {
    let location = match platform_client::reachable(address) {
        Ok(location) => location,
        Err(error) => {
            return CheckResult::failed(ADMIN, format!("{address}: {error:#}"), START_HINT);
        }
    };
    match report(&format!("http://{location}/health/ready")).await {
        Ok(report) => evaluate(location.as_str(), &report),
        Err(error) => CheckResult::failed(
            ADMIN,
            format!(
                "{location} does not answer: {}",
                platform_client::root_cause(&error)
            ),
            format!("{START_HINT}, or name another with --admin"),
        ),
    }
}

async fn report(url: &str) -> reqwest::Result<Value> {
    platform_client::http_client(DEADLINE)?
        .get(url)
        .send()
        .await?
        .json()
        .await
}

fn evaluate(location: &str, report: &Value) -> CheckResult {
    let components = report["components"].as_object();
    let waiting: Vec<_> = components
        .into_iter()
        .flatten()
        .filter_map(|(name, reason)| Some(format!("{name} ({})", reason.as_str()?)))
        .collect();
    if report["ready"] == Value::Bool(true) {
        let parts = components.map_or(0, serde_json::Map::len);
        return CheckResult::ok(ADMIN, format!("{location}: {parts} parts ready"));
    }
    let detail = if report["shutting_down"] == Value::Bool(true) {
        "shutting down".to_owned()
    } else if waiting.is_empty() {
        "the server is not an admin port".to_owned()
    } else {
        format!("not ready: {}", waiting.join(", "))
    };
    CheckResult::failed(
        ADMIN,
        format!("{location}: {detail}"),
        "look at the log of the services (make logs)",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::doctor::Health;

    #[test]
    fn components_that_are_not_ready_are_listed() {
        let ready = json!({"ready": true, "components": {"orders": null, "gateway": null}});
        let result = evaluate("a:1", &ready);
        assert_eq!(result.health, Health::Ok);
        assert_eq!(result.detail, "a:1: 2 parts ready");

        let waiting = json!({"ready": false, "shutting_down": false,
            "components": {"orders": "no partitions", "gateway": null}});
        let result = evaluate("a:1", &waiting);
        assert_eq!(result.health, Health::Failed);
        assert_eq!(result.detail, "a:1: not ready: orders (no partitions)");

        let result = evaluate("a:1", &json!("hello"));
        assert_eq!(result.detail, "a:1: the server is not an admin port");
    }
}
