//! The Kafka topics of one test, with a producer that can write any record and a reader of committed records.

mod transaction;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use contracts::core::v1::Metadata;
use contracts::{Message, Service, Topic};
use engine::log::kafka::settings;
use engine::log::{Input, Partition};
use engine::{Cluster, Codec, Sender};
use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use registry::Schemas;
use tokio::runtime::Runtime;
use uuid::Uuid;

pub use self::transaction::OpenTransaction;
use self::transaction::produce;
use crate::eventually::{DEADLINE, eventually};
use crate::servers::{self, SharedServers, variable};

const SHORT: Duration = Duration::from_millis(100);

/// The `reply-to` of commands that a test sends.
pub const REPLY_TO: &str = "test";

/// Topics, clients and a runtime of one test. The topics are deleted when the test succeeds.
pub struct KafkaFixture {
    /// The Kafka cluster and topic prefix.
    pub cluster: Arc<Cluster>,
    /// Schema ids: a fixed one for each topic.
    pub schemas: Schemas,
    /// Codec with these schema ids.
    pub codec: Codec,
    /// Runtime of the effects.
    pub runtime: Runtime,
    sender: Sender,
    writer: BaseProducer,
    /// Reads high watermarks. All other clients, producers included, get last stable offsets.
    watermarks: BaseConsumer,
    /// Clients are reused, because closing a consumer takes a tenth of a second.
    reader: Mutex<BaseConsumer<IgnorePartitionEof>>,
    groups: Mutex<HashMap<Service, BaseConsumer>>,
    _servers: SharedServers,
}

/// Does not log the end of a partition, which is an expected answer here.
struct IgnorePartitionEof;

impl ClientContext for IgnorePartitionEof {
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            println!("reader: {error}: {reason}");
        }
    }
}

impl ConsumerContext for IgnorePartitionEof {}

/// A command that is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentCommand {
    /// Id of the command.
    pub id: String,
    /// Partition that holds the command.
    pub partition: Partition,
    /// Offset of the command.
    pub offset: i64,
}

impl KafkaFixture {
    /// Creates the topics.
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
            // Larger than the engine's limit: other producers need not respect it.
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
                    .create_with_context(IgnorePartitionEof)
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

    /// Sends a command that requests an outcome, as a client does, and waits until it is durable.
    pub fn send(&self, id: &str, command: impl Into<contracts::Command>) -> SentCommand {
        self.send_all([(id.to_owned(), command.into())]).remove(0)
    }

    /// Sends commands and waits until all are durable.
    ///
    /// # Panics
    ///
    /// When one cannot be written.
    pub fn send_all(
        &self,
        commands: impl IntoIterator<Item = (String, contracts::Command)>,
    ) -> Vec<SentCommand> {
        let pending: Vec<_> = commands
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
            let mut sent = Vec::with_capacity(pending.len());
            for (id, durable) in pending {
                let metadata = durable.await.expect("Kafka accepts it");
                sent.push(SentCommand {
                    id,
                    partition: metadata.partition,
                    offset: metadata.offset,
                });
            }
            sent
        })
    }

    /// Begins a transaction of a producer that belongs to no engine.
    ///
    /// # Panics
    ///
    /// When Kafka cannot be reached.
    pub fn begin(&self) -> OpenTransaction {
        let id = format!("{}{}", self.cluster.prefix, Uuid::now_v7());
        let producer: BaseProducer = settings::transactional_producer(&self.cluster, &id)
            .set("transaction.timeout.ms", "60000")
            .create()
            .expect("the settings are valid");
        producer.init_transactions(DEADLINE).expect("Kafka runs");
        producer
            .begin_transaction()
            .expect("no transaction is open");
        OpenTransaction { producer }
    }

    /// Writes a record unchanged to its partition and returns its offset.
    ///
    /// # Panics
    ///
    /// When Kafka rejects the record.
    pub fn write(&self, service: Service, topic: Topic, record: &Input) -> i64 {
        produce(&self.writer, &self.cluster.topic(service, topic), record);
        self.writer.flush(DEADLINE).expect("Kafka accepts it");
        let topic = self.cluster.topic(service, topic);
        let (_, high) = self
            .watermarks
            .fetch_watermarks(&topic, record.partition, DEADLINE)
            .expect("Kafka runs");
        high - 1
    }

    /// Writes a tombstone for every state.
    ///
    /// # Panics
    ///
    /// When Kafka rejects a tombstone.
    pub fn tombstone_states(&self, service: Service) {
        let topic = self.cluster.topic(service, Topic::State);
        for record in self.read(service, Topic::State) {
            let erased = Input {
                payload: None,
                ..record
            };
            produce(&self.writer, &topic, &erased);
        }
        self.writer.flush(DEADLINE).expect("Kafka accepts it");
    }

    /// End offset of a partition, once the markers of all transactions are written: a commit returns before that.
    ///
    /// # Panics
    ///
    /// When Kafka cannot be reached, or a transaction stays open.
    pub fn end(&self, service: Service, topic: Topic, partition: Partition) -> i64 {
        let topic = self.cluster.topic(service, topic);
        let reader = self.reader.lock();
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

    /// Committed offset of the service's group.
    ///
    /// # Panics
    ///
    /// When Kafka cannot be reached.
    pub fn committed(&self, service: Service, partition: Partition) -> Option<i64> {
        let mut groups = self.groups.lock();
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
            .expect("the request contains it")
            .offset()
        {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }
    }

    /// Deletes the records of a partition below an offset, as retention does.
    ///
    /// # Panics
    ///
    /// When Kafka rejects the request.
    pub fn delete_records_before(
        &self,
        service: Service,
        topic: Topic,
        partition: Partition,
        offset: i64,
    ) {
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

    /// Deletes a topic and creates another of the same name.
    ///
    /// # Panics
    ///
    /// When Kafka rejects the request.
    pub fn recreate_topic(&self, service: Service, topic: Topic) {
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
        eventually("the topic is recreated", || {
            self.runtime
                .block_on(engine::topics::apply(&self.cluster, 1))
                .ok()?;
            engine::topics::check(&self.cluster).ok()
        });
    }

    /// Overwrites the offset that the worker `one` has committed, as a reset of its group does. The worker must have
    /// been stopped.
    ///
    /// # Panics
    ///
    /// When Kafka cannot be reached.
    pub fn reset_committed_offset(&self, service: Service, partition: Partition, offset: i64) {
        let topic = self.cluster.topic(service, Topic::Commands);
        let group = format!("{}{service}", self.cluster.prefix);
        // Uses the worker's member id, because only a member can commit until its session ends.
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
            .expect("Kafka accepts it");
    }

    /// All committed records of a topic, partition by partition.
    ///
    /// # Panics
    ///
    /// When Kafka cannot be reached.
    pub fn read(&self, service: Service, topic: Topic) -> Vec<Input> {
        let name = self.cluster.topic(service, topic);
        let consumer = self.reader.lock();
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
                // Another event was served, such as the end of the last assignment.
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

/// Metadata of a client's command.
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

/// A fixed schema id for every topic.
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

/// Prints warnings of the code under test in a failed test's output. `RUST_LOG` selects other levels.
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
