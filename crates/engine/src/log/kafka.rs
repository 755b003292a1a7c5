//! The log on Kafka.

pub mod client;
pub mod context;
mod group_consumer;
mod native;
mod reader;
mod sender;
pub mod settings;
mod tail;
mod transaction_thread;
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
pub use sender::Sender;
pub use tail::Tail;

use self::client::{BackgroundDrop, ReplaceableClient};
use self::context::LoggingContext;
use self::group_consumer::{GroupConsumer, MemberIds};
use self::transaction_thread::TransactionThread;
use super::limits::SESSION_TIMEOUT;
use super::{
    Appended, Cluster, Ends, Error, Failure, Header, Input, Log, Membership, Partition,
    PartitionWrites, Peek, Progress, Signal,
};

/// Longest wait for a lookup at the broker. A worker does not poll meanwhile.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);
/// The broker removes a member at most this long after its session's end.
const GIVEN_UP: Duration = Duration::from_secs(5);
/// Longest wait of a fresh reader for an existing record.
const PEEK_TIMEOUT: Duration = Duration::from_secs(2);

/// The log of one worker on Kafka.
pub struct KafkaLog {
    cluster: Arc<Cluster>,
    service: Service,
    group: String,
    member: String,
    /// Member ids that the broker has given to this process so far.
    member_ids: MemberIds,
    /// A member with this instance id that is not known to be this process, and when it was first found.
    foreign_member: Option<(String, Instant)>,
    group_consumer: GroupConsumer,
    /// Number of consumers created so far.
    consumers: u32,
    transactions: TransactionThread,
    reader: KafkaReader,
    /// Fetches high watermarks: a `read_committed` client gets last stable offsets instead.
    lookups: ReplaceableClient<BaseConsumer<LoggingContext>>,
    started_at: Instant,
}

impl KafkaLog {
    /// Joins the service's group as `instance`, then creates the producer under the same name. This fences a former
    /// process of that name and ends its open transaction.
    ///
    /// # Errors
    ///
    /// A setting is rejected, or the broker does not answer.
    pub fn new(cluster: Arc<Cluster>, service: Service, instance: &str) -> Result<Self, Error> {
        let group = cluster.group(service);
        let member = format!("{group}.{instance}");
        let lookups = lookups(&cluster, format!("{member}.lookups"))?;
        let reader = KafkaReader::new(&cluster, format!("{member}.reader"))?;
        let (consumers, member_ids) = (1, MemberIds::default());
        let client_id = consumer_id(&member, consumers);
        let named = (client_id.as_str(), &member_ids);
        let group_consumer = GroupConsumer::join(&cluster, service, &group, &member, named)?;
        let transactions = TransactionThread::new(Arc::clone(&cluster), service, member.clone())?;
        Ok(Self {
            cluster,
            service,
            group,
            member,
            member_ids,
            foreign_member: None,
            group_consumer,
            consumers,
            transactions,
            reader,
            lookups,
            started_at: Instant::now(),
        })
    }

    /// Finds out whether a fenced consumer was replaced.
    ///
    /// When a session ends while the broker is unavailable, librdkafka forgets its member id, and sends heartbeats
    /// without it until the next poll. A broker that is back by then rejects them with the same error as after a
    /// replacement. So the broker is asked which member holds the instance id.
    fn refusal(&mut self) -> Error {
        let reason = self.group_consumer.fatal_reason().unwrap_or_default();
        match self.foreign_holder() {
            Ok(Some(_)) => Error::Fenced(reason),
            Ok(None) => Error::Displaced(reason),
            Err(error) => error,
        }
    }

