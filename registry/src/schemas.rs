//! The schema ids of the topics: the id to write with, and the meaning of an id that was read.

use std::error::Error as _;
use std::fmt;
use std::iter;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use contracts::{Service, Topic};
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::runtime::Handle;
use tokio::time::MissedTickBehavior;

use crate::backoff::Backoff;
use crate::client::{self, Client};
use crate::compatibility::Violation;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::reader::RetryingReader;
use crate::register::{SubjectStatus, plan, register, subject_of, subject_statuses};
use crate::relation::{Relation, relation};
use crate::schema::record;
use crate::table::{Resolution, Table};

/// Interval between two probes of the registry.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

const SLOTS: usize = Service::ALL.len() * Topic::ALL.len();

/// Address and use of the registry.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address of the Confluent API, such as `http://registry:8081`.
    pub url: String,
    /// Prefix of every topic and every subject.
    pub prefix: String,
    /// How long start-up waits for a registry that does not answer.
    pub deadline: Duration,
}

impl Settings {
    /// Settings with a deadline of 30 seconds.
    pub fn new(url: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: prefix.into(),
            deadline: Duration::from_secs(30),
        }
    }
}

/// The schema ids of the topics. Cheap to clone; clones share their state.
///
/// After start-up, only ids that appear later are looked up in the registry, in the background. Known ids keep working
/// while the registry is down.
#[derive(Clone)]
pub struct Schemas {
    inner: Arc<Inner>,
}

struct Inner {
    prefix: String,
    writers: [Option<u32>; SLOTS],
    tables: [RwLock<Table>; SLOTS],
    /// `None` when all ids were given at construction.
    registry: Option<Registry>,
}

struct Registry {
    client: Client,
    handle: Handle,
}

