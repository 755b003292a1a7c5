//! What a process says of itself on its admin port.

use chassis::Report;
use http::uri::Authority;

use super::samples::Samples;

/// The health and the metrics of a process at one moment.
#[derive(Clone, Debug)]
pub struct Reading {
    /// What is ready, and what is not.
    pub health: Report,
    /// Its figures.
    pub samples: Samples,
}

impl Reading {
    /// Asks the process behind an address.
    ///
    /// # Errors
    ///
    /// It does not answer, or what answers is no admin port; in words for people.
    pub async fn of(http: &reqwest::Client, admin: &Authority) -> Result<Self, String> {
        let health = async {
            let answer = http.get(format!("http://{admin}/health/ready")).send();
            answer.await?.json().await
        };
        let metrics = async {
            let answer = http.get(format!("http://{admin}/metrics")).send();
            answer.await?.text().await
        };
        let (health, metrics) = tokio::try_join!(health, metrics).map_err(|error| why(&error))?;
        Ok(Self {
            health,
            samples: Samples::parse(&metrics),
        })
    }
}

/// What a failure goes back to, such as a refused connection.
pub fn why(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    if error.is_decode() {
        return "what answers is something else".to_owned();
    }
    platform_client::root(error)
}
