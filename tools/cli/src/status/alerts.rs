//! The firing alerts, from Alertmanager, or from Prometheus when Alertmanager is not reachable.

use serde::{Deserialize, Serialize};

use super::process::describe;

/// Environment: see [`Config`].
mod env {
    pub const ALERTMANAGER: &str = "ORDERMESH_ALERTMANAGER";
    pub const PROMETHEUS: &str = "ORDERMESH_PROMETHEUS";
}

/// Addresses of Alertmanager and Prometheus.
#[derive(clap::Args, Clone, Debug)]
#[group(skip)]
pub struct Config {
    /// Where Alertmanager is reached, a URL or host:port
    #[arg(long, value_name = "URL", env = env::ALERTMANAGER, default_value = "http://127.0.0.1:19093", value_parser = url)]
    alertmanager: String,
    /// Where Prometheus is reached when Alertmanager is not, a URL or host:port
    #[arg(long, value_name = "URL", env = env::PROMETHEUS, default_value = "http://127.0.0.1:19090", value_parser = url)]
    prometheus: String,
}

/// The firing alerts and their source. The fields are keys of `--json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FiringAlerts {
    /// URL of the source; `None` when neither was reachable.
    pub by: Option<String>,
    /// Why neither was reachable.
    pub failure: Option<String>,
    /// The firing alerts by severity, the worst first.
    pub firing: Vec<Alert>,
}

/// A firing alert. The fields are keys of `--json`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Alert {
    /// Severity of the rule.
    pub severity: String,
    /// Name of the rule.
    pub name: String,
    /// The summary annotation.
    pub summary: String,
}

/// A client of Alertmanager and Prometheus.
pub struct Alerts(Config);

impl Alerts {
    /// Creates a client.
    pub const fn new(config: Config) -> Self {
        Self(config)
    }

    /// The alerts that are firing now.
    pub async fn firing(&self, http: &reqwest::Client) -> FiringAlerts {
        let (manager, prometheus) = (&self.0.alertmanager, &self.0.prometheus);
        let url = format!("{manager}/api/v2/alerts?active=true&silenced=false&inhibited=false");
        let failure = match get::<Vec<RawAlert>>(http, url).await {
            Ok(alerts) => return firing_alerts(manager, alerts),
            Err(failure) => format!("{manager}: {failure}"),
        };
        match get::<PrometheusAnswer>(http, format!("{prometheus}/api/v1/alerts")).await {
            Ok(answer) => firing_alerts(prometheus, answer.data.alerts),
            Err(other) => FiringAlerts {
                failure: Some(format!("{failure}; {prometheus}: {other}")),
                ..FiringAlerts::default()
            },
        }
    }
}

/// The fields of an alert that both APIs have.
#[derive(Debug, Deserialize)]
struct RawAlert {
    #[serde(default)]
    labels: Labels,
    #[serde(default)]
    annotations: Annotations,
    /// `pending` or `firing`; only from Prometheus.
    state: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Labels {
    #[serde(default)]
    alertname: String,
    #[serde(default)]
    severity: String,
}

#[derive(Debug, Default, Deserialize)]
struct Annotations {
    #[serde(default)]
    summary: String,
}

/// The envelope of an answer of Prometheus.
#[derive(Debug, Deserialize)]
struct PrometheusAnswer {
    data: PrometheusData,
}

#[derive(Debug, Deserialize)]
struct PrometheusData {
    alerts: Vec<RawAlert>,
}

async fn get<T: serde::de::DeserializeOwned>(
    http: &reqwest::Client,
    url: String,
) -> Result<T, String> {
    let answer = async { http.get(url).send().await?.error_for_status()?.json().await };
    answer.await.map_err(|error| describe(&error))
}

fn firing_alerts(by: &str, alerts: Vec<RawAlert>) -> FiringAlerts {
    // Alertmanager has no pending alerts. Alerts of severity `none`, such as the watchdog, always fire.
    let is_relevant = |alert: &RawAlert| {
        alert.state.as_deref() != Some("pending") && alert.labels.severity != "none"
    };
    let mut firing: Vec<_> = alerts
        .into_iter()
        .filter(is_relevant)
        .map(|alert| Alert {
            severity: alert.labels.severity,
            name: alert.labels.alertname,
            summary: alert.annotations.summary,
        })
        .collect();
    // Alphabetical order puts "critical" before "warning".
    firing.sort();
    FiringAlerts {
        by: Some(by.to_owned()),
        failure: None,
        firing,
    }
}

fn url(text: &str) -> Result<String, String> {
    let url = match text.split_once("://") {
        Some(("http" | "https", rest)) if !rest.is_empty() => text.to_owned(),
        Some(_) => return Err("expected a URL that starts with http://".to_owned()),
        None => format!("http://{}", platform_client::host_port(text)?),
    };
    Ok(url.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_address_without_a_scheme_is_an_http_url() {
        assert_eq!(url("here:1").as_deref(), Ok("http://here:1"));
        assert_eq!(url("https://there/x/").as_deref(), Ok("https://there/x"));
        assert!(url("ftp://there").is_err());
        assert!(url("there").is_err());
    }

    #[test]
    fn alerts_of_both_sources_are_filtered_and_sorted_by_severity() {
        let labels = |severity: &str| json!({"alertname": "HighLag", "severity": severity});
        let from_alertmanager: Vec<RawAlert> = serde_json::from_value(json!([
            {"labels": labels("warning"), "annotations": {"summary": "late"}, "status": {"state": "active"}},
            {"labels": labels("none")},
            {"labels": labels("critical")},
        ]))
        .unwrap();
        let alerts = firing_alerts("a", from_alertmanager);
        let severities: Vec<_> = alerts.firing.iter().map(|alert| &alert.severity).collect();
        assert_eq!(severities, ["critical", "warning"]);
        assert_eq!(alerts.firing[1].summary, "late");

        let from_prometheus: PrometheusAnswer =
            serde_json::from_value(json!({"status": "success", "data": {"alerts": [
                {"labels": labels("page"), "annotations": {}, "state": "pending"},
                {"labels": labels("ticket"), "annotations": {}, "state": "firing"},
            ]}}))
            .unwrap();
        assert_eq!(
            from_prometheus.data.alerts[0].state.as_deref(),
            Some("pending")
        );
        let alerts = firing_alerts("b", from_prometheus.data.alerts);
        assert_eq!(alerts.firing.len(), 1);
        assert_eq!(alerts.firing[0].severity, "ticket");
    }
}
