//! The calls of the Confluent API that ordermesh makes, without retries.

use std::error::Error as StdError;
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode, Url};
use schema_registry_converter::async_impl::schema_registry::{
    SrSettings, get_schema_by_id, perform_sr_call,
};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{RawError, SrCall};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::metrics::Metrics;

/// Transitive, because the log is read for ever; backward, because readers are deployed before writers. It is also the
/// only level at which registries agree about new oneof members.
const COMPATIBILITY: &str = "BACKWARD_TRANSITIVE";
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The registry is down, failing, or answers with garbage: the result is unknown.
    #[error("no usable answer")]
    Unreachable(#[source] Box<dyn StdError + Send + Sync>),
    /// The registry has no such entry.
    #[error("not found: {0}")]
    NotFound(String),
    /// A definite refusal.
    #[error("{0}")]
    Refused(String),
}

impl Error {
    fn unreachable(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Unreachable(source.into())
    }

    /// The meaning of an error answer. Confluent's error codes are HTTP statuses with two more digits.
    fn from_answer(code: u32, message: String) -> Self {
        let status = if code >= 10_000 { code / 100 } else { code };
        match status {
            404 => Self::NotFound(message),
            400..=499 if status != 408 && status != 429 => Self::Refused(message),
            _ => Self::unreachable(format!("{message} ({code})")),
        }
    }
}

impl From<SRCError> for Error {
    fn from(error: SRCError) -> Self {
        match error
            .source()
            .and_then(|source| source.downcast_ref::<RawError>())
        {
            Some(answer) => Self::from_answer(answer.error_code, answer.message.clone()),
            None => Self::unreachable(error),
        }
    }
}

/// One version of a subject. Versions never change.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Version {
    pub version: u32,
    /// Id of the schema; equal schemas have the same id in all subjects.
    pub id: u32,
    #[serde(rename = "schema")]
    pub text: String,
    #[serde(default)]
    pub references: Vec<Reference>,
}

/// An import as registered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Reference {
    /// Import path.
    pub name: String,
    pub subject: String,
    pub version: u32,
}

/// A subject and version that a schema id belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Usage {
    pub subject: String,
    pub version: u32,
}

pub(crate) struct Client {
    url: String,
    http: reqwest::Client,
    converter: SrSettings,
    metrics: Metrics,
}

