//! The fixture of a test: topics, a database, a producer and read sides.

use std::str::FromStr as _;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chassis::Readiness;
use contracts::query::v1::query_service_client::QueryServiceClient;
use contracts::{Service, Topic};
use query::{Config, Query};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use registry::Schemas;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use uuid::Uuid;

use crate::events::{self, FramedRecord};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Topics, a database and Kafka clients of one test.
pub struct ReadSideFixture {
    pub kafka: String,
    pub prefix: String,
    pub partitions: u16,
    pub schemas: Schemas,
    pub pool: PgPool,
    server: PgConnectOptions,
    database: String,
    url: String,
    producer: BaseProducer,
    /// Fetches the high watermark.
    read_uncommitted: BaseConsumer,
    /// Fetches the last stable offset.
    read_committed: BaseConsumer,
}

/// A read side whose projector runs on a thread.
pub struct RunningReadSide {
    pub client: QueryServiceClient<Routes>,
    /// What a server would serve.
    pub routes: Routes,
    pub readiness: Readiness,
    pub metrics: prometheus::Registry,
    shutdown: CancellationToken,
    thread: JoinHandle<Result<(), query::Error>>,
}

fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} must name a running server: see compose/native/stack"))
}

impl ReadSideFixture {
    /// Creates topics and a database.
    pub async fn new(partitions: u16) -> Self {
        let kafka = variable("ORDERMESH_KAFKA");
        let server = variable("ORDERMESH_DATABASE");
        let name = Uuid::now_v7().simple().to_string();
        let prefix = format!("query-test-{name}-");
        let database = format!("query_test_{name}");

        let server =
            PgConnectOptions::from_str(&server).expect("ORDERMESH_DATABASE is a PostgreSQL URL");
        let mut connection = server.connect().await.expect("the database server runs");
        connection
            .execute(AssertSqlSafe(format!("CREATE DATABASE {database}")))
            .await
            .unwrap();
        let options = server.clone().database(&database);
        let url = options.to_url_lossy().to_string();
        let pool = PgPoolOptions::new()
            .max_connections(2)
            .connect_lazy_with(options.options([("search_path", query::SCHEMA)]));

        let fixture = Self {
            producer: producer(&kafka, &prefix),
            read_uncommitted: consumer(&kafka, "read_uncommitted"),
            read_committed: consumer(&kafka, "read_committed"),
            schemas: events::schemas(),
            kafka,
            prefix,
            partitions,
            pool,
            server,
            database,
            url,
        };
        fixture.create_topics().await;
        fixture
    }

