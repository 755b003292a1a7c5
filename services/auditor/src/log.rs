//! The log as the auditor reads it: every record, and whether it is committed. It joins no group and commits nothing.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use audit::{Error, LogRecord, TopicPartition};
use contracts::{Service, Topic};
use engine::Cluster;
use engine::log::kafka::settings;
use engine::log::{Ends, Input, Partition};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use registry::{Resolution, Schemas};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use platform_client::kafka::{Client, client, committed};

/// Records that are read of one partition before another partition is read.
const CHUNK: usize = 2_000;
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(6);
/// How long to wait for a record, an answer, or the end of a transaction.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(20);
const POLL_TIMEOUT: Duration = Duration::from_millis(200);
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Reads partitions in chunks, each with two consumers: one reads all records, the other one only committed records.
/// The difference is aborted.
pub struct Log {
    cluster: Cluster,
    all: Client,
    committed: Client,
    /// Resolves schemas in the registry.
    remote_schemas: Schemas,
    /// The resolved schemas.
    schemas: Schemas,
    resolved: RefCell<HashSet<(Service, Topic, u32)>>,
    runtime: Handle,
    /// Cancels reading.
    pub stop: CancellationToken,
}

impl Log {
    /// Connects lazily. Resolutions of `remote_schemas` are added to `schemas`. Call it within a tokio runtime.
    pub fn new(
        cluster: Cluster,
        remote_schemas: Schemas,
        schemas: Schemas,
    ) -> anyhow::Result<Self> {
        let reader = |isolation| {
            let mut config = settings::reader(&cluster, isolation);
            // Records that are fetched beyond a chunk are discarded.
            config
                .set("queued.min.messages", "1000")
                .set("queued.max.messages.kbytes", "4096");
            client(config)
        };
        Ok(Self {
            all: reader("read_uncommitted")?,
            committed: reader("read_committed")?,
            cluster,
            remote_schemas,
            schemas,
            resolved: RefCell::default(),
            runtime: Handle::current(),
            stop: CancellationToken::new(),
        })
    }

    fn topic_name(&self, topic_partition: TopicPartition) -> String {
        self.cluster
            .topic(topic_partition.service, topic_partition.topic)
    }

    /// The ends of a partition, including open transactions.
    pub fn ends(&self, topic_partition: TopicPartition) -> anyhow::Result<Ends> {
        let name = self.topic_name(topic_partition);
        let (low, high) = self
            .all
            .fetch_watermarks(&name, topic_partition.partition, LOOKUP_TIMEOUT)
            .with_context(|| format!("topic {name} at {}", self.cluster.bootstrap))?;
        Ok(Ends { low, high })
    }

    /// The committed offsets of a group in its commands; absent where it has committed nothing. It waits for
    /// transactions that are about to commit an offset: their records may be visible already, and other parts of the
    /// cut may refer to them.
    pub fn committed(&self, service: Service) -> anyhow::Result<HashMap<Partition, i64>> {
        let mut config = settings::reader(&self.cluster, "read_committed");
        config.set("group.id", self.cluster.group(service));
        let group = client(config)?;
        Ok(committed(&group, &self.cluster, service, SILENCE_TIMEOUT)?)
    }

    /// Waits until every transaction below `high` has ended.
    fn await_transactions(&self, topic_partition: TopicPartition, high: i64) -> anyhow::Result<()> {
        let name = self.topic_name(topic_partition);
        let begun = Instant::now();
        loop {
            let (_, stable) = self
                .committed
                .fetch_watermarks(&name, topic_partition.partition, LOOKUP_TIMEOUT)
                .with_context(|| format!("topic {name} at {}", self.cluster.bootstrap))?;
            if stable >= high {
                return Ok(());
            }
            if begun.elapsed() > SILENCE_TIMEOUT {
                bail!(
                    "topic {name}: a transaction in partition {} does not end",
                    topic_partition.partition
                );
            }
            self.runtime.block_on(tokio::time::sleep(RETRY_INTERVAL));
        }
    }