    /// Asks the group's coordinator for the member that holds this instance id; returns its id unless it is known to be
    /// this process's own.
    fn foreign_holder(&mut self) -> Result<Option<String>, Error> {
        let name = &self.group;
        let list = self
            .lookups
            .call(|client| client.fetch_group_list(Some(name), LOOKUP_TIMEOUT))
            .map_err(error)?;
        let known = |group: &&GroupInfo| group.name() == self.group && !group.state().is_empty();
        let group = list.groups().iter().find(known);
        let group = group.ok_or_else(|| {
            Error::Unavailable("the broker does not know the group for now".to_owned())
        })?;
        // The broker builds a static member's id from its instance id and a random part.
        let is_of_instance = |id: &str| {
            id.strip_prefix(&self.member)
                .and_then(|rest| rest.strip_prefix('-'))
                .is_some_and(|random| Uuid::try_parse(random).is_ok())
        };
        let mut ids = group.members().iter().map(|member| member.id());
        let holder = ids.find(|id| is_of_instance(id));
        let own_ids = self.member_ids.lock();
        Ok(holder
            .filter(|id| !own_ids.contains(*id))
            .map(str::to_owned))
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
        if self.group_consumer.fatal_reason().is_some() || matches!(polled, Err(Error::Fenced(_))) {
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
            .call(|client| client.fetch_watermarks(&topic, partition, LOOKUP_TIMEOUT))
            .map_err(error)?;
        Ok(Ends { low, high })
    }

    fn stable_end(&self, partition: Partition) -> Option<i64> {
        self.group_consumer.stable_end(partition)
    }

    fn start(&mut self, partition: Partition, offset: i64) -> Result<(), Error> {
        self.group_consumer.resume_from(partition, offset)
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
        writes: Vec<PartitionWrites>,
    ) -> Result<Vec<Appended>, Failure> {
        self.transactions.commit(generation, writes)
    }

    fn recreate(&mut self) -> Result<(), Error> {
        self.transactions.recreate()
    }

    fn rejoin(&mut self) -> Result<(), Error> {
        self.consumers += 1;
        let client_id = consumer_id(&self.member, self.consumers);
        self.group_consumer = GroupConsumer::join(
            &self.cluster,
            self.service,
            &self.group,
            &self.member,
            (&client_id, &self.member_ids),
        )?;
        self.foreign_member = None;
        Ok(())
    }

    fn is_member(&mut self) -> Result<bool, Error> {
        match self.group_consumer.fatal_reason() {
            Some(_) => Err(self.refusal()),
            None => Ok(self.group_consumer.has_assignment()),
        }
    }

    fn membership(&self) -> Membership {
        self.group_consumer.membership()
    }

    fn ask_coordinator(&mut self) -> Result<(), Error> {
        let holder = self.foreign_holder()?;
        // The coordinator is processing this member's join: it would reject a replaced member.
        let Some(holder) = holder.filter(|_| self.membership() != Membership::Joining) else {
            self.foreign_member = None;
            return Ok(());
        };
        // It may be this process's own consumer, which joined and lost the broker before it received its member id.
        // Such a member sends no heartbeats, and the broker removes it when its session ends.
        let since = match &self.foreign_member {
            Some((known, since)) if *known == holder => *since,
            _ => Instant::now(),
        };
        self.foreign_member = Some((holder, since));
        if since.elapsed() > SESSION_TIMEOUT + GIVEN_UP {
            return Err(Error::Fenced(
                "another process holds this instance id in the group".to_owned(),
            ));
        }
        Err(Error::Unavailable(
            "another process may hold this instance id in the group".to_owned(),
        ))
    }

    fn peek(&mut self, partition: Partition, offset: i64) -> Result<Peek, Error> {
        let topic = self.cluster.topic(self.service, Topic::Commands);
        let client: BaseConsumer<LoggingContext> =
            settings::reader(&self.cluster, "read_committed")
                .set("client.id", format!("{}.peek", self.member))
                .create_with_context(LoggingContext::default())
                .map_err(error)?;
        let client = BackgroundDrop::new(client);
        peek(&client, &topic, partition, offset).map_err(error)
    }

    fn now(&self) -> Duration {
        self.started_at.elapsed()
    }

    fn unix_ms(&self) -> i64 {
        crate::effects::unix_ms()
    }
}

fn consumer_id(member: &str, number: u32) -> String {
    format!("{member}.consumer-{number}")
}

/// A client for lookups that ignore transactions.
fn lookups(
    cluster: &Cluster,
    name: String,
) -> Result<ReplaceableClient<BaseConsumer<LoggingContext>>, Error> {
    let settings = settings::reader(cluster, "read_uncommitted");
    ReplaceableClient::new(name, move |client_id| {
        settings
            .clone()
            .set("client.id", client_id)
            .create_with_context(LoggingContext::default())
    })
    // The worker logs its outages.
    .map(ReplaceableClient::without_outage_log)
    .map_err(error)
}

fn peek(
    client: &BaseConsumer<LoggingContext>,
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
            // At the end it has passed all records there, if only markers and aborted ones.
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => return Ok(Peek::Readable),
            Some(Err(failure)) => return Ok(Peek::Unreadable(failure.to_string())),
            None if Instant::now() < deadline => {}
            None => return Ok(Peek::Nothing),
        }
    }
}

/// Copies a record.
pub fn input(message: &BorrowedMessage<'_>) -> Input {
    // rust-rdkafka panics on a header whose name is not UTF-8, and any producer may write one.
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
                let reason =
                    "the position lies outside of the topic, which was truncated or recreated";
                Error::Damaged(format!("{reason}: {text}"))
            }
            Some(RDKafkaErrorCode::FencedInstanceId | RDKafkaErrorCode::Fatal) => {
                Error::Fenced(text)
            }
            // Includes an unknown topic: a broker that has just started may not know its topics yet, and a deleted one
            // has nothing left to damage.
            _ => Error::Unavailable(context::cause(&error)),
        },
    }
}
