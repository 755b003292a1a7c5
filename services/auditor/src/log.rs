//! The log as the auditor reads it: every record, and whether it is committed. Nothing is joined and nothing committed.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use audit::{Error, Seen, TopicPartition};
use contracts::{Service, Topic};
use engine::Cluster;
use engine::log::kafka::settings;
use engine::log::{Ends, Input, Partition};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use registry::{Resolution, Schemas};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use platform_client::kafka::{Silent, client, committed};

/// Records taken of one partition before another one's turn.
const CHUNK: usize = 2_000;
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(6);
/// How long the broker may say nothing.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(200);
const AGAIN: Duration = Duration::from_millis(50);

/// Reads partitions in pieces, each through two eyes: one that sees everything, one that sees what is committed.
pub struct Log {
    cluster: Cluster,
    all: BaseConsumer<Silent>,
    committed: BaseConsumer<Silent>,
    /// Asks the registry.
    asked: Schemas,
    /// What it has said.
    known: Schemas,
    resolved: RefCell<HashSet<(Service, Topic, u32)>>,
    runtime: Handle,
    /// Reading ends early when it is cancelled.
    pub stop: CancellationToken,
}

impl Log {
    /// Connects lazily. What `asked` says of a schema is learned by `known`. Call it within a tokio runtime.
    pub fn new(cluster: Cluster, asked: Schemas, known: Schemas) -> anyhow::Result<Self> {
        let reader = |isolation| {
            let mut config = settings::reader(&cluster, isolation);
            // What is fetched beyond a piece is thrown away.
            config
                .set("queued.min.messages", "1000")
                .set("queued.max.messages.kbytes", "4096");
            client(config)
        };
        Ok(Self {
            all: reader("read_uncommitted")?,
            committed: reader("read_committed")?,
            cluster,
            asked,
            known,
            resolved: RefCell::default(),
            runtime: Handle::current(),
            stop: CancellationToken::new(),
        })
    }

    fn name(&self, place: TopicPartition) -> String {
        self.cluster.topic(place.service, place.topic)
    }

    /// The ends of a partition, those of open transactions included.
    pub fn ends(&self, place: TopicPartition) -> anyhow::Result<Ends> {
        let name = self.name(place);
        let (low, high) = self
            .all
            .fetch_watermarks(&name, place.partition, LOOKUP_TIMEOUT)
            .with_context(|| format!("topic {name} at {}", self.cluster.bootstrap))?;
        Ok(Ends { low, high })
    }

    /// What a group has committed of its commands; absent where it has committed nothing. A transaction that is about to
    /// move an offset is waited for: what it has written may be visible already, and seen by others.
    pub fn committed(&self, service: Service) -> anyhow::Result<HashMap<Partition, i64>> {
        let mut config = settings::reader(&self.cluster, "read_committed");
        config.set("group.id", self.cluster.group(service));
        let group = client(config)?;
        Ok(committed(&group, &self.cluster, service, PATIENCE)?)
    }

    /// Waits until every transaction below `high` has ended.
    fn settle(&self, place: TopicPartition, high: i64) -> anyhow::Result<()> {
        let name = self.name(place);
        let begun = Instant::now();
        loop {
            let (_, stable) = self
                .committed
                .fetch_watermarks(&name, place.partition, LOOKUP_TIMEOUT)
                .with_context(|| format!("topic {name} at {}", self.cluster.bootstrap))?;
            if stable >= high {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                bail!(
                    "topic {name}: a transaction in partition {} does not end",
                    place.partition
                );
            }
            self.runtime.block_on(tokio::time::sleep(AGAIN));
        }
    }

