//! A librdkafka client that is replaced when it fails although a fresh one does not.

use std::time::{Duration, Instant};

use observability::Outage;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::metadata::Metadata;

use super::context::{Quiet, cause};
use super::{Cluster, LOOKUP_TIMEOUT, settings};
use crate::log::replacement::Failing;

/// Makes a client under the given `client.id`.
type Make<C> = Box<dyn Fn(&str) -> KafkaResult<C> + Send>;

/// A client that answers questions, made anew by the rule of [`crate::log::replacement`].
///
/// Each client has a number in its `client.id`, so that the broker's log tells a client from its predecessor. A former
/// client, and one that is dropped, ends on a thread of its own: librdkafka may wait for a broker that is away.
pub struct Renewable<C: Send + 'static> {
    name: String,
    make: Make<C>,
    /// `None` only while it is dropped.
    client: Option<C>,
    number: u32,
    failing: Failing,
    /// `None` for a client whose owner tells of its outages otherwise.
    outage: Option<Outage>,
    begun: Instant,
}

impl<C: Send + 'static> Renewable<C> {
    /// A client called `name` in `client.id` and in the process's log.
    ///
    /// # Errors
    ///
    /// A setting is refused.
    pub fn new(
        name: impl Into<String>,
        make: impl Fn(&str) -> KafkaResult<C> + Send + 'static,
    ) -> KafkaResult<Self> {
        let name = name.into();
        let number = 1;
        Ok(Self {
            client: Some(make(&numbered(&name, number))?),
            outage: Some(Outage::of(&name)),
            name,
            make: Box::new(make),
            number,
            failing: Failing::default(),
            begun: Instant::now(),
        })
    }

    /// Has another patience than usual.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.failing = Failing::with_patience(patience);
        self
    }

    /// Logs no outages: its owner tells of them otherwise.
    #[must_use]
    pub fn silent(mut self) -> Self {
        self.outage = None;
        self
    }

    /// Asks the client. When it has failed for some time, the same is asked of a fresh one, which takes its place if it
    /// gets an answer.
    ///
    /// # Errors
    ///
    /// The client's failure, when a fresh one would fail as well, or it is too early to tell.
    pub fn ask<T>(&mut self, mut question: impl FnMut(&mut C) -> KafkaResult<T>) -> KafkaResult<T> {
        let client = self.client.as_mut().expect("it is not being dropped");
        let answer = question(client);
        let Err(failure) = answer else {
            self.answered();
            return answer;
        };
        if !self.failed(cause(&failure)) {
            return Err(failure);
        }
        let mut fresh = (self.make)(&numbered(&self.name, self.number + 1))?;
        match question(&mut fresh) {
            Ok(found) => {
                self.replace(fresh);
                if let Some(outage) = &mut self.outage {
                    outage.answered();
                }
                Ok(found)
            }
            Err(_) => {
                drop_in_background(fresh);
                Err(failure)
            }
        }
    }

    /// The client works.
    pub fn answered(&mut self) {
        self.failing.answered();
        if let Some(outage) = &mut self.outage {
            outage.answered();
        }
    }

    /// The client failed at something that is no question; whether a fresh one should be tried.
    pub fn failed(&mut self, cause: impl std::fmt::Display) -> bool {
        if let Some(outage) = &mut self.outage {
            outage.failed(cause);
        }
        self.failing.failed(self.begun.elapsed())
    }

    /// A client like this one, to be compared with it.
    ///
    /// # Errors
    ///
    /// A setting is refused.
    pub fn fresh(&self) -> KafkaResult<C> {
        (self.make)(&numbered(&self.name, self.number + 1))
    }

    /// Puts a fresh client in the place of this one.
    pub fn replace(&mut self, fresh: C) {
        self.number += 1;
        self.failing.replaced();
        tracing::warn!(
            client = self.name,
            number = self.number,
            "log client replaced: a fresh one gets answers"
        );
        if let Some(former) = self.client.replace(fresh) {
            drop_in_background(former);
        }
    }

    /// The client of now.
    pub fn get(&self) -> &C {
        self.client.as_ref().expect("it is not being dropped")
    }
}

impl<C: Send + 'static> Drop for Renewable<C> {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            drop_in_background(client);
        }
    }
}

fn numbered(name: &str, number: u32) -> String {
    format!("{name}-{number}")
}

/// Whether a fresh client gets an answer: the brokers, and a leader for each partition of `topic`.
pub fn is_answered_afresh(cluster: &Cluster, topic: &str) -> bool {
    let client =
        settings::admin(cluster).create_with_context::<_, BaseConsumer<Quiet>>(Quiet::default());
    let Ok(client) = client else { return false };
    let answer = client.fetch_metadata(Some(topic), LOOKUP_TIMEOUT);
    drop_in_background(client);
    answer.is_ok_and(|metadata| has_leaders(&metadata))
}

/// Whether there are brokers, and a leader for each partition that was asked for.
pub fn has_leaders(metadata: &Metadata) -> bool {
    let mut partitions = metadata
        .topics()
        .iter()
        .flat_map(|topic| topic.partitions());
    !metadata.brokers().is_empty() && partitions.all(|partition| partition.leader() >= 0)
}

/// Drops a client on a thread of its own: librdkafka's end of a client may wait for a broker that does not answer, or
/// for ever.
pub fn drop_in_background(client: impl Send + 'static) {
    // Where the system has no thread left, it is dropped here.
    let _ = std::thread::Builder::new().spawn(move || drop(client));
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::drop_in_background;

    /// A client whose end waits for an answer.
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
    fn the_end_of_a_former_client_is_not_waited_for() {
        let (answers, answer) = mpsc::channel();
        let (ended, ends) = mpsc::channel();
        drop_in_background(Stuck { answer, ended });
        answers.send(()).expect("it still waits");
        assert_eq!(ends.recv(), Ok(true));
    }
}
