//! The bounded reader of take-over: a consumer that is assigned by hand.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{Renewable, drop_in_background};
use super::context::Quiet;
use super::{Cluster, Error, Input, LOOKUP_TIMEOUT, Partition, Progress, error, input, settings};

/// Most records taken in one call, so that a long restore does not starve the partitions that go on.
const MOST: usize = 5_000;
/// A read below the last stable offset brings something sooner than that.
const SILENCE: Duration = Duration::from_secs(1);
/// For so long a read waits, and has its client replaced, before it tells its caller.
const PATIENT: Duration = Duration::from_secs(6);
/// How long it may stay silent beyond that before a fresh client is tried.
const PATIENCE: Duration = Duration::from_secs(2);

/// Reads what is committed in one partition between two offsets.
pub struct KafkaReader {
    client: Renewable<BaseConsumer<Quiet>>,
    read: Option<Read>,
}

struct Read {
    topic: String,
    partition: Partition,
    /// The first offset that has not been delivered.
    next: i64,
    until: i64,
    /// When the client brought something last; `None` until the last stable offset has reached the bound and the
    /// partition is assigned.
    heard: Option<Instant>,
}

impl Read {
    fn assign(&self, client: &BaseConsumer<Quiet>) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, self.partition, Offset::Offset(self.next))?;
        client.assign(&list)
    }
}

impl KafkaReader {
    /// A reader on `cluster`, called `name` in the process's and the broker's log.
    ///
    /// # Errors
    ///
    /// When a setting is refused.
    pub fn new(cluster: &Cluster, name: impl Into<String>) -> Result<Self, Error> {
        let settings = settings::reader(cluster, "read_committed");
        let make = move |client_id: &str| {
            settings
                .clone()
                .set("client.id", client_id)
                .create_with_context(Quiet::default())
        };
        Ok(Self {
            client: Renewable::new(name, make)
                .map_err(error)?
                .with_patience(PATIENCE)
                // Its owner tells of outages.
                .silent(),
            read: None,
        })
    }

    /// See [`crate::log::Log::open`].
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn open(
        &mut self,
        topic: &str,
        partition: Partition,
        from: i64,
        until: i64,
    ) -> Result<(), Error> {
        self.client.get().unassign().map_err(error)?;
        self.read = Some(Read {
            topic: topic.into(),
            partition,
            next: from,
            until,
            heard: None,
        });
        Ok(())
    }

    /// See [`crate::log::Log::read`].
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn read(&mut self, wait: Duration, inputs: &mut Vec<Input>) -> Result<Progress, Error> {
        let Some(read) = &mut self.read else {
            return Ok(Progress::Done);
        };
        if read.next >= read.until {
            self.read = None;
            return Ok(Progress::Done);
        }
        if read.heard.is_none() {
            let (topic, partition) = (&read.topic, read.partition);
            let (_, stable_end) = self
                .client
                .ask(|client| client.fetch_watermarks(topic, partition, LOOKUP_TIMEOUT))
                .map_err(error)?;
            if stable_end < read.until {
                // A transaction is open below the bound; the broker ends it within its time-out.
                return Ok(Progress::More);
            }
            read.assign(self.client.get()).map_err(error)?;
            read.heard = Some(Instant::now());
        }
        let deadline = Instant::now() + wait;
        let before = inputs.len();
        let mut failure = None;
        for _ in 0..MOST {
            let wait = deadline.saturating_duration_since(Instant::now());
            match self.client.get().poll(wait) {
                Some(Ok(message)) => {
                    read.next = message.offset() + 1;
                    read.heard = Some(Instant::now());
                    inputs.push(input(&message));
                }
                // The end was fetched after the stable end had passed the bound.
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    self.client.answered();
                    self.client.get().unassign().map_err(error)?;
                    self.read = None;
                    return Ok(Progress::Done);
                }
                // Reports of an outage that is over may still wait here.
                Some(Err(reported)) => match error(reported) {
                    Error::Unavailable(reason) => failure = Some(reason),
                    error => return Err(error),
                },
                None => break,
            }
        }
        if inputs.len() > before {
            self.client.answered();
        } else if read.heard.is_some_and(|heard| heard.elapsed() > SILENCE) {
            let missing = || "records that are there are not delivered".to_owned();
            return self.silent(failure.unwrap_or_else(missing));
        }
        Ok(Progress::More)
    }

    /// Nothing came that should have. A fresh client takes over where this one stands, if the rule says so.
    fn silent(&mut self, reason: String) -> Result<Progress, Error> {
        if let Some(read) = &self.read
            && self.client.failed(&reason)
        {
            let fresh = self.client.fresh().map_err(error)?;
            let answer = fresh
                .fetch_watermarks(&read.topic, read.partition, LOOKUP_TIMEOUT)
                .and_then(|_| read.assign(&fresh));
            match answer {
                Ok(()) => self.client.replace(fresh),
                Err(_) => drop_in_background(fresh),
            }
        }
        let is_patient = |read: &Read| read.heard.is_some_and(|heard| heard.elapsed() <= PATIENT);
        if self.read.as_ref().is_some_and(is_patient) {
            return Ok(Progress::More);
        }
        Err(Error::Unavailable(reason))
    }
}