    /// Drops the topics and the database. Those of a failed test are removed with the stack.
    pub async fn close(self) {
        let topics = Service::ALL.map(|service| self.topic(service));
        let topics = topics.each_ref().map(String::as_str);
        self.admin()
            .delete_topics(&topics, &AdminOptions::new())
            .await
            .unwrap();
        self.pool.close().await;
        let mut connection = self.server.connect().await.unwrap();
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.database);
        // FORCE does not terminate an autovacuum worker; it ends by itself.
        eventually("the database is dropped", async || {
            let dropped = connection.execute(AssertSqlSafe(drop.clone())).await;
            dropped.is_ok()
        })
        .await;
    }

    /// Deletes a topic and creates another one of the same name.
    pub async fn recreate_topic(&self, service: Service) {
        let topic = self.topic(service);
        let admin = self.admin();
        let options = AdminOptions::new();
        let deleted = admin.delete_topics(&[&topic], &options).await.unwrap();
        deleted.into_iter().for_each(|result| drop(result.unwrap()));
        let new = NewTopic::new(
            &topic,
            i32::from(self.partitions),
            TopicReplication::Fixed(1),
        );
        eventually("the topic is created again", async || {
            let created = admin.create_topics([&new], &options).await.unwrap();
            created.into_iter().all(|result| result.is_ok())
        })
        .await;
    }

    async fn create_topics(&self) {
        let names = Service::ALL.map(|service| self.topic(service));
        let topics: Vec<_> = names
            .iter()
            .map(|name| NewTopic::new(name, i32::from(self.partitions), TopicReplication::Fixed(1)))
            .collect();
        for result in self
            .admin()
            .create_topics(&topics, &AdminOptions::new())
            .await
            .expect("Kafka runs")
        {
            result.unwrap();
        }
    }

    pub fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new()
            .set("bootstrap.servers", &self.kafka)
            .create()
            .unwrap()
    }

    pub fn topic(&self, service: Service) -> String {
        Topic::Events.of(service, &self.prefix)
    }

    /// Read sides that are started from now on use an unreachable database. Returns the URL of the real one.
    pub fn use_unreachable_database(&mut self) -> String {
        std::mem::replace(
            &mut self.url,
            "postgres://nobody@127.0.0.1:1/nothing".into(),
        )
    }

    /// Read sides that are started from now on use the database at `url`.
    pub fn use_database(&mut self, url: String) {
        self.url = url;
    }

    /// Starts a read side.
    pub fn start(&self) -> RunningReadSide {
        self.start_with(self.schemas.clone())
    }

    pub fn start_with(&self, schemas: Schemas) -> RunningReadSide {
        let readiness = Readiness::default();
        let metrics = prometheus::Registry::new();
        let config = Config {
            database: self.url.clone(),
            kafka: self.kafka.clone(),
            prefix: self.prefix.clone(),
            partitions: self.partitions,
        };
        let query = Query::new(config, schemas, &readiness, &metrics).unwrap();
        let routes = query.routes();
        let client = QueryServiceClient::new(routes.clone());
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        tokio::spawn(query.run_table_metrics(shutdown.clone()));
        let thread = std::thread::spawn(move || query.project(&token));
        RunningReadSide {
            client,
            routes,
            readiness,
            metrics,
            shutdown,
            thread,
        }
    }

    /// Writes records to partition 0 in one transaction.
    pub fn commit(&self, records: &[FramedRecord]) {
        self.commit_to(0, records);
    }

    pub fn commit_to(&self, partition: i32, records: &[FramedRecord]) {
        self.producer.begin_transaction().unwrap();
        self.send(partition, records);
        self.producer.commit_transaction(TIMEOUT).unwrap();
    }

    /// Writes records to partition 0 in a transaction that is aborted.
    pub fn abort(&self, records: &[FramedRecord]) {
        self.producer.begin_transaction().unwrap();
        self.send(0, records);
        self.producer.flush(TIMEOUT).unwrap();
        self.producer.abort_transaction(TIMEOUT).unwrap();
    }

    fn send(&self, partition: i32, records: &[FramedRecord]) {
        for record in records {
            let topic = self.topic(record.service);
            let mut message = BaseRecord::<str, [u8]>::to(&topic)
                .partition(partition)
                .payload(&record.value);
            if !record.key.is_empty() {
                message = message.key(&record.key);
            }
            while let Err((error, unsent)) = self.producer.send(message) {
                assert_eq!(
                    error.rdkafka_error_code(),
                    Some(rdkafka::error::RDKafkaErrorCode::QueueFull),
                    "only a full queue may refuse a record"
                );
                self.producer.poll(Duration::from_millis(10));
                message = unsent;
            }
        }
    }

    /// The end of a partition, once no transaction is open on it: markers follow the commit with a delay.
    pub async fn end(&self, service: Service, partition: i32) -> i64 {
        let topic = self.topic(service);
        let watermark = |consumer: &BaseConsumer| {
            consumer
                .fetch_watermarks(&topic, partition, TIMEOUT)
                .unwrap()
                .1
        };
        let mut end = 0;
        eventually("no transaction is open", async || {
            end = watermark(&self.read_uncommitted);
            watermark(&self.read_committed) == end
        })
        .await;
        end
    }

    /// The stored position of a partition; 0 when there is none yet.
    pub async fn position(&self, service: Service, partition: i32) -> i64 {
        sqlx::query_scalar("SELECT next_offset FROM positions WHERE topic = $1 AND partition = $2")
            .bind(self.topic(service))
            .bind(partition)
            .fetch_optional(&self.pool)
            .await
            .ok()
            .flatten()
            .unwrap_or_default()
    }

    /// Waits until the whole log is applied, including transaction markers.
    pub async fn wait_until_applied(&self) {
        for service in Service::ALL {
            for partition in 0..i32::from(self.partitions) {
                let end = self.end(service, partition).await;
                eventually(
                    &format!("{service} [{partition}] is applied up to {end}"),
                    async || self.position(service, partition).await >= end,
                )
                .await;
                assert_eq!(
                    self.position(service, partition).await,
                    end,
                    "{service} [{partition}]"
                );
            }
        }
    }

    /// One number from the read model.
    pub async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    /// The parked keys with their first offset, number of records and error.
    pub async fn parked(&self) -> Vec<(String, i64, i64, String)> {
        sqlx::query_as(
            "SELECT convert_from(key, 'UTF8'), first_offset, records, error FROM parked ORDER BY topic, key",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap()
    }
}

