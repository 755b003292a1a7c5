//! Which alerts fire: asked of Alertmanager, else of Prometheus.

use serde::{Deserialize, Serialize};

use super::process::why;

/// Environment: see [`Config`].
mod env {
    pub const ALERTMANAGER: &str = "ORDERMESH_ALERTMANAGER";
    pub const PROMETHEUS: &str = "ORDERMESH_PROMETHEUS";
}

/// Where alerts are told.
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

/// What was told about alerts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Told {
    /// Who told it; `None`: nobody was reached.
    pub by: Option<String>,
    /// Why nobody was.
    pub failure: Option<String>,
    /// Those that fire, the worst first.
    pub firing: Vec<Alert>,
}

/// An alert that fires.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Alert {
    /// As its rule has it.
    pub severity: String,
    /// Its rule.
    pub name: String,
    /// What it says.
    pub summary: String,
}

/// Asks for alerts.
pub struct Alerts(Config);

impl Alerts {
    /// Asks there.
    pub const fn new(config: Config) -> Self {
        Self(config)
    }

    /// The alerts that fire now.
    pub async fn firing(&self, http: &reqwest::Client) -> Told {
        let (manager, prometheus) = (&self.0.alertmanager, &self.0.prometheus);
        let url = format!("{manager}/api/v2/alerts?active=true&silenced=false&inhibited=false");
        let failure = match get::<Vec<Raw>>(http, url).await {
            Ok(alerts) => return told(manager, alerts),
            Err(failure) => format!("{manager}: {failure}"),
        };
        match get::<Rules>(http, format!("{prometheus}/api/v1/alerts")).await {
            Ok(answer) => told(prometheus, answer.data.alerts),
            Err(other) => Told {
                failure: Some(format!("{failure}; {prometheus}: {other}")),
                ..Told::default()
            },
        }
    }
}

/// An alert as both of them tell it.
#[derive(Debug, Deserialize)]
struct Raw {
    #[serde(default)]
    labels: Labels,
    #[serde(default)]
    annotations: Annotations,
    /// Only Prometheus: `pending` or `firing`.
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

/// Prometheus wraps its answers.
#[derive(Debug, Deserialize)]
struct Rules {
    data: RulesData,
}

#[derive(Debug, Deserialize)]
struct RulesData {
    alerts: Vec<Raw>,
}

async fn get<T: serde::de::DeserializeOwned>(
    http: &reqwest::Client,
    url: String,
) -> Result<T, String> {
    let answer = async { http.get(url).send().await?.error_for_status()?.json().await };
    answer.await.map_err(|error| why(&error))
}

fn told(by: &str, alerts: Vec<Raw>) -> Told {
    // Alertmanager has no others. What has no severity, such as the watchdog, is no news.
    let is_news =
        |alert: &Raw| alert.state.as_deref() != Some("pending") && alert.labels.severity != "none";
    let mut firing: Vec<_> = alerts
        .into_iter()
        .filter(is_news)
        .map(|alert| Alert {
            severity: alert.labels.severity,
            name: alert.labels.alertname,
            summary: alert.annotations.summary,
        })
        .collect();
    // "critical" goes before "warning" in the alphabet, too.
    firing.sort();
    Told {
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
    fn an_address_may_stand_for_a_url() {
        assert_eq!(url("here:1").as_deref(), Ok("http://here:1"));
        assert_eq!(url("https://there/x/").as_deref(), Ok("https://there/x"));
        assert!(url("ftp://there").is_err());
        assert!(url("there").is_err());
    }

    #[test]
    fn alerts_are_told_by_either_and_the_worst_first() {
        let labels = |severity: &str| json!({"alertname": "HighLag", "severity": severity});
        let managed: Vec<Raw> = serde_json::from_value(json!([
            {"labels": labels("warning"), "annotations": {"summary": "late"}, "status": {"state": "active"}},
            {"labels": labels("none")},
            {"labels": labels("critical")},
        ]))
        .unwrap();
        let told = told("a", managed);
        let severities: Vec<_> = told.firing.iter().map(|alert| &alert.severity).collect();
        assert_eq!(severities, ["critical", "warning"]);
        assert_eq!(told.firing[1].summary, "late");

        let ruled: Rules = serde_json::from_value(json!({"status": "success", "data": {"alerts": [
            {"labels": labels("page"), "annotations": {}, "state": "pending"},
            {"labels": labels("ticket"), "annotations": {}, "state": "firing"},
        ]}}))
        .unwrap();
        assert_eq!(ruled.data.alerts[0].state.as_deref(), Some("pending"));
        let told = super::told("b", ruled.data.alerts);
        assert_eq!(told.firing.len(), 1);
        assert_eq!(told.firing[0].severity, "ticket");
    }
}
