//! Follows every partition of one topic from its end on.

use std::time::{Duration, Instant};

use contracts::{Service, Topic};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::ReplaceableClient;
use super::context::{LoggingContext, cause};
use super::{Cluster, Error, Input, LOOKUP_TIMEOUT, Partition, error, input, settings};

/// Between two checks of a partition's end; the checks rotate through the partitions.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// New records are delivered within this time; otherwise the partition is stalled.
const STALLED_AFTER: Duration = Duration::from_secs(3);

/// Follows every partition of one topic from its end on. Each second it fetches the end of one partition and compares
/// it with its position.
pub struct Tail {
    client: ReplaceableClient<BaseConsumer<LoggingContext>>,
    topic: String,
    partitions: Vec<PartitionProgress>,
    check_at: Instant,
    checked_partition: usize,
    problem: Option<String>,
}

struct PartitionProgress {
    /// The first offset that has not been delivered.
    next: i64,
    /// Since when `next` has not advanced although there are more records.
    behind_since: Option<Instant>,
}

impl Tail {
    /// Starts at the current end offsets: records written after this returns are not missed.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn at_end(cluster: &Cluster, service: Service, topic: Topic) -> Result<Self, Error> {
        let topic = cluster.topic(service, topic);
        let mut settings = settings::reader(cluster, "read_committed");
        // Positions are used instead.
        settings.set("enable.partition.eof", "false");
        let make = move |client_id: &str| {
            settings
                .clone()
                .set("client.id", client_id)
                .create_with_context(LoggingContext::default())
        };
        let client: ReplaceableClient<BaseConsumer<LoggingContext>> =
            ReplaceableClient::new(format!("{topic}.tail"), make).map_err(error)?;
        let partitions = (0..Partition::from(cluster.partitions))
            .map(|partition| {
                let (_, end) = client
                    .get()
                    .fetch_watermarks(&topic, partition, LOOKUP_TIMEOUT)?;
                Ok(PartitionProgress {
                    next: end,
                    behind_since: None,
                })
            })
            .collect::<KafkaResult<Vec<_>>>()
            .map_err(error)?;
        let tail = Self {
            client,
            topic,
            partitions,
            check_at: Instant::now() + CHECK_INTERVAL,
            checked_partition: 0,
            problem: None,
        };
        tail.assign(tail.client.get()).map_err(error)?;
        Ok(tail)
    }

    /// The next record, waiting up to `wait`.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn next(&mut self, wait: Duration) -> Result<Option<Input>, Error> {
        self.check_progress();
        let deadline = Instant::now() + wait;
        loop {
            let wait = deadline.saturating_duration_since(Instant::now());
            match self.client.get().poll(wait) {
                Some(Ok(message)) => {
                    if let Some(progress) = usize::try_from(message.partition())
                        .ok()
                        .and_then(|partition| self.partitions.get_mut(partition))
                    {
                        progress.next = message.offset() + 1;
                        progress.behind_since = None;
                    }
                    return Ok(Some(input(&message)));
                }
                Some(Err(KafkaError::PartitionEOF(_))) | None => return Ok(None),
                Some(Err(failure)) => match error(failure) {
                    // Reports of a past outage may still be queued: the next check finds out.
                    Error::Unavailable(_) => self.check_at = Instant::now(),
                    error => return Err(error),
                },
            }
        }
    }

    /// Why records may not be delivered now; `None` while healthy.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    fn check_progress(&mut self) {
        if Instant::now() < self.check_at {
            return;
        }
        self.check_at = Instant::now() + CHECK_INTERVAL;
        // A partition with a problem is checked again until it is healthy.
        if self.problem.is_none() {
            self.checked_partition = (self.checked_partition + 1) % self.partitions.len().max(1);
        }
        let Ok(partition) = Partition::try_from(self.checked_partition) else {
            return;
        };
        let client = self.client.get();
        // For a read_committed client this is the last stable offset.
        let end = match client.fetch_watermarks(&self.topic, partition, LOOKUP_TIMEOUT) {
            Ok((_, end)) => end,
            Err(failure) => return self.fail(cause(&failure), partition),
        };
        let position = self.position(partition);
        let Some(progress) = self.partitions.get_mut(self.checked_partition) else {
            return;
        };
        progress.next = progress.next.max(position);
        if progress.next >= end {
            progress.behind_since = None;
        }
        let behind = (progress.next < end).then(|| {
            progress
                .behind_since
                .get_or_insert_with(Instant::now)
                .elapsed()
        });
        match behind {
            Some(behind) if behind > STALLED_AFTER => {
                let next = progress.next;
                let topic = &self.topic;
                self.fail(
                    format!("{topic} [{partition}] stalled at {next} of {end}"),
                    partition,
                );
            }
            _ => {
                self.problem = None;
                self.client.answered();
            }
        }
    }

    /// The client's position, which passes markers and aborted records too; 0 before the first delivery.
    fn position(&self, partition: Partition) -> i64 {
        let positions = self.client.get().position().ok();
        let element = positions
            .as_ref()
            .and_then(|positions| positions.find_partition(&self.topic, partition));
        match element.map(|element| element.offset()) {
            Some(Offset::Offset(offset)) => offset,
            _ => 0,
        }
    }

    /// Records a problem. A fresh client continues at these positions, when the replacement rule allows it.
    fn fail(&mut self, reason: String, partition: Partition) {
        let is_due = self.client.failed(&reason);
        self.problem = Some(reason);
        if !is_due {
            return;
        }
        let Ok(fresh) = self.client.fresh() else {
            return;
        };
        let answer = fresh
            .fetch_watermarks(&self.topic, partition, LOOKUP_TIMEOUT)
            .and_then(|_| self.assign(&fresh));
        if answer.is_ok() {
            self.client.replace(fresh);
        }
    }

    fn assign(&self, client: &BaseConsumer<LoggingContext>) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for (partition, progress) in (0..).zip(&self.partitions) {
            list.add_partition_offset(&self.topic, partition, Offset::Offset(progress.next))?;
        }
        client.assign(&list)
    }
}