impl Schemas {
    /// Registers the contracts of the topics in `writes`, and loads every registered version of those and of the
    /// topics in `reads`. Dead letter topics have no schema and are skipped.
    ///
    /// Idempotent, and safe while other processes do the same. Later look-ups run on the runtime of this call.
    ///
    /// # Errors
    ///
    /// The contracts are incompatible with registered versions, the registry refuses them, or it does not answer
    /// within the deadline.
    pub async fn register(
        settings: &Settings,
        metrics: Metrics,
        writes: &[(Service, Topic)],
        reads: &[(Service, Topic)],
    ) -> Result<Self, Error> {
        let client = Client::new(&settings.url, metrics)?;
        let mut subjects = plan(&settings.prefix, writes, reads);
        register(&client, &settings.prefix, settings.deadline, &mut subjects).await?;

        let registry = Some(Registry {
            client,
            handle: Handle::current(),
        });
        let mut inner = Inner::new(settings.prefix.clone(), registry);
        for &(service, topic) in writes.iter().chain(reads) {
            let name = subject_of(service, topic, &settings.prefix);
            let Some(subject) = subjects.iter().find(|subject| subject.name == name) else {
                continue;
            };
            for (version, relation) in &subject.versions {
                inner.write(service, topic).set(
                    version.id,
                    resolution_of(relation),
                    Instant::now(),
                );
            }
            if writes.contains(&(service, topic)) {
                inner.writers[slot(service, topic)] =
                    subject.exact.as_ref().map(|version| version.id);
            }
        }
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The registration of the contracts of these topics and of the files that they import. Changes nothing.
    ///
    /// # Errors
    ///
    /// The registry does not answer within the deadline, or its address is invalid.
    pub async fn subject_statuses(
        settings: &Settings,
        metrics: Metrics,
        topics: &[(Service, Topic)],
    ) -> Result<Vec<SubjectStatus>, Error> {
        let client = Client::new(&settings.url, metrics)?;
        let mut subjects = plan(&settings.prefix, topics, &[]);
        subject_statuses(&client, &settings.prefix, settings.deadline, &mut subjects).await
    }

    /// Schemas without a registry: the given ids are the writer ids and known, all others are unknown.
    pub fn fixed(ids: &[(Service, Topic, u32)]) -> Self {
        let mut inner = Inner::new(String::new(), None);
        for &(service, topic, id) in ids {
            inner.writers[slot(service, topic)] = Some(id);
            inner
                .write(service, topic)
                .set(id, Resolution::Known, Instant::now());
        }
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Sets the resolution of an id as if the registry had returned it; for tests.
    pub fn learn(&self, service: Service, topic: Topic, schema_id: u32, resolution: Resolution) {
        self.inner
            .write(service, topic)
            .set(schema_id, resolution, Instant::now());
    }

    /// The schema id that records of this topic are written with.
    ///
    /// # Panics
    ///
    /// The topic is not registered for writing: a programming error that the first start reveals.
    pub fn writer_id(&self, service: Service, topic: Topic) -> u32 {
        match self.inner.writers[slot(service, topic)] {
            Some(id) => id,
            None => panic!(
                "{} was not registered for writing",
                topic.of(service, &self.inner.prefix)
            ),
        }
    }

    /// The resolution of the schema id of a record of this topic. Never blocks: a new id is [`Resolution::Pending`]
    /// until the registry has answered.
    pub fn resolve(&self, service: Service, topic: Topic, schema_id: u32) -> Resolution {
        if let Some(resolution) = self.inner.read(service, topic).get(schema_id) {
            return resolution;
        }
        let Some(registry) = &self.inner.registry else {
            return Resolution::Unknown;
        };
        let mut table = self.inner.write(service, topic);
        if let Some(resolution) = table.get(schema_id) {
            return resolution;
        }
        table.set(schema_id, Resolution::Pending, Instant::now());
        registry.client.metrics().pending.inc();
        registry.handle.spawn(resolve_in_background(
            Arc::downgrade(&self.inner),
            service,
            topic,
            schema_id,
        ));
        Resolution::Pending
    }

    /// Whether the registry has this id under one of the platform's topics, from one call without retries. For an id
    /// that was in use before, `false` means that the registry was wiped or replaced. That the id exists is not enough,
    /// because a new registry assigns the same numbers to other schemas.
    ///
    /// # Errors
    ///
    /// The registry cannot be reached: the result is unknown.
    pub async fn knows(&self, schema_id: u32) -> Result<bool, Error> {
        let topics = || {
            Service::ALL
                .into_iter()
                .flat_map(|service| Topic::ALL.map(|topic| (service, topic)))
        };
        let Some(registry) = &self.inner.registry else {
            let is_platform =
                |resolution| matches!(resolution, Some(Resolution::Known | Resolution::Newer));
            return Ok(topics().any(|(service, topic)| {
                is_platform(self.inner.read(service, topic).get(schema_id))
            }));
        };
        let usages = match registry.client.usages(schema_id).await {
            Ok(usages) => usages,
            Err(client::Error::NotFound(_)) => return Ok(false),
            Err(error) => {
                return Err(Error::Unreachable {
                    source: error.into(),
                });
            }
        };
        let mut subjects =
            topics().map(|(service, topic)| subject_of(service, topic, &self.inner.prefix));
        Ok(subjects.any(|subject| usages.iter().any(|usage| usage.subject == subject)))
    }

    /// Probes the registry every few seconds, for ever. A running process may not need the registry for days; the
    /// probes make the metrics show an outage before the next process fails to start.
    pub async fn monitor(&self) {
        let Some(registry) = &self.inner.registry else {
            return std::future::pending().await;
        };
        let mut interval = tokio::time::interval(PROBE_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            if let Err(error) = registry.client.probe().await {
                tracing::debug!(%error, "the registry does not answer");
            }
        }
    }
}

impl fmt::Debug for Schemas {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Schemas")
            .field("prefix", &self.inner.prefix)
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn new(prefix: String, registry: Option<Registry>) -> Self {
        Self {
            prefix,
            writers: [None; SLOTS],
            tables: Default::default(),
            registry,
        }
    }

    fn read(&self, service: Service, topic: Topic) -> RwLockReadGuard<'_, Table> {
        self.tables[slot(service, topic)].read()
    }

    fn write(&self, service: Service, topic: Topic) -> RwLockWriteGuard<'_, Table> {
        self.tables[slot(service, topic)].write()
    }