    /// Every record of a partition between its ends. Blocks, on a thread of the runtime that may.
    pub fn records(&self, place: TopicPartition, ends: Ends) -> Records<'_> {
        Records {
            log: self,
            place,
            next: ends.low,
            high: ends.high,
            is_settled: false,
            buffer: VecDeque::new(),
        }
    }

    /// The record at an offset, if one is there.
    pub fn record(&self, place: TopicPartition, offset: i64) -> anyhow::Result<Option<Input>> {
        self.assign(&self.all, place, offset)?;
        let (inputs, _) = self.take(&self.all, place, 1, offset + 1)?;
        Ok(inputs.into_iter().find(|input| input.offset == offset))
    }

    fn assign(
        &self,
        consumer: &BaseConsumer<Silent>,
        place: TopicPartition,
        from: i64,
    ) -> anyhow::Result<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.name(place), place.partition, Offset::Offset(from))?;
        consumer.assign(&list)?;
        Ok(())
    }

    /// Up to `most` records below `until`; and the first offset that was not looked at.
    fn take(
        &self,
        consumer: &BaseConsumer<Silent>,
        place: TopicPartition,
        most: usize,
        until: i64,
    ) -> anyhow::Result<(Vec<Input>, i64)> {
        let mut inputs: Vec<Input> = Vec::new();
        let mut heard = Instant::now();
        let next = loop {
            match consumer.poll(POLL) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    if message.offset() >= until {
                        break until;
                    }
                    inputs.push(engine::log::kafka::input(&message));
                    let next = message.offset() + 1;
                    if inputs.len() == most || next >= until {
                        break next;
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => break until,
                Some(Err(error)) if is_passing(&error) && heard.elapsed() < PATIENCE => {}
                Some(Err(error)) => {
                    return Err(error).with_context(|| format!("{place}"));
                }
                None if heard.elapsed() > PATIENCE => {
                    bail!(
                        "{place}: the broker at {} says nothing",
                        self.cluster.bootstrap
                    );
                }
                None => {}
            }
        };
        Ok((inputs, next))
    }

    /// The next piece of a partition, and where the one after it begins.
    fn piece(
        &self,
        place: TopicPartition,
        from: i64,
        high: i64,
    ) -> anyhow::Result<(Vec<Seen>, i64)> {
        self.assign(&self.committed, place, from)?;
        self.assign(&self.all, place, from)?;
        let (inputs, next) = self.take(&self.all, place, CHUNK, high)?;
        let (committed, _) = self.take(&self.committed, place, CHUNK, next)?;
        let committed: HashSet<i64> = committed.iter().map(|input| input.offset).collect();
        self.all.unassign()?;
        self.committed.unassign()?;
        let seen = |input: Input| Seen {
            committed: committed.contains(&input.offset),
            input,
        };
        inputs
            .iter()
            .try_for_each(|input| self.resolve(place, input))?;
        Ok((inputs.into_iter().map(seen).collect(), next))
    }

    /// Waits for the registry's word on a schema that is new here.
    fn resolve(&self, place: TopicPartition, input: &Input) -> anyhow::Result<()> {
        if place.topic == Topic::Dlq {
            return Ok(());
        }
        let Ok(framed) = registry::unframe(input.payload.as_deref().unwrap_or_default()) else {
            return Ok(());
        };
        let key = (place.service, place.topic, framed.schema_id);
        if self.resolved.borrow().contains(&key) {
            return Ok(());
        }
        let begun = Instant::now();
        loop {
            match self.asked.resolve(key.0, key.1, key.2) {
                Resolution::Pending if begun.elapsed() < PATIENCE => {
                    self.runtime.block_on(tokio::time::sleep(AGAIN));
                }
                Resolution::Pending => {
                    bail!("the schema registry does not answer about schema {}", key.2)
                }
                resolution => {
                    self.known.learn(key.0, key.1, key.2, resolution);
                    self.resolved.borrow_mut().insert(key);
                    return Ok(());
                }
            }
        }
    }
}

fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
        )
    )
}

/// The records of one partition.
pub struct Records<'a> {
    log: &'a Log,
    place: TopicPartition,
    next: i64,
    high: i64,
    is_settled: bool,
    buffer: VecDeque<Seen>,
}

impl Records<'_> {
    fn refill(&mut self) -> anyhow::Result<()> {
        while self.buffer.is_empty() && self.next < self.high {
            if self.log.stop.is_cancelled() {
                bail!("interrupted");
            }
            if !self.is_settled {
                self.log.settle(self.place, self.high)?;
                self.is_settled = true;
            }
            let (seen, next) = self.log.piece(self.place, self.next, self.high)?;
            self.buffer.extend(seen);
            self.next = next;
        }
        Ok(())
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Seen, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(error) = self.refill() {
            self.next = self.high;
            return Some(Err(Error::Source(error.into())));
        }
        self.buffer.pop_front().map(Ok)
    }
}