    /// Every record of a partition between its ends. The iterator blocks: use it on a thread of the runtime that may
    /// block.
    pub fn records(&self, topic_partition: TopicPartition, ends: Ends) -> Records<'_> {
        Records {
            log: self,
            topic_partition,
            next: ends.low,
            high: ends.high,
            has_awaited_transactions: false,
            buffer: VecDeque::new(),
        }
    }

    /// The record at an offset, if there is one.
    pub fn record(
        &self,
        topic_partition: TopicPartition,
        offset: i64,
    ) -> anyhow::Result<Option<Input>> {
        self.assign(&self.all, topic_partition, offset)?;
        let (inputs, _) = self.poll_records(&self.all, topic_partition, 1, offset + 1)?;
        Ok(inputs.into_iter().find(|input| input.offset == offset))
    }

    fn assign(
        &self,
        consumer: &Client,
        topic_partition: TopicPartition,
        from: i64,
    ) -> anyhow::Result<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(
            &self.topic_name(topic_partition),
            topic_partition.partition,
            Offset::Offset(from),
        )?;
        consumer.assign(&list)?;
        Ok(())
    }

    /// Up to `max` records below `until`, and the first offset that was not read.
    fn poll_records(
        &self,
        consumer: &Client,
        topic_partition: TopicPartition,
        max: usize,
        until: i64,
    ) -> anyhow::Result<(Vec<Input>, i64)> {
        let mut inputs: Vec<Input> = Vec::new();
        let mut last_message_at = Instant::now();
        let next = loop {
            match consumer.poll(POLL_TIMEOUT) {
                Some(Ok(message)) => {
                    last_message_at = Instant::now();
                    if message.offset() >= until {
                        break until;
                    }
                    inputs.push(engine::log::kafka::input(&message));
                    let next = message.offset() + 1;
                    if inputs.len() == max || next >= until {
                        break next;
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => break until,
                Some(Err(error))
                    if is_transient(&error) && last_message_at.elapsed() < SILENCE_TIMEOUT => {}
                Some(Err(error)) => {
                    return Err(error).with_context(|| format!("{topic_partition}"));
                }
                None if last_message_at.elapsed() > SILENCE_TIMEOUT => {
                    bail!(
                        "{topic_partition}: the broker at {} does not answer",
                        self.cluster.bootstrap
                    );
                }
                None => {}
            }
        };
        Ok((inputs, next))
    }

    /// The next chunk of a partition, and the first offset behind it.
    fn read_chunk(
        &self,
        topic_partition: TopicPartition,
        from: i64,
        high: i64,
    ) -> anyhow::Result<(Vec<LogRecord>, i64)> {
        self.assign(&self.committed, topic_partition, from)?;
        self.assign(&self.all, topic_partition, from)?;
        let (inputs, next) = self.poll_records(&self.all, topic_partition, CHUNK, high)?;
        let (committed, _) = self.poll_records(&self.committed, topic_partition, CHUNK, next)?;
        let committed: HashSet<i64> = committed.iter().map(|input| input.offset).collect();
        self.all.unassign()?;
        self.committed.unassign()?;
        let record = |input: Input| LogRecord {
            committed: committed.contains(&input.offset),
            input,
        };
        inputs
            .iter()
            .try_for_each(|input| self.resolve(topic_partition, input))?;
        Ok((inputs.into_iter().map(record).collect(), next))
    }

    /// Waits until the registry has resolved a schema that is not yet known.
    fn resolve(&self, topic_partition: TopicPartition, input: &Input) -> anyhow::Result<()> {
        if topic_partition.topic == Topic::Dlq {
            return Ok(());
        }
        let Ok(framed) = registry::unframe(input.payload.as_deref().unwrap_or_default()) else {
            return Ok(());
        };
        let key = (
            topic_partition.service,
            topic_partition.topic,
            framed.schema_id,
        );
        if self.resolved.borrow().contains(&key) {
            return Ok(());
        }
        let begun = Instant::now();
        loop {
            match self.remote_schemas.resolve(key.0, key.1, key.2) {
                Resolution::Pending if begun.elapsed() < SILENCE_TIMEOUT => {
                    self.runtime.block_on(tokio::time::sleep(RETRY_INTERVAL));
                }
                Resolution::Pending => {
                    bail!("the schema registry does not answer about schema {}", key.2)
                }
                resolution => {
                    self.schemas.learn(key.0, key.1, key.2, resolution);
                    self.resolved.borrow_mut().insert(key);
                    return Ok(());
                }
            }
        }
    }
}

fn is_transient(error: &KafkaError) -> bool {
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
    topic_partition: TopicPartition,
    next: i64,
    high: i64,
    has_awaited_transactions: bool,
    buffer: VecDeque<LogRecord>,
}

impl Records<'_> {
    fn refill(&mut self) -> anyhow::Result<()> {
        while self.buffer.is_empty() && self.next < self.high {
            if self.log.stop.is_cancelled() {
                bail!("interrupted");
            }
            if !self.has_awaited_transactions {
                self.log
                    .await_transactions(self.topic_partition, self.high)?;
                self.has_awaited_transactions = true;
            }
            let (record, next) = self
                .log
                .read_chunk(self.topic_partition, self.next, self.high)?;
            self.buffer.extend(record);
            self.next = next;
        }
        Ok(())
    }
}

impl Iterator for Records<'_> {
    type Item = Result<LogRecord, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(error) = self.refill() {
            self.next = self.high;
            return Some(Err(Error::Source(error.into())));
        }
        self.buffer.pop_front().map(Ok)
    }
}