impl Client {
    /// # Errors
    ///
    /// The address cannot be used.
    pub fn new(url: &str, metrics: Metrics) -> Result<Self, crate::Error> {
        let address = |reason: String| crate::Error::Address {
            url: url.to_owned(),
            reason,
        };
        let parsed = Url::parse(url).map_err(|error| address(error.to_string()))?;
        if parsed.scheme() != "http" {
            return Err(address(format!(
                "{} is not supported, http is",
                parsed.scheme()
            )));
        }
        let url = url.trim_end_matches('/').to_owned();
        // One configuration for both: calls of the converter and our own. The converter overrides the time-out.
        let settings = || reqwest::Client::builder().timeout(CALL_TIMEOUT);
        let http = settings().build();
        let http = http.map_err(|error| address(error.to_string()))?;
        let converter = SrSettings::new_builder(url.clone())
            .set_timeout(CALL_TIMEOUT)
            .build_with(settings());
        let converter = converter.map_err(|error| address(error.to_string()))?;
        Ok(Self {
            url,
            http,
            converter,
            metrics,
        })
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub async fn set_compatibility(&self, subject: &str) -> Result<(), Error> {
        let body = json!({ "compatibility": COMPATIBILITY });
        let path = format!("config/{}", escape(subject));
        let call = self.call::<serde_json::Value>(Method::PUT, &path, Some(&body));
        self.measured("set_compatibility", call).await.map(drop)
    }

    /// The numbers of all versions of a subject, including deleted ones: their records are still in the log.
    pub async fn versions(&self, subject: &str) -> Result<Vec<u32>, Error> {
        let path = format!("subjects/{}/versions?deleted=true", escape(subject));
        let call = self.call(Method::GET, &path, None);
        match self.measured("list_versions", call).await {
            Err(Error::NotFound(_)) => Ok(Vec::new()),
            answer => answer,
        }
    }

    pub async fn version(&self, subject: &str, version: u32) -> Result<Version, Error> {
        let path = format!(
            "subjects/{}/versions/{version}?deleted=true",
            escape(subject)
        );
        let call = self.call(Method::GET, &path, None);
        self.measured("get_version", call).await
    }

    /// The subjects and versions that an id belongs to.
    pub async fn usages(&self, id: u32) -> Result<Vec<Usage>, Error> {
        let path = format!("schemas/ids/{id}/versions?deleted=true");
        let call = self.call(Method::GET, &path, None);
        self.measured("find_usages", call).await
    }

    /// The text and the references of an id.
    pub async fn schema(&self, id: u32) -> Result<(String, Vec<Reference>), Error> {
        let call = get_schema_by_id(id, &self.converter);
        let schema = self.measured("get_schema", call).await?;
        let references = schema.references.into_iter().map(|reference| Reference {
            name: reference.name,
            subject: reference.subject,
            version: reference.version,
        });
        Ok((schema.schema, references.collect()))
    }

    /// Registers a schema; returns the existing version when it is registered already.
    pub async fn register(
        &self,
        subject: &str,
        text: &str,
        references: &[Reference],
    ) -> Result<Version, Error> {
        let body = json!({ "schemaType": "PROTOBUF", "schema": text, "references": references });
        let body = body.to_string();
        let call = SrCall::PostNew(subject, &body);
        let call = perform_sr_call(&self.converter, call);
        let id = self.measured("register", call).await?.id;
        // Only a look-up returns the version number.
        let call = SrCall::PostForVersion(subject, &body);
        let call = perform_sr_call(&self.converter, call);
        let found = self.measured("look_up", call).await?;
        let (Some(id), Some(version)) = (id, found.version) else {
            return Err(Error::unreachable("the answer names no id or no version"));
        };
        Ok(Version {
            version,
            id,
            text: text.to_owned(),
            references: references.to_vec(),
        })
    }

    /// Requests the global configuration, which every registry has, to see whether it answers.
    pub async fn probe(&self) -> Result<(), Error> {
        let answer = self.call::<serde_json::Value>(Method::GET, "config", None);
        self.measured("get_config", answer).await.map(drop)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<T, Error> {
        #[derive(Deserialize)]
        struct Answer {
            error_code: u32,
            message: String,
        }
        let mut request = self.http.request(method, format!("{}/{path}", self.url));
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(Error::unreachable)?;
        let status = response.status();
        if status == StatusCode::OK {
            return response.json().await.map_err(Error::unreachable);
        }
        // An answer counts only in the registry's own error format: a proxy also answers 404.
        match response.json::<Answer>().await {
            Ok(answer) => Err(Error::from_answer(answer.error_code, answer.message)),
            Err(_) => Err(Error::unreachable(format!("HTTP status {status}"))),
        }
    }

    /// Records a call in the metrics.
    async fn measured<T, E>(
        &self,
        operation: &str,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Error>
    where
        Error: From<E>,
    {
        let start = Instant::now();
        let answer = call.await.map_err(Error::from);
        let result = match &answer {
            Ok(_) => "ok",
            Err(Error::NotFound(_)) => "not_found",
            Err(Error::Refused(_)) => "refused",
            Err(Error::Unreachable(_)) => "unreachable",
        };
        let seconds = start.elapsed().as_secs_f64();
        self.metrics.record_call(operation, result, seconds);
        answer
    }
}

fn escape(subject: &str) -> String {
    subject.replace('/', "%2F")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        Metrics::new(&prometheus::Registry::new()).unwrap()
    }

    #[test]
    fn only_definite_answers_count() {
        let from_answer = |code| Error::from_answer(code, String::new());
        assert!(matches!(from_answer(40401), Error::NotFound(_)));
        assert!(matches!(from_answer(404), Error::NotFound(_)));
        assert!(matches!(from_answer(409), Error::Refused(_)));
        assert!(matches!(from_answer(42201), Error::Refused(_)));
        for code in [0, 408, 429, 500, 50001, 503, u32::MAX] {
            assert!(matches!(from_answer(code), Error::Unreachable(_)), "{code}");
        }
    }

    #[test]
    fn unsupported_addresses_are_rejected() {
        for url in [
            "",
            "registry:8081",
            "https://registry:8081",
            "ftp://registry",
        ] {
            let client = Client::new(url, metrics());
            assert!(matches!(client, Err(crate::Error::Address { .. })), "{url}");
        }
        assert!(Client::new("http://registry:8081/apis/ccompat/v7/", metrics()).is_ok());
    }
}
