//! Consumers that are assigned by hand: the bounded reader of take-over, and the tail that follows a topic.

use std::time::{Duration, Instant};

use contracts::{Service, Topic};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::context::Quiet;
use super::{Cluster, Error, Input, LOOKUP_TIMEOUT, Partition, Progress, error, input, settings};

/// Most records taken in one call, so that a long restore does not starve the partitions that go on.
const MOST: usize = 5_000;

/// Reads what is committed in one partition between two offsets.
pub struct KafkaReader {
    consumer: BaseConsumer<Quiet>,
    read: Option<Read>,
    /// Has said so since it last heard of the log.
    is_troubled: bool,
}

struct Read {
    topic: String,
    partition: Partition,
    from: i64,
    until: i64,
    /// The last stable offset has reached the bound and the partition is assigned.
    reading: bool,
}

impl KafkaReader {
    /// A reader on `cluster`.
    ///
    /// # Errors
    ///
    /// When a setting is refused.
    pub fn new(cluster: &Cluster) -> Result<Self, Error> {
        let consumer = settings::reader(cluster, "read_committed")
            .create_with_context(Quiet)
            .map_err(error)?;
        Ok(Self {
            consumer,
            read: None,
            is_troubled: false,
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
        self.consumer.unassign().map_err(error)?;
        self.read = Some(Read {
            topic: topic.into(),
            partition,
            from,
            until,
            reading: false,
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
        if read.from >= read.until {
            self.read = None;
            return Ok(Progress::Done);
        }
        if !read.reading {
            let (_, stable_end) = self
                .consumer
                .fetch_watermarks(&read.topic, read.partition, LOOKUP_TIMEOUT)
                .map_err(error)?;
            if stable_end < read.until {
                // A transaction is open below the bound; the broker ends it within its time-out.
                return Ok(Progress::More);
            }
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&read.topic, read.partition, Offset::Offset(read.from))
                .map_err(error)?;
            self.consumer.assign(&list).map_err(error)?;
            read.reading = true;
        }
        let deadline = Instant::now() + wait;
        for _ in 0..MOST {
            match self
                .consumer
                .poll(deadline.saturating_duration_since(Instant::now()))
            {
                Some(Ok(message)) => {
                    self.is_troubled = false;
                    inputs.push(input(&message));
                }
                // The end was fetched after the stable end had passed the bound.
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    self.is_troubled = false;
                    self.consumer.unassign().map_err(error)?;
                    self.read = None;
                    return Ok(Progress::Done);
                }
                Some(Err(failure)) => match error(failure) {
                    // Every try of an outage waits in the client's queue for whoever reads next.
                    Error::Unavailable(reason) if self.is_troubled => {
                        tracing::debug!(reason, "reader still in trouble");
                    }
                    Error::Unavailable(reason) => {
                        self.is_troubled = true;
                        tracing::warn!(reason, "reader in trouble");
                    }
                    error => return Err(error),
                },
                None => break,
            }
        }
        Ok(Progress::More)
    }
}

/// Follows every partition of one topic from its end on.
pub struct Tail {
    consumer: BaseConsumer<Quiet>,
}

impl Tail {
    /// Stands at explicit end offsets when this returns: nothing written from now on is missed.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn at_end(cluster: &Cluster, service: Service, topic: Topic) -> Result<Self, Error> {
        let consumer: BaseConsumer<Quiet> = settings::reader(cluster, "read_committed")
            .create_with_context(Quiet)
            .map_err(error)?;
        let name = cluster.topic(service, topic);
        let mut list = TopicPartitionList::new();
        for partition in 0..Partition::from(cluster.partitions) {
            let (_, end) = consumer
                .fetch_watermarks(&name, partition, LOOKUP_TIMEOUT)
                .map_err(error)?;
            list.add_partition_offset(&name, partition, Offset::Offset(end))
                .map_err(error)?;
        }
        consumer.assign(&list).map_err(error)?;
        Ok(Self { consumer })
    }

    /// The next record, waiting up to `wait`.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn next(&self, wait: Duration) -> Result<Option<Input>, Error> {
        match self.consumer.poll(wait) {
            Some(Ok(message)) => Ok(Some(input(&message))),
            Some(Err(KafkaError::PartitionEOF(_))) | None => Ok(None),
            Some(Err(failure)) => match error(failure) {
                Error::Unavailable(reason) => {
                    tracing::warn!(reason, "tail in trouble");
                    Ok(None)
                }
                error => Err(error),
            },
        }
    }
}
