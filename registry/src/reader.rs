//! Reading from the registry with retries; each version is fetched once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::client::{self, Client, Reference, Version};
use crate::error::Error;
use crate::relation::Source;

/// Reads from the registry, with retries until a deadline while it does not answer.
pub(crate) struct RetryingReader<'a> {
    client: &'a Client,
    deadline: Duration,
    started: Instant,
    /// Fetched versions, by subject and number.
    fetched: HashMap<(String, u32), Version>,
}

impl<'a> RetryingReader<'a> {
    /// A reader that begins no retry after `deadline`; zero means no retries.
    pub fn new(client: &'a Client, deadline: Duration) -> Self {
        Self {
            client,
            deadline,
            started: Instant::now(),
            fetched: HashMap::new(),
        }
    }

    pub async fn version(&mut self, subject: &str, number: u32) -> Result<Version, Error> {
        let key = (subject.to_owned(), number);
        if let Some(version) = self.fetched.get(&key) {
            return Ok(version.clone());
        }
        let version = self
            .with_retries(subject, || self.client.version(subject, number))
            .await?;
        self.fetched.insert(key, version.clone());
        Ok(version)
    }

    /// A schema, followed by everything that it imports.
    pub async fn sources(
        &mut self,
        file: &str,
        text: String,
        references: Vec<Reference>,
    ) -> Result<Vec<Source>, Error> {
        let mut sources = vec![Source::new(file, text, &references)];
        let mut missing = references;
        while let Some(reference) = missing.pop() {
            if sources.iter().any(|source| source.file == reference.name) {
                continue;
            }
            let version = self.version(&reference.subject, reference.version).await?;
            sources.push(Source::new(
                &reference.name,
                version.text,
                &version.references,
            ));
            missing.extend(version.references);
        }
        Ok(sources)
    }

    /// Repeats a call while the registry does not answer, until the deadline.
    pub async fn with_retries<T, F>(&self, subject: &str, call: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, client::Error>>,
    {
        let mut backoff = Backoff::new();
        loop {
            let error = match call().await {
                Ok(answer) => return Ok(answer),
                Err(error @ client::Error::Unreachable(_)) => error,
                Err(error) => {
                    return Err(Error::Refused {
                        subject: subject.to_owned(),
                        source: error.into(),
                    });
                }
            };
            let pause = backoff.next();
            if self.started.elapsed() + pause > self.deadline {
                return Err(Error::Unavailable {
                    waited: self.started.elapsed(),
                    source: error.into(),
                });
            }
            tracing::debug!(
                subject,
                error = &error as &dyn std::error::Error,
                "the schema registry does not answer yet"
            );
            tokio::time::sleep(pause).await;
        }
    }
}