impl RunningReadSide {
    /// Stops the read side; its projector must still run.
    pub fn stop(self) {
        self.shutdown.cancel();
        self.thread.join().unwrap().unwrap();
    }

    /// Waits until the projector is ready: the tables exist.
    pub async fn wait_until_ready(&self) {
        eventually("it is ready", async || self.readiness.is_ready()).await;
    }

    /// Waits until the projector stops by itself, and returns its error with its cause.
    pub async fn wait_for_failure(self) -> String {
        let thread = Arc::new(self.thread);
        let watched = thread.clone();
        eventually("the projector ends", async || watched.is_finished()).await;
        drop(watched);
        let result = Arc::into_inner(thread).unwrap().join().unwrap();
        let error = result.expect_err("it was not asked to end");
        let cause = std::error::Error::source(&error)
            .map(ToString::to_string)
            .unwrap_or_default();
        format!("{error}: {cause}")
    }

    /// The sum of a metric over its labels.
    pub fn metric_sum(&self, name: &str) -> f64 {
        let families = self.metrics.gather();
        let metrics = families
            .iter()
            .filter(|family| family.name() == name)
            .flat_map(|family| family.get_metric());
        metrics
            .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
            .sum()
    }

    /// The value of a metric under one set of label values, in the order of the labels' names; the number of
    /// observations of a histogram. `None` when it shows none.
    pub fn metric_value(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let families = self.metrics.gather();
        let family = families.iter().find(|family| family.name() == name)?;
        let metric = family.get_metric().iter().find(|metric| {
            let values = metric.get_label().iter().map(|label| label.value());
            values.eq(labels.iter().copied())
        })?;
        Some(
            metric.get_counter().get_value()
                + metric.get_gauge().get_value()
                + metric.get_histogram().get_sample_count() as f64,
        )
    }

    /// Number of partitions with a position metric.
    pub fn owned_partitions(&self) -> usize {
        let families = self.metrics.gather();
        families
            .iter()
            .filter(|family| family.name() == "ordermesh_query_position")
            .map(|family| family.get_metric().len())
            .sum()
    }
}

/// Waits until `reached` is true.
pub async fn eventually(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + TIMEOUT;
    while !reached().await {
        assert!(Instant::now() < end, "not reached in {TIMEOUT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn producer(kafka: &str, prefix: &str) -> BaseProducer {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("transactional.id", format!("{prefix}producer"))
        .set("linger.ms", "5")
        .set("retry.backoff.ms", "5")
        .create()
        .unwrap();
    producer.init_transactions(TIMEOUT).expect("Kafka runs");
    producer
}

fn consumer(kafka: &str, isolation_level: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("isolation.level", isolation_level)
        .create()
        .unwrap()
}
