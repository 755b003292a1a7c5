//! The log on Kafka.

pub mod client;
pub mod context;
mod group_consumer;
mod native;
mod reader;
mod sender;
pub mod settings;
mod tail;
mod transactions;
mod transactor;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use contracts::{Service, Topic};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::groups::GroupInfo;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use uuid::Uuid;

pub use reader::KafkaReader;
pub use sender::{RecordMetadata, SendError, Sender};
pub use tail::Tail;

use self::client::{Renewable, drop_in_background};
use self::context::Quiet;
use self::group_consumer::{GroupConsumer, MemberIds};
use self::settings::SESSION_TIMEOUT;
use self::transactions::Transactions;
use super::{
    Appended, Ends, Error, Failure, Header, Input, Log, Membership, Partition, PartitionWrites,
    Peek, Progress, Signal,
};

/// Largest record that is written.
pub const MAX_RECORD_BYTES: usize = 1_000_000;
/// Longest wait for a look-up at the broker. A worker polls nothing meanwhile.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);
/// So much later than its session's end a member has left its group.
const GIVEN_UP: Duration = Duration::from_secs(5);
/// Longest wait of a fresh reader for a record that is there.
const PEEK_TIMEOUT: Duration = Duration::from_secs(2);

/// Where the log is, and which part of it is ours.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Bootstrap servers.
    pub bootstrap: String,
    /// Goes before every topic, group and transactional id.
    pub prefix: String,
    /// Partitions of every topic.
    pub partitions: u16,
}

impl Cluster {
    /// Full name of a topic.
    pub fn topic(&self, service: Service, topic: Topic) -> String {
        topic.of(service, &self.prefix)
    }

    /// Full name of the group of a service's workers.
    pub fn group(&self, service: Service) -> String {
        format!("{}{service}", self.prefix)
    }

    /// The partition that `key` belongs to.
    pub fn partition_of(&self, key: &[u8]) -> Partition {
        super::partitioner::partition_of(key, self.partitions)
    }
}

/// One worker's log.
pub struct KafkaLog {
    cluster: Arc<Cluster>,
    service: Service,
    group: String,
    member: String,
    /// What the broker has called this process's members so far.
    member_ids: MemberIds,
    /// A member that has our place and is not known to be ours, and since when it has.
    foreign: Option<(String, Instant)>,
    group_consumer: GroupConsumer,
    /// Consumers that this log has had.
    consumers: u32,
    transactions: Transactions,
    reader: KafkaReader,
    /// Sees high watermarks: a `read_committed` client is told last stable offsets instead.
    lookups: Renewable<BaseConsumer<Quiet>>,
    begun: Instant,
}

impl KafkaLog {
    /// Joins the service's group as `instance` and then makes the producer under the same name, which fences and
    /// ends whatever a former process of that name left open.
    ///
    /// # Errors
    ///
    /// When a setting is refused or the broker does not answer.
    pub fn new(cluster: Arc<Cluster>, service: Service, instance: &str) -> Result<Self, Error> {
        let group = cluster.group(service);
        let member = format!("{group}.{instance}");
        let lookups = lookups(&cluster, format!("{member}.lookups"))?;
        let reader = KafkaReader::new(&cluster, format!("{member}.reader"))?;
        let (consumers, member_ids) = (1, MemberIds::default());
        let client_id = consumer_id(&member, consumers);
        let named = (client_id.as_str(), &member_ids);
        let group_consumer = GroupConsumer::join(&cluster, service, &group, &member, named)?;
        let transactions = match Transactions::new(Arc::clone(&cluster), service, member.clone()) {
            Ok(transactions) => transactions,
            Err(error) => {
                drop_in_background(group_consumer);
                return Err(error);
            }
        };
        Ok(Self {
            cluster,
            service,
            group,
            member,
            member_ids,
            foreign: None,
            group_consumer,
            consumers,
            transactions,
            reader,
            lookups,
            begun: Instant::now(),
        })
    }

    /// What it means that the consumer is fenced.
    ///
    /// When a session ends while the broker is away, librdkafka forgets what the broker has called this member, and
    /// sends heartbeats without it until its owner polls again. A broker that is back by then refuses them in the words
    /// of a replacement. So it is asked who has the place: a newcomer, or this process.
    fn refusal(&mut self) -> Error {
        let reason = self.group_consumer.fenced().unwrap_or_default();
        match self.foreign_holder() {
            Ok(Some(_)) => Error::Fenced(reason),
            Ok(None) => Error::Displaced(reason),
            Err(error) => error,
        }
    }

