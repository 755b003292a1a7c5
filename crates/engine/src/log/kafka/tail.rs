//! Follows every partition of one topic from its end on.

use std::time::{Duration, Instant};

use contracts::{Service, Topic};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{Renewable, drop_in_background};
use super::context::{Quiet, cause};
use super::{Cluster, Error, Input, LOOKUP_TIMEOUT, Partition, error, input, settings};

/// Between two looks at the end of a partition; partitions take turns.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A partition that goes on is delivered sooner than that.
const BEHIND: Duration = Duration::from_secs(3);

/// Follows every partition of one topic from its end on, and proves that it does: each second it asks for the end of a
/// partition and compares it with its position.
pub struct Tail {
    client: Renewable<BaseConsumer<Quiet>>,
    topic: String,
    partitions: Vec<Followed>,
    look_at: Instant,
    turn: usize,
    trouble: Option<String>,
}

struct Followed {
    /// The first offset that has not been delivered.
    next: i64,
    /// Since when it has stood there although there was more.
    behind_since: Option<Instant>,
}

impl Tail {
    /// Stands at explicit end offsets when this returns: nothing written from now on is missed.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn at_end(cluster: &Cluster, service: Service, topic: Topic) -> Result<Self, Error> {
        let topic = cluster.topic(service, topic);
        let mut settings = settings::reader(cluster, "read_committed");
        // Positions say more than ends do.
        settings.set("enable.partition.eof", "false");
        let make = move |client_id: &str| {
            settings
                .clone()
                .set("client.id", client_id)
                .create_with_context(Quiet::default())
        };
        let client: Renewable<BaseConsumer<Quiet>> =
            Renewable::new(format!("{topic}.tail"), make).map_err(error)?;
        let partitions = (0..Partition::from(cluster.partitions))
            .map(|partition| {
                let (_, end) = client
                    .get()
                    .fetch_watermarks(&topic, partition, LOOKUP_TIMEOUT)?;
                Ok(Followed {
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
            look_at: Instant::now() + LOOK_EVERY,
            turn: 0,
            trouble: None,
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
        self.look();
        let deadline = Instant::now() + wait;
        loop {
            let wait = deadline.saturating_duration_since(Instant::now());
            match self.client.get().poll(wait) {
                Some(Ok(message)) => {
                    if let Some(followed) = usize::try_from(message.partition())
                        .ok()
                        .and_then(|partition| self.partitions.get_mut(partition))
                    {
                        followed.next = message.offset() + 1;
                        followed.behind_since = None;
                    }
                    return Ok(Some(input(&message)));
                }
                Some(Err(KafkaError::PartitionEOF(_))) | None => return Ok(None),
                Some(Err(failure)) => match error(failure) {
                    // Reports of an outage that is over may still wait here: the next look tells.
                    Error::Unavailable(_) => self.look_at = Instant::now(),
                    error => return Err(error),
                },
            }
        }
    }

    /// Why records may not be delivered now; `None` while all is well.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    fn look(&mut self) {
        if Instant::now() < self.look_at {
            return;
        }
        self.look_at = Instant::now() + LOOK_EVERY;
        // While there is trouble, the partition that has it is looked at.
        if self.trouble.is_none() {
            self.turn = (self.turn + 1) % self.partitions.len().max(1);
        }
        let Ok(partition) = Partition::try_from(self.turn) else {
            return;
        };
        let client = self.client.get();
        // For a read_committed client this is the last stable offset.
        let end = match client.fetch_watermarks(&self.topic, partition, LOOKUP_TIMEOUT) {
            Ok((_, end)) => end,
            Err(failure) => return self.fail(cause(&failure), partition),
        };
        let position = self.position(partition);
        let Some(followed) = self.partitions.get_mut(self.turn) else {
            return;
        };
        followed.next = followed.next.max(position);
        if followed.next >= end {
            followed.behind_since = None;
        }
        let behind = (followed.next < end).then(|| {
            followed
                .behind_since
                .get_or_insert_with(Instant::now)
                .elapsed()
        });
        match behind {
            Some(behind) if behind > BEHIND => {
                let next = followed.next;
                let topic = &self.topic;
                self.fail(
                    format!("{topic} [{partition}] stands still at {next} of {end}"),
                    partition,
                );
            }
            _ => {
                self.trouble = None;
                self.client.answered();
            }
        }
    }

    /// Past markers and aborted records too; 0 while nothing has been delivered.
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

    /// A fresh client takes over where this one stands, if the rule says so.
    fn fail(&mut self, reason: String, partition: Partition) {
        let is_due = self.client.failed(&reason);
        self.trouble = Some(reason);
        if !is_due {
            return;
        }
        let Ok(fresh) = self.client.fresh() else {
            return;
        };
        let answer = fresh
            .fetch_watermarks(&self.topic, partition, LOOKUP_TIMEOUT)
            .and_then(|_| self.assign(&fresh));
        match answer {
            Ok(()) => self.client.replace(fresh),
            Err(_) => drop_in_background(fresh),
        }
    }

    fn assign(&self, client: &BaseConsumer<Quiet>) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for (partition, followed) in (0..).zip(&self.partitions) {
            list.add_partition_offset(&self.topic, partition, Offset::Offset(followed.next))?;
        }
        client.assign(&list)
    }
}
