//! Reads health and metrics of a process from its admin port.

use chassis::Report;
use http::uri::Authority;

use super::samples::Samples;

/// The health and the metrics of a process at one moment.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The readiness report.
    pub health: Report,
    /// The metrics.
    pub samples: Samples,
}

impl Reading {
    /// Reads both from an admin port.
    ///
    /// # Errors
    ///
    /// The process does not answer, or the server is not an admin port; as text for people.
    pub async fn of(http: &reqwest::Client, admin: &Authority) -> Result<Self, String> {
        let health = async {
            let answer = http.get(format!("http://{admin}/health/ready")).send();
            answer.await?.json().await
        };
        let metrics = async {
            let answer = http.get(format!("http://{admin}/metrics")).send();
            answer.await?.text().await
        };
        let (health, metrics) =
            tokio::try_join!(health, metrics).map_err(|error| describe(&error))?;
        Ok(Self {
            health,
            samples: Samples::parse(&metrics),
        })
    }
}

/// Describes an error by its root cause, such as a refused connection.
pub fn describe(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    if error.is_decode() {
        return "unexpected answer".to_owned();
    }
    platform_client::root_cause(error)
}
