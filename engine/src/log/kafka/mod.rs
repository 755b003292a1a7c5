//! The log on Kafka.

mod context;
mod intake;
mod native;
mod reader;
mod sender;
pub mod settings;
mod transactions;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use contracts::{Service, Topic};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::groups::GroupInfo;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use uuid::Uuid;

pub use reader::{KafkaReader, Tail};
pub use sender::{Receipt, SendError, Sender};

use self::context::Quiet;
use self::intake::Intake;
use self::transactions::Transactions;
use super::{
    Appended, Ends, Error, Failure, Header, Input, Log, Partition, Progress, Share, Signal,
};

/// Largest record that is written.
pub const MAX_RECORD_BYTES: usize = 1_000_000;
/// Longest wait for a look-up at the broker.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

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
    intake: Intake,
    transactions: Transactions,
    reader: KafkaReader,
    /// Sees high watermarks: a `read_committed` handle is told last stable offsets instead.
    watermarks: BaseConsumer<Quiet>,
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
        let intake = Intake::join(&cluster, service, &group, &member)?;
        let transactions = Transactions::new(Arc::clone(&cluster), service, member.clone())?;
        let reader = KafkaReader::new(&cluster)?;
        let watermarks = settings::reader(&cluster, "read_uncommitted")
            .create_with_context(Quiet)
            .map_err(error)?;
        Ok(Self {
            cluster,
            service,
            group,
            member,
            intake,
            transactions,
            reader,
            watermarks,
            begun: Instant::now(),
        })
    }

    /// What it means that the consumer is fenced.
    ///
    /// When a session ends while the broker is away, librdkafka forgets what the broker has called this member, and
    /// sends heartbeats without it until its owner polls again. A broker that is back by then refuses them in the words
    /// of a replacement. So it is asked who has the place: a newcomer, or still this member.
    fn refusal(&self) -> Error {
        let reason = self.intake.fenced().unwrap_or_default();
        match self.holder() {
            Err(error) => error,
            Ok(Some(holder)) if self.intake.member_id() != Some(holder.clone()) => {
                Error::Fenced(reason)
            }
            Ok(_) => Error::Displaced(reason),
        }
    }

    /// The member that has the place of our instance in the group, if any has.
    fn holder(&self) -> Result<Option<String>, Error> {
        let list = self
            .watermarks
            .fetch_group_list(Some(&self.group), LOOKUP_TIMEOUT)
            .map_err(error)?;
        let known = |group: &&GroupInfo| group.name() == self.group && !group.state().is_empty();
        let group = list.groups().iter().find(known);
        let group = group.ok_or_else(|| {
            Error::Unavailable("the broker does not know the group for now".to_owned())
        })?;
        // The broker makes a static member's id of its instance and something random.
        let is_ours = |id: &str| {
            id.strip_prefix(&self.member)
                .and_then(|rest| rest.strip_prefix('-'))
                .is_some_and(|random| Uuid::try_parse(random).is_ok())
        };
        let holder = group.members().iter().find(|member| is_ours(member.id()));
        Ok(holder.map(|member| member.id().to_owned()))
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
        let polled = self.intake.poll(max, wait, inputs);
        if self.intake.fenced().is_some() || matches!(polled, Err(Error::Fenced(_))) {
            inputs.clear();
            return Err(self.refusal());
        }
        polled
    }

    fn generation(&mut self) -> Option<Self::Generation> {
        self.intake.generation()
    }

    fn committed(&mut self, partition: Partition) -> Result<Option<i64>, Error> {
        self.intake.committed(partition)
    }

    fn ends(&mut self, topic: Topic, partition: Partition) -> Result<Ends, Error> {
        let topic = self.cluster.topic(self.service, topic);
        let (low, high) = self
            .watermarks
            .fetch_watermarks(&topic, partition, LOOKUP_TIMEOUT)
            .map_err(error)?;
        Ok(Ends { low, high })
    }

    fn stable_end(&self, partition: Partition) -> Option<i64> {
        self.intake.stable_end(partition)
    }

    fn start(&mut self, partition: Partition, offset: i64) -> Result<(), Error> {
        self.intake.start(partition, offset)
    }

    fn pause(&mut self, partition: Partition) -> Result<(), Error> {
        self.intake.pause(partition)
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
        shares: Vec<Share>,
    ) -> Result<Vec<Appended>, Failure> {
        self.transactions.commit(generation, shares)
    }

    fn recreate(&mut self) -> Result<(), Error> {
        self.transactions.recreate()
    }

    fn rejoin(&mut self) -> Result<(), Error> {
        let intake = Intake::join(&self.cluster, self.service, &self.group, &self.member)?;
        let_go(std::mem::replace(&mut self.intake, intake));
        Ok(())
    }

    fn is_member(&mut self) -> Result<bool, Error> {
        match self.intake.fenced() {
            Some(_) => Err(self.refusal()),
            None => Ok(self.intake.is_assigned()),
        }
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn unix_ms(&self) -> i64 {
        crate::effects::unix_ms()
    }
}

/// Ends a client that is replaced. Its end may wait for a broker that does not answer, or for ever: nobody waits for it.
fn let_go(client: impl Send + 'static) {
    // Where no thread is to be had, it ends here.
    let _ = std::thread::Builder::new().spawn(move || drop(client));
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
            _ => Error::Unavailable(text),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::let_go;

    /// A client whose end waits for an answer.
    struct Stuck {
        answer: mpsc::Receiver<()>,
        ended: mpsc::Sender<bool>,
    }

    impl Drop for Stuck {
        fn drop(&mut self) {
            let is_answered = self.answer.recv_timeout(Duration::from_secs(20)).is_ok();
            let _ = self.ended.send(is_answered);
        }
    }

    #[test]
    fn nobody_waits_for_the_end_of_a_client_that_is_replaced() {
        let (answers, answer) = mpsc::channel();
        let (ended, ends) = mpsc::channel();
        let_go(Stuck { answer, ended });
        answers.send(()).expect("it still waits");
        assert_eq!(ends.recv(), Ok(true));
    }
}