    /// Looks an id up in the registry, without retries.
    async fn look_up(
        &self,
        registry: &Registry,
        service: Service,
        topic: Topic,
        schema_id: u32,
    ) -> Result<Resolution, Error> {
        let client = &registry.client;
        let subject = subject_of(service, topic, &self.prefix);
        let unreachable = |error: client::Error| Error::Unreachable {
            source: error.into(),
        };
        let Some(message) = record(service, topic) else {
            return Ok(Resolution::Foreign);
        };
        let usages = match client.usages(schema_id).await {
            Ok(usages) => usages,
            Err(client::Error::NotFound(_)) => return Ok(Resolution::Unknown),
            Err(error) => return Err(unreachable(error)),
        };
        if !usages.iter().any(|usage| usage.subject == subject) {
            return Ok(Resolution::Foreign);
        }
        let (text, references) = client.schema(schema_id).await.map_err(unreachable)?;
        let file = message.parent_file();
        let mut reader = RetryingReader::new(client, Duration::ZERO);
        let sources = reader.sources(file.name(), text, references).await?;
        Ok(resolution_of(&relation(
            &sources,
            &file,
            Some(message.full_name()),
        )))
    }
}

/// Looks an id up until the registry gives a definite answer or all handles are dropped.
async fn resolve_in_background(inner: Weak<Inner>, service: Service, topic: Topic, schema_id: u32) {
    let mut backoff = Backoff::new();
    while let Some(inner) = inner.upgrade() {
        let Some(registry) = &inner.registry else {
            return;
        };
        let name = topic.of(service, &inner.prefix);
        match inner.look_up(registry, service, topic, schema_id).await {
            Ok(resolution) => {
                tracing::info!(topic = name, schema_id, ?resolution, "resolved a schema id");
                inner
                    .write(service, topic)
                    .set(schema_id, resolution, Instant::now());
                registry.client.metrics().pending.dec();
                return;
            }
            Err(error) => {
                let causes = causes(&error);
                tracing::warn!(topic = name, schema_id, %error, causes, "cannot resolve a schema id yet");
            }
        }
        drop(inner);
        tokio::time::sleep(backoff.next()).await;
    }
}

fn causes(error: &Error) -> String {
    let causes = iter::successors(error.source(), |&cause| cause.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

fn resolution_of(relation: &Relation) -> Resolution {
    match relation {
        Relation::Contained => Resolution::Known,
        // Its records hold another message.
        Relation::Diverged(violations) if names_another_message(violations) => Resolution::Foreign,
        // A reader needs the newer contracts to see all fields.
        Relation::Newer | Relation::Diverged(_) => Resolution::Newer,
    }
}

fn names_another_message(violations: &[Violation]) -> bool {
    // The comparison reports it last.
    matches!(violations, [.., Violation::FirstMessageChanged { .. }])
}

const fn slot(service: Service, topic: Topic) -> usize {
    service as usize * Topic::ALL.len() + topic as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_has_its_own_table() {
        let mut slots: Vec<_> = Service::ALL
            .into_iter()
            .flat_map(|service| Topic::ALL.map(|topic| slot(service, topic)))
            .collect();
        slots.sort_unstable();
        assert_eq!(slots, (0..SLOTS).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn fixed_schemas_know_the_given_ids() {
        let schemas = Schemas::fixed(&[(Service::Orders, Topic::Events, 7)]);
        assert_eq!(schemas.writer_id(Service::Orders, Topic::Events), 7);
        assert_eq!(
            schemas.resolve(Service::Orders, Topic::Events, 7),
            Resolution::Known
        );
        assert_eq!(
            schemas.resolve(Service::Orders, Topic::Events, 8),
            Resolution::Unknown
        );
        assert_eq!(
            schemas.resolve(Service::Orders, Topic::Commands, 7),
            Resolution::Unknown
        );
        assert!(schemas.knows(7).await.unwrap());
        assert!(!schemas.knows(8).await.unwrap());
        schemas
            .clone()
            .learn(Service::Orders, Topic::Events, 8, Resolution::Newer);
        assert_eq!(
            schemas.resolve(Service::Orders, Topic::Events, 8),
            Resolution::Newer
        );
    }

    #[test]
    #[should_panic(expected = "orders.commands was not registered for writing")]
    fn a_topic_that_is_not_registered_has_no_writer_id() {
        Schemas::fixed(&[(Service::Orders, Topic::Events, 7)])
            .writer_id(Service::Orders, Topic::Commands);
    }
}
