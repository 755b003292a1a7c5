//! What a process says of itself on its admin port.

use std::collections::BTreeMap;
use std::error::Error;

use http::uri::Authority;
use serde::Deserialize;

use super::samples::Samples;

/// The health and the metrics of a process at one moment.
#[derive(Clone, Debug)]
pub struct Reading {
    /// What is ready, and what is not.
    pub health: Health,
    /// Its figures.
    pub samples: Samples,
}

/// The answer to `/health/ready`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Health {
    /// All components are ready.
    pub ready: bool,
    /// It takes no more work.
    pub shutting_down: bool,
    /// By component: why it is not ready.
    pub components: BTreeMap<String, Option<String>>,
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
    let mut cause: &dyn Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
