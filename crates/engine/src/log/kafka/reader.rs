//! The bounded reader for take-over: a consumer with manual assignment.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::ReplaceableClient;
use super::context::LoggingContext;
use super::{Cluster, Error, Input, LOOKUP_TIMEOUT, Partition, Progress, error, input, settings};

/// Most records read in one call, so that a long restore does not starve the processed partitions.
const MAX_RECORDS: usize = 5_000;
/// A read below the last stable offset delivers records within this time.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(1);
/// For this long a stalled read waits, and may replace its client, before it returns an error.
const ERROR_AFTER: Duration = Duration::from_secs(6);
/// How long a read may stall, beyond the delivery time-out, before a fresh client is tried.
const REPLACE_AFTER: Duration = Duration::from_secs(2);

/// Reads what is committed in one partition between two offsets.
pub struct KafkaReader {
    client: ReplaceableClient<BaseConsumer<LoggingContext>>,
    read: Option<Read>,
}

struct Read {
    topic: String,
    partition: Partition,
    /// The first offset that has not been delivered.
    next: i64,
    until: i64,
    /// When the client last delivered a record; `None` until the last stable offset has reached the bound and the
    /// partition is assigned.
    received_at: Option<Instant>,
}

impl Read {
    fn assign(&self, client: &BaseConsumer<LoggingContext>) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, self.partition, Offset::Offset(self.next))?;
        client.assign(&list)
    }
}

impl KafkaReader {
    /// A reader on `cluster`, named `name` in the process's and the broker's log.
    ///
    /// # Errors
    ///
    /// A setting is rejected.
    pub fn new(cluster: &Cluster, name: impl Into<String>) -> Result<Self, Error> {
        let settings = settings::reader(cluster, "read_committed");
        let make = move |client_id: &str| {
            settings
                .clone()
                .set("client.id", client_id)
                .create_with_context(LoggingContext::default())
        };
        Ok(Self {
            client: ReplaceableClient::new(name, make)
                .map_err(error)?
                .with_patience(REPLACE_AFTER)
                // The owner reports outages.
                .without_outage_log(),
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
            received_at: None,
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
        if read.received_at.is_none() {
            let (topic, partition) = (&read.topic, read.partition);
            let (_, stable_end) = self
                .client
                .call(|client| client.fetch_watermarks(topic, partition, LOOKUP_TIMEOUT))
                .map_err(error)?;
            if stable_end < read.until {
                // A transaction is open below the bound; the broker ends it within its time-out.
                return Ok(Progress::More);
            }
            read.assign(self.client.get()).map_err(error)?;
            read.received_at = Some(Instant::now());
        }
        let deadline = Instant::now() + wait;
        let before = inputs.len();
        let mut failure = None;
        for _ in 0..MAX_RECORDS {
            let wait = deadline.saturating_duration_since(Instant::now());
            match self.client.get().poll(wait) {
                Some(Ok(message)) => {
                    read.next = message.offset() + 1;
                    read.received_at = Some(Instant::now());
                    inputs.push(input(&message));
                }
                // This end was fetched after the last stable offset had reached the bound.
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    self.client.answered();
                    self.client.get().unassign().map_err(error)?;
                    self.read = None;
                    return Ok(Progress::Done);
                }
                // Reports of a past outage may still be queued.
                Some(Err(reported)) => match error(reported) {
                    Error::Unavailable(reason) => failure = Some(reason),
                    error => return Err(error),
                },
                None => break,
            }
        }
        if inputs.len() > before {
            self.client.answered();
        } else if read
            .received_at
            .is_some_and(|received_at| received_at.elapsed() > DELIVERY_TIMEOUT)
        {
            let missing = || "existing records are not delivered".to_owned();
            return self.delivery_stalled(failure.unwrap_or_else(missing));
        }
        Ok(Progress::More)
    }

    /// Existing records are not delivered. A fresh client continues at this position, when the replacement rule allows
    /// it.
    fn delivery_stalled(&mut self, reason: String) -> Result<Progress, Error> {
        if let Some(read) = &self.read
            && self.client.failed(&reason)
        {
            let fresh = self.client.fresh().map_err(error)?;
            let answer = fresh
                .fetch_watermarks(&read.topic, read.partition, LOOKUP_TIMEOUT)
                .and_then(|_| read.assign(&fresh));
            if answer.is_ok() {
                self.client.replace(fresh);
            }
        }
        let is_early = |read: &Read| {
            read.received_at
                .is_some_and(|received_at| received_at.elapsed() <= ERROR_AFTER)
        };
        if self.read.as_ref().is_some_and(is_early) {
            return Ok(Progress::More);
        }
        Err(Error::Unavailable(reason))
    }
}