    /// Asks the group's coordinator who has the place of our instance: a member that this process does not know to be
    /// its own, or `None`.
    fn foreign_holder(&mut self) -> Result<Option<String>, Error> {
        let name = &self.group;
        let list = self
            .lookups
            .ask(|client| client.fetch_group_list(Some(name), LOOKUP_TIMEOUT))
            .map_err(error)?;
        let known = |group: &&GroupInfo| group.name() == self.group && !group.state().is_empty();
        let group = list.groups().iter().find(known);
        let group = group.ok_or_else(|| {
            Error::Unavailable("the broker does not know the group for now".to_owned())
        })?;
        // The broker makes a static member's id of its instance and something random.
        let is_of_instance = |id: &str| {
            id.strip_prefix(&self.member)
                .and_then(|rest| rest.strip_prefix('-'))
                .is_some_and(|random| Uuid::try_parse(random).is_ok())
        };
        let mut ids = group.members().iter().map(|member| member.id());
        let holder = ids.find(|id| is_of_instance(id));
        let ours = self.member_ids.lock().expect("no holder panics");
        Ok(holder.filter(|id| !ours.contains(*id)).map(str::to_owned))
    }
}

impl Log for KafkaLog {
    type Generation = Arc<rdkafka::consumer::ConsumerGroupMetadata>;

    fn poll(
        &mut self,
        max: usize,
        wait: Duration,
        inputs: &mut Vec<Input>,
    ) -> Result<Vec<Signal>, Error> {
        let polled = self.group_consumer.poll(max, wait, inputs);
        if self.group_consumer.fenced().is_some() || matches!(polled, Err(Error::Fenced(_))) {
            inputs.clear();
            return Err(self.refusal());
        }
        polled
    }

    fn generation(&mut self) -> Option<Self::Generation> {
        self.group_consumer.generation()
    }

    fn committed(&mut self, partition: Partition) -> Result<Option<i64>, Error> {
        self.group_consumer.committed(partition)
    }

    fn ends(&mut self, topic: Topic, partition: Partition) -> Result<Ends, Error> {
        let topic = self.cluster.topic(self.service, topic);
        let (low, high) = self
            .lookups
            .ask(|client| client.fetch_watermarks(&topic, partition, LOOKUP_TIMEOUT))
            .map_err(error)?;
        Ok(Ends { low, high })
    }

    fn stable_end(&self, partition: Partition) -> Option<i64> {
        self.group_consumer.stable_end(partition)
    }

    fn start(&mut self, partition: Partition, offset: i64) -> Result<(), Error> {
        self.group_consumer.start(partition, offset)
    }

    fn pause(&mut self, partition: Partition) -> Result<(), Error> {
        self.group_consumer.pause(partition)
    }

    fn open(
        &mut self,
        topic: Topic,
        partition: Partition,
        from: i64,
        until: i64,
    ) -> Result<(), Error> {
        let topic = self.cluster.topic(self.service, topic);
        self.reader.open(&topic, partition, from, until)
    }

    fn read(&mut self, wait: Duration, inputs: &mut Vec<Input>) -> Result<Progress, Error> {
        self.reader.read(wait, inputs)
    }

    fn commit(
        &mut self,
        generation: &Self::Generation,
        shares: Vec<PartitionWrites>,
    ) -> Result<Vec<Appended>, Failure> {
        self.transactions.commit(generation, shares)
    }

    fn recreate(&mut self) -> Result<(), Error> {
        self.transactions.recreate()
    }

    fn rejoin(&mut self) -> Result<(), Error> {
        self.consumers += 1;
        let client_id = consumer_id(&self.member, self.consumers);
        let group_consumer = GroupConsumer::join(
            &self.cluster,
            self.service,
            &self.group,
            &self.member,
            (&client_id, &self.member_ids),
        )?;
        self.foreign = None;
        drop_in_background(std::mem::replace(&mut self.group_consumer, group_consumer));
        Ok(())
    }

    fn is_member(&mut self) -> Result<bool, Error> {
        match self.group_consumer.fenced() {
            Some(_) => Err(self.refusal()),
            None => Ok(self.group_consumer.is_assigned()),
        }
    }

    fn membership(&self) -> Membership {
        self.group_consumer.membership()
    }

