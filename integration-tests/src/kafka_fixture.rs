//! Topics of one test, a producer that writes whatever it likes to them, and a reader that sees what is committed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use contracts::core::v1::Metadata;
use contracts::{Message, Service, Topic};
use engine::log::kafka::settings;
use engine::log::{Input, Partition};
use engine::{Cluster, Codec, Sender};
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use rdkafka::message::{Header as RecordHeader, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use registry::Schemas;
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::eventually::{DEADLINE, eventually};
use crate::servers::{self, Shared, variable};

const SHORT: Duration = Duration::from_millis(100);

/// The `reply-to` of commands that a test sends.
pub const REPLY_TO: &str = "test";

/// What a test stands on. Its topics are deleted at the end, unless it fails.
pub struct KafkaFixture {
    /// Where the topics are.
    pub cluster: Arc<Cluster>,
    /// Fixed ids, one for each topic.
    pub schemas: Schemas,
    /// With these ids.
    pub codec: Codec,
    /// Runs effects.
    pub runtime: Runtime,
    sender: Sender,
    writer: BaseProducer,
    /// Is told high watermarks: all other clients, producers too, are told last stable offsets.
    watermarks: BaseConsumer,
    /// Clients are kept, because closing a consumer takes a tenth of a second.
    reader: Mutex<BaseConsumer<Quiet>>,
    groups: Mutex<HashMap<Service, BaseConsumer>>,
    _servers: Shared,
}

/// Says nothing about ends of partitions, which are answers here.
struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            println!("reader: {error}: {reason}");
        }
    }
}

impl ConsumerContext for Quiet {}

/// A command that is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The command's id.
    pub id: String,
    /// Where it stands.
    pub partition: Partition,
    /// Where it stands.
    pub offset: i64,
}

/// A transaction that a test holds open.
pub struct Open {
    producer: BaseProducer,
}

impl KafkaFixture {
    /// Fresh topics.
    ///
    /// # Panics
    ///
    /// When Kafka cannot be reached.
    pub fn new(partitions: u16) -> Self {
        show_warnings();
        let servers = servers::shared();
        let prefix = format!("test-{}-", Uuid::now_v7().simple());
        println!("topic prefix {prefix}");
        let cluster = Arc::new(Cluster {
            bootstrap: variable(servers::env::KAFKA),
            prefix,
            partitions,
        });
        let runtime = Runtime::new().expect("threads can be started");
        runtime
            .block_on(engine::topics::apply(&cluster, 1))
            .expect("the topics can be made");
        let schemas = schemas();
        let config = client(&cluster);
        Self {
            // Larger than what the engine writes: others need not keep to its limits.
            writer: config
                .clone()
                .set("message.max.bytes", "1048000")
                .set("linger.ms", "0")
                .create()
                .expect("the settings are valid"),
            watermarks: config
                .clone()
                .set("isolation.level", "read_uncommitted")
                .create()
                .expect("the settings are valid"),
            reader: Mutex::new(
                config
                    .clone()
                    .set("group.id", "unused")
                    .set("isolation.level", "read_committed")
                    .set("enable.partition.eof", "true")
                    .set("auto.offset.reset", "error")
                    .set("fetch.wait.max.ms", "10")
                    .create_with_context(Quiet)
                    .expect("the settings are valid"),
            ),
            groups: Mutex::default(),
            codec: Codec::new(schemas.clone()),
            sender: Sender::new(Arc::clone(&cluster)).expect("the settings are valid"),
            schemas,
            cluster,
            runtime,
            _servers: servers,
        }
    }

    /// The engine's sender of commands.
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// Sends a command that asks for an outcome, as a caller does, and waits until it is durable.
    pub fn send(&self, id: &str, command: impl Into<contracts::Command>) -> Sent {
        self.send_all([(id.to_owned(), command.into())]).remove(0)
    }

    /// Sends commands and waits until all are durable.
    ///
    /// # Panics
    ///
    /// When one could not be written.
    pub fn send_all(
        &self,
        commands: impl IntoIterator<Item = (String, contracts::Command)>,
    ) -> Vec<Sent> {
        let under_way: Vec<_> = commands
            .into_iter()
            .map(|(id, command)| {
                let message = Message::new(&id, command);
                let service = message.service();
                let command_id = Uuid::now_v7().to_string();
                let payload = self
                    .codec
                    .encode_message(message, metadata(&command_id, &id));
                let durable = self
                    .sender
                    .send(service, &id, &payload, &[])
                    .expect("the queue has room");
                (command_id, durable)
            })
            .collect();
        self.runtime.block_on(async {
            let mut sent = Vec::with_capacity(under_way.len());
            for (id, durable) in under_way {
                let receipt = durable.await.expect("Kafka takes it");
                sent.push(Sent {
                    id,
                    partition: receipt.partition,
                    offset: receipt.offset,
                });
            }
            sent
        })
    }

