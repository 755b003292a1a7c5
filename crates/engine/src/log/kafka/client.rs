//! A librdkafka client that is replaced when it fails while a new client succeeds.

use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use observability::Outage;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::metadata::{Metadata, MetadataTopic};

use super::context::{LoggingContext, cause};
use super::{Cluster, LOOKUP_TIMEOUT, settings};
use crate::log::replacement::FailureTracker;

/// Creates a client with the given `client.id`.
type Factory<C> = Box<dyn Fn(&str) -> KafkaResult<C> + Send>;

/// A client for requests, replaced by the rule of [`crate::log::replacement`].
///
/// Each client has a number in its `client.id`, so that the broker's log distinguishes a client from its predecessor.
pub struct ReplaceableClient<C: Send + 'static> {
    name: String,
    factory: Factory<C>,
    client: BackgroundDrop<C>,
    number: u32,
    failures: FailureTracker,
    /// `None` when the owner reports outages itself.
    outage: Option<Outage>,
    started_at: Instant,
}

impl<C: Send + 'static> ReplaceableClient<C> {
    /// A client named `name` in `client.id` and in the process's log.
    ///
    /// # Errors
    ///
    /// A setting is rejected.
    pub fn new(
        name: impl Into<String>,
        factory: impl Fn(&str) -> KafkaResult<C> + Send + 'static,
    ) -> KafkaResult<Self> {
        let name = name.into();
        let number = 1;
        Ok(Self {
            client: BackgroundDrop::new(factory(&client_id(&name, number))?),
            outage: Some(Outage::of(&name)),
            name,
            factory: Box::new(factory),
            number,
            failures: FailureTracker::default(),
            started_at: Instant::now(),
        })
    }

    /// Sets another patience than [`crate::log::replacement::PATIENCE`].
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.failures = FailureTracker::with_patience(patience);
        self
    }

    /// Does not log outages: the owner reports them itself.
    #[must_use]
    pub fn without_outage_log(mut self) -> Self {
        self.outage = None;
        self
    }

    /// Makes a request. When the client has failed for some time, a fresh one makes the same request and replaces it if
    /// it gets an answer.
    ///
    /// # Errors
    ///
    /// The client's failure, when a fresh one fails as well or it is too early to compare; or a fresh one cannot be
    /// created.
    pub fn call<T>(&mut self, mut request: impl FnMut(&mut C) -> KafkaResult<T>) -> KafkaResult<T> {
        let answer = request(&mut self.client);
        let Err(failure) = answer else {
            self.answered();
            return answer;
        };
        if !self.failed(cause(&failure)) {
            return Err(failure);
        }
        let mut fresh = self.fresh()?;
        let Ok(found) = request(&mut fresh) else {
            return Err(failure);
        };
        self.replace(fresh);
        if let Some(outage) = &mut self.outage {
            outage.answered();
        }
        Ok(found)
    }

    /// Records that the client works.
    pub fn answered(&mut self) {
        self.failures.answered();
        if let Some(outage) = &mut self.outage {
            outage.answered();
        }
    }

    /// Records a failure outside [`ReplaceableClient::call`]; returns whether to try a fresh client.
    pub fn failed(&mut self, cause: impl std::fmt::Display) -> bool {
        if let Some(outage) = &mut self.outage {
            outage.failed(cause);
        }
        self.failures.failed(self.started_at.elapsed())
    }

    /// A fresh client with the same settings.
    ///
    /// # Errors
    ///
    /// A setting is rejected.
    pub fn fresh(&self) -> KafkaResult<BackgroundDrop<C>> {
        (self.factory)(&client_id(&self.name, self.number + 1)).map(BackgroundDrop::new)
    }

    /// Replaces the client with a fresh one.
    pub fn replace(&mut self, fresh: BackgroundDrop<C>) {
        self.number += 1;
        self.failures.replaced();
        tracing::warn!(
            client = self.name,
            number = self.number,
            "log client replaced: a fresh one gets answers"
        );
        self.client = fresh;
    }

    /// The current client.
    pub fn get(&self) -> &C {
        &self.client
    }
}

fn client_id(name: &str, number: u32) -> String {
    format!("{name}-{number}")
}

/// Whether a fresh client gets an answer: the brokers, and a leader for each partition of `topic`.
pub fn fresh_client_succeeds(cluster: &Cluster, topic: &str) -> bool {
    let client = settings::admin(cluster)
        .create_with_context::<_, BaseConsumer<LoggingContext>>(LoggingContext::default());
    let Ok(client) = client.map(BackgroundDrop::new) else {
        return false;
    };
    let answer = client.fetch_metadata(Some(topic), LOOKUP_TIMEOUT);
    answer.is_ok_and(|metadata| has_leaders(&metadata))
}

/// Whether there are brokers, and a leader for each partition of the requested topics. A restarted broker may not know
/// a topic yet, which then has no partitions.
pub fn has_leaders(metadata: &Metadata) -> bool {
    let has_leaders = |topic: &MetadataTopic| {
        let mut partitions = topic.partitions().iter();
        !topic.partitions().is_empty() && partitions.all(|partition| partition.leader() >= 0)
    };
    !metadata.brokers().is_empty() && metadata.topics().iter().all(has_leaders)
}

/// A librdkafka client that is dropped on a separate thread: closing one may wait for a broker that does not answer, or
/// for ever, when it is in the middle of a rebalance.
pub struct BackgroundDrop<C: Send + 'static> {
    /// `None` only during drop.
    client: Option<C>,
}

impl<C: Send + 'static> BackgroundDrop<C> {
    /// Wraps a client.
    pub fn new(client: C) -> Self {
        Self {
            client: Some(client),
        }
    }
}

impl<C: Send + 'static> Deref for BackgroundDrop<C> {
    type Target = C;

    fn deref(&self) -> &C {
        self.client.as_ref().expect("it is not being dropped")
    }
}

impl<C: Send + 'static> DerefMut for BackgroundDrop<C> {
    fn deref_mut(&mut self) -> &mut C {
        self.client.as_mut().expect("it is not being dropped")
    }
}

impl<C: Send + 'static> Drop for BackgroundDrop<C> {
    fn drop(&mut self) {
        let client = self.client.take();
        // Without a free thread the closure, and with it the client, is dropped on this one.
        let _ = std::thread::Builder::new().spawn(move || drop(client));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::BackgroundDrop;

    /// A client whose drop waits for an answer.
    struct Stuck {
        answer: mpsc::Receiver<()>,
        ended: mpsc::Sender<bool>,
    }

    impl Drop for Stuck {
        fn drop(&mut self) {
            let is_answered = self.answer.recv_timeout(Duration::from_secs(20)).is_ok();
            let _ = self.ended.send(is_answered);
        }
    }

    #[test]
    fn dropping_a_former_client_does_not_block() {
        let (answers, answer) = mpsc::channel();
        let (ended, ends) = mpsc::channel();
        drop(BackgroundDrop::new(Stuck { answer, ended }));
        answers.send(()).expect("it still waits");
        assert_eq!(ends.recv(), Ok(true));
    }
}