    fn ask_coordinator(&mut self) -> Result<(), Error> {
        let holder = self.foreign_holder()?;
        // The coordinator is at work on this member's place: it would refuse a member that was replaced.
        let Some(holder) = holder.filter(|_| self.membership() != Membership::Joining) else {
            self.foreign = None;
            return Ok(());
        };
        // It may be what the broker has called our own consumer when that joined and lost the broker before it heard of
        // it. Such a member sends no heartbeats, and the broker removes it when its session ends.
        let since = match &self.foreign {
            Some((known, since)) if *known == holder => *since,
            _ => Instant::now(),
        };
        self.foreign = Some((holder, since));
        if since.elapsed() > SESSION_TIMEOUT + GIVEN_UP {
            return Err(Error::Fenced(
                "another process has the place in the group".to_owned(),
            ));
        }
        Err(Error::Unavailable(
            "another process may have the place in the group".to_owned(),
        ))
    }

    fn peek(&mut self, partition: Partition, offset: i64) -> Result<Peek, Error> {
        let topic = self.cluster.topic(self.service, Topic::Commands);
        let client: BaseConsumer<Quiet> = settings::reader(&self.cluster, "read_committed")
            .set("client.id", format!("{}.peek", self.member))
            .create_with_context(Quiet::default())
            .map_err(error)?;
        let found = peek(&client, &topic, partition, offset);
        drop_in_background(client);
        found.map_err(error)
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn unix_ms(&self) -> i64 {
        crate::effects::unix_ms()
    }
}

fn consumer_id(member: &str, number: u32) -> String {
    format!("{member}.consumer-{number}")
}

/// A client for look-ups that see the log without regard to transactions.
fn lookups(cluster: &Cluster, name: String) -> Result<Renewable<BaseConsumer<Quiet>>, Error> {
    let settings = settings::reader(cluster, "read_uncommitted");
    Renewable::new(name, move |client_id| {
        settings
            .clone()
            .set("client.id", client_id)
            .create_with_context(Quiet::default())
    })
    // The worker tells of it.
    .map(Renewable::silent)
    .map_err(error)
}

fn peek(
    client: &BaseConsumer<Quiet>,
    topic: &str,
    partition: Partition,
    offset: i64,
) -> KafkaResult<Peek> {
    let (_, stable) = client.fetch_watermarks(topic, partition, LOOKUP_TIMEOUT)?;
    if stable <= offset {
        return Ok(Peek::Held(stable));
    }
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    client.assign(&list)?;
    let deadline = Instant::now() + PEEK_TIMEOUT;
    loop {
        match client.poll(deadline.saturating_duration_since(Instant::now())) {
            // At its end it has passed all that stands there, if only markers and aborted records.
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => return Ok(Peek::Readable),
            Some(Err(failure)) => return Ok(Peek::Unreadable(failure.to_string())),
            None if Instant::now() < deadline => {}
            None => return Ok(Peek::Nothing),
        }
    }
}

/// A record as it was read.
pub fn input(message: &BorrowedMessage<'_>) -> Input {
    // The wrapper panics on a header whose name is not UTF-8, and anybody may write one.
    let headers = catch_unwind(AssertUnwindSafe(|| headers(message)));
    Input {
        partition: message.partition(),
        offset: message.offset(),
        time_ms: message.timestamp().to_millis().unwrap_or(0),
        key: message.key().map(<[u8]>::to_vec),
        payload: message.payload().map(<[u8]>::to_vec),
        headers_unreadable: headers.is_err(),
        headers: headers.unwrap_or_default(),
    }
}

fn headers(message: &BorrowedMessage<'_>) -> Vec<Header> {
    let Some(headers) = message.headers() else {
        return Vec::new();
    };
    headers
        .iter()
        .map(|header| {
            (
                header.key.to_owned(),
                header.value.unwrap_or_default().to_vec(),
            )
        })
        .collect()
}

fn error(error: KafkaError) -> Error {
    let text = error.to_string();
    match error {
        KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) => Error::Configuration(text),
        error => match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                let wrong =
                    "the position lies outside of the topic, which was truncated or made anew";
                Error::Damaged(format!("{wrong}: {text}"))
            }
            Some(RDKafkaErrorCode::FencedInstanceId | RDKafkaErrorCode::Fatal) => {
                Error::Fenced(text)
            }
            // Also an unknown topic: a broker that has just started may not know its topics yet, and one that is
            // really gone leaves nothing to damage.
            _ => Error::Unavailable(context::cause(&error)),
        },
    }
}