    /// Begins a transaction that has nothing to do with any engine.
    ///
    /// # Panics
    ///
    /// When Kafka cannot be reached.
    pub fn begin(&self) -> Open {
        let id = format!("{}{}", self.cluster.prefix, Uuid::now_v7());
        let producer: BaseProducer = settings::transactional_producer(&self.cluster, &id)
            .set("transaction.timeout.ms", "60000")
            .create()
            .expect("the settings are valid");
        producer.init_transactions(DEADLINE).expect("Kafka runs");
        producer.begin_transaction().expect("it has just been made");
        Open { producer }
    }

    /// Writes a record as it is, to the partition that it names, and returns its offset.
    ///
    /// # Panics
    ///
    /// When Kafka does not take it.
    pub fn write(&self, service: Service, topic: Topic, record: &Input) -> i64 {
        put(&self.writer, &self.cluster.topic(service, topic), record);
        self.writer.flush(DEADLINE).expect("Kafka takes it");
        let topic = self.cluster.topic(service, topic);
        let (_, high) = self
            .watermarks
            .fetch_watermarks(&topic, record.partition, DEADLINE)
            .expect("Kafka runs");
        high - 1
    }

    /// Takes what the latest states say back, as if none had ever been written.
    ///
    /// # Panics
    ///
    /// When Kafka does not take it.
    pub fn erase_states(&self, service: Service) {
        let topic = self.cluster.topic(service, Topic::State);
        for record in self.read(service, Topic::State) {
            let erased = Input {
                payload: None,
                ..record
            };
            put(&self.writer, &topic, &erased);
        }
        self.writer.flush(DEADLINE).expect("Kafka takes it");
    }

    /// Past-the-end offset of a partition, once the markers of all transactions are there: a commit returns before.
    ///
    /// # Panics
    ///
    /// When Kafka cannot be reached, or a transaction stays open.
    pub fn end(&self, service: Service, topic: Topic, partition: Partition) -> i64 {
        let topic = self.cluster.topic(service, topic);
        let reader = self.reader.lock().expect("no holder panics");
        eventually("no transaction is open", || {
            let (_, high) = self
                .watermarks
                .fetch_watermarks(&topic, partition, DEADLINE)
                .expect("Kafka runs");
            let (_, stable) = reader
                .fetch_watermarks(&topic, partition, DEADLINE)
                .expect("Kafka runs");
            (stable == high).then_some(high)
        })
    }

    /// The group's committed offset.
    ///
    /// # Panics
    ///
    /// When Kafka cannot be reached.
    pub fn committed(&self, service: Service, partition: Partition) -> Option<i64> {
        let mut groups = self.groups.lock().expect("no holder panics");
        let consumer = groups.entry(service).or_insert_with(|| {
            client(&self.cluster)
                .set("group.id", format!("{}{service}", self.cluster.prefix))
                .create()
                .expect("the settings are valid")
        });
        let topic = self.cluster.topic(service, Topic::Commands);
        let mut asked = TopicPartitionList::new();
        asked.add_partition(&topic, partition);
        let answer = consumer
            .committed_offsets(asked, DEADLINE)
            .expect("Kafka runs");
        match answer
            .find_partition(&topic, partition)
            .expect("it was asked for")
            .offset()
        {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }
    }

    /// Deletes the first records of a partition, as retention does.
    ///
    /// # Panics
    ///
    /// When Kafka refuses.
    pub fn delete_before(&self, service: Service, topic: Topic, partition: Partition, offset: i64) {
        let admin: AdminClient<DefaultClientContext> = client(&self.cluster)
            .create()
            .expect("the settings are valid");
        let mut offsets = TopicPartitionList::new();
        offsets
            .add_partition_offset(
                &self.cluster.topic(service, topic),
                partition,
                Offset::Offset(offset),
            )
            .expect("the offset is valid");
        let deleted = self
            .runtime
            .block_on(admin.delete_records(&offsets, &AdminOptions::new()))
            .expect("Kafka runs");
        for element in deleted.elements() {
            element.error().expect("the records can be deleted");
        }
    }

    /// Deletes a topic, and makes another of the same name.
    ///
    /// # Panics
    ///
    /// When Kafka refuses.
    pub fn recreate(&self, service: Service, topic: Topic) {
        let admin: AdminClient<DefaultClientContext> = client(&self.cluster)
            .create()
            .expect("the settings are valid");
        let name = self.cluster.topic(service, topic);
        let options = AdminOptions::new();
        let deleted = self
            .runtime
            .block_on(admin.delete_topics(&[&name], &options));
        for result in deleted.expect("Kafka runs") {
            result.expect("the topic can be deleted");
        }
        eventually("the topic is made anew", || {
            self.runtime
                .block_on(engine::topics::apply(&self.cluster, 1))
                .ok()?;
            engine::topics::check(&self.cluster).ok()
        });
    }

    /// Moves the offset that the worker `one` has committed, as somebody who resets its group does. The worker must
    /// have been stopped.
    ///
    /// # Panics
    ///
    /// When Kafka cannot be reached.
    pub fn move_offset(&self, service: Service, partition: Partition, offset: i64) {
        let topic = self.cluster.topic(service, Topic::Commands);
        let group = format!("{}{service}", self.cluster.prefix);
        // In the place of the worker, because a group's offsets can only be moved by a member until its session ends.
        let consumer: BaseConsumer =
            settings::group_member(&self.cluster, &group, &format!("{group}.one"))
                .create()
                .expect("the settings are valid");
        consumer.subscribe(&[&topic]).expect("the name is valid");
        eventually("the group is joined", || {
            let _ = consumer.poll(SHORT);
            consumer
                .assignment()
                .is_ok_and(|assigned| assigned.count() > 0)
                .then_some(())
        });
        let mut offsets = TopicPartitionList::new();
        offsets
            .add_partition_offset(&topic, partition, Offset::Offset(offset))
            .expect("the offset is valid");
        consumer
            .commit(&offsets, CommitMode::Sync)
            .expect("Kafka takes it");
    }

    /// Everything committed in a topic, partition by partition.
    ///
    /// # Panics
    ///
    /// When Kafka cannot be reached.
    pub fn read(&self, service: Service, topic: Topic) -> Vec<Input> {
        let name = self.cluster.topic(service, topic);
        let consumer = self.reader.lock().expect("no holder panics");
        let mut list = TopicPartitionList::new();
        for partition in 0..Partition::from(self.cluster.partitions) {
            list.add_partition_offset(&name, partition, Offset::Beginning)
                .expect("the offset is valid");
        }
        consumer.assign(&list).expect("the list is valid");
        let mut inputs = Vec::new();
        let mut ended = HashSet::new();
        let begun = Instant::now();
        while ended.len() < usize::from(self.cluster.partitions) {
            match consumer.poll(DEADLINE) {
                Some(Ok(message)) => inputs.push(engine::log::kafka::input(&message)),
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    ended.insert(partition);
                }
                Some(Err(error)) => panic!("{name} cannot be read: {error}"),
                // Something else was served, such as the end of the last assignment.
                None => assert!(begun.elapsed() < DEADLINE, "{name} cannot be read"),
            }
        }
        consumer.unassign().expect("nothing else uses it");
        inputs.sort_by_key(|input| (input.partition, input.offset));
        inputs
    }
}

impl Drop for KafkaFixture {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let admin: AdminClient<DefaultClientContext> = client(&self.cluster)
            .create()
            .expect("the settings are valid");
        let topics: Vec<_> = Service::ALL
            .into_iter()
            .flat_map(|service| Topic::ALL.map(|topic| self.cluster.topic(service, topic)))
            .collect();
        let names: Vec<_> = topics.iter().map(String::as_str).collect();
        if let Err(error) = self
            .runtime
            .block_on(admin.delete_topics(&names, &AdminOptions::new()))
        {
            println!("topics were not deleted: {error}");
        }
    }
}

impl Open {
    /// Writes a record as it is and waits until Kafka has it.
    ///
    /// # Panics
    ///
    /// When Kafka does not take it.
    pub fn write(&self, topic: &str, record: &Input) {
        put(&self.producer, topic, record);
        self.producer.flush(DEADLINE).expect("Kafka takes it");
    }

    /// Ends it well.
    ///
    /// # Panics
    ///
    /// When Kafka refuses.
    pub fn commit(self) {
        self.producer
            .commit_transaction(DEADLINE)
            .expect("it commits");
    }

    /// Ends it badly.
    ///
    /// # Panics
    ///
    /// When Kafka refuses.
    pub fn abort(self) {
        self.producer
            .abort_transaction(DEADLINE)
            .expect("it aborts");
    }
}

/// The head of a caller's command.
pub fn metadata(command_id: &str, aggregate_id: &str) -> Metadata {
    Metadata {
        id: command_id.to_owned(),
        aggregate_id: aggregate_id.to_owned(),
        actor: "test".into(),
        reply_to: REPLY_TO.into(),
        ..Metadata::default()
    }
}

fn client(cluster: &Cluster) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &cluster.bootstrap);
    config
}

/// An id for every topic.
fn schemas() -> Schemas {
    let topics = Service::ALL
        .into_iter()
        .flat_map(|service| Topic::ALL.map(|topic| (service, topic)));
    let ids: Vec<_> = (1..)
        .zip(topics)
        .map(|(id, (service, topic))| (service, topic, id))
        .collect();
    Schemas::fixed(&ids)
}

fn put(producer: &BaseProducer, topic: &str, record: &Input) {
    let headers = record
        .headers
        .iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(RecordHeader {
                key,
                value: Some(value),
            })
        });
    let mut message = BaseRecord::<[u8], [u8]>::to(topic)
        .partition(record.partition)
        .headers(headers);
    if let Some(key) = &record.key {
        message = message.key(key);
    }
    if let Some(payload) = &record.payload {
        message = message.payload(payload);
    }
    producer
        .send(message)
        .map_err(|(error, _)| error)
        .expect("the queue has room");
}

/// Warnings of the code under test belong to a failed test's output; `RUST_LOG` shows more.
fn show_warnings() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let filter =
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_test_writer()
            .init();
    });
}
