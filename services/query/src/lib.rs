//! The read side: a projector that keeps the read model in PostgreSQL equal to the fold of the log, and the API that
//! reads it.
//!
//! - `fold`: the rows, as pure folds of events.
//! - `tables`: reads and writes sets of rows; `read_v1.sql` is their schema.
//! - `projector`: applies the log to the tables, batch by batch.
//! - `api`: the gRPC service over the tables.
//! - `table_metrics`: metrics that are read from the tables.

#[macro_use]
mod from_row;

mod api;
mod fold;
mod locks;
pub mod metrics;
mod progress;
mod projector;
mod schema;
mod table_metrics;
mod tables;

use std::sync::Arc;
use std::time::{Duration, Instant};

use chassis::Readiness;
use chassis::stall::{self, Iterations, Limits};
use contracts::query::v1::query_service_server::QueryServiceServer;
use prometheus::Registry;
use registry::Schemas;
use sqlx::postgres::PgPoolOptions;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use api::{Api, Reader, Watchers};
use metrics::Metrics;
use progress::Progress;
use projector::Projector;

#[cfg(feature = "simulation")]
pub use projector::Projection;
pub use projector::{
    FetchedRecord, ObservablePartition, ObservableState, ObservableTopic, Observed, Phase, Source,
};
pub use schema::NAME as SCHEMA;
#[cfg(feature = "simulation")]
pub use tables::MemoryReadModel;

/// Name of the projector in the readiness of its process.
const COMPONENT: &str = "projector";
/// The projector may wait some seconds for the log or the database, and at most 40 s for a statement.
const STALL_LIMITS: Limits = Limits {
    not_ready: Duration::from_secs(10),
    not_live: Duration::from_secs(120),
};
const POOL_SIZE: u32 = 4;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(1);
/// A read is cancelled when it takes longer than a caller waits.
const READ_TIMEOUT: (&str, &str) = ("statement_timeout", "5s");

/// Why the read side cannot be set up, or stops.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL of the database is not valid.
    #[error("the database url is not valid")]
    DatabaseUrl(#[source] sqlx::Error),
    /// The metrics are already registered.
    #[error("the metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
    /// The projector's runtime cannot be built.
    #[error("the projector's runtime cannot be built")]
    Runtime(#[source] std::io::Error),
    /// The projector stopped; an operator must act.
    #[error("the projector stopped")]
    Projector(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Addresses of the systems that the read side depends on.
#[derive(Clone, Debug)]
pub struct Config {
    /// URL of the PostgreSQL database; the read model is in its schema [`SCHEMA`].
    pub database: String,
    /// Kafka's bootstrap servers.
    pub kafka: String,
    /// The prefix of all topics.
    pub prefix: String,
    /// Partitions of each topic.
    pub partitions: u16,
}

/// The read side of one process: [`Query::routes`] serves it, [`Query::project`] keeps it up to date. Cheap to clone.
#[derive(Clone)]
pub struct Query {
    api: Api,
    projector: Arc<Projector>,
}

impl Query {
    /// Builds the read side without connecting. Call it within the runtime of the process.
    ///
    /// # Errors
    ///
    /// [`Error::DatabaseUrl`], [`Error::Metrics`].
    pub fn new(
        config: Config,
        schemas: Schemas,
        readiness: &Readiness,
        registry: &Registry,
    ) -> Result<Self, Error> {
        let database = schema::options(&config.database).map_err(Error::DatabaseUrl)?;
        let progress = Arc::new(Progress::default());
        // Connections are not tested before use: a broken one fails one read, which the caller retries.
        let pool = PgPoolOptions::new()
            .max_connections(POOL_SIZE)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .connect_lazy_with(database.clone().options([READ_TIMEOUT]));
        let metrics = Metrics::new(registry, &pool)?;
        let api = Api {
            reader: Reader {
                pool,
                statements: metrics.statements.clone(),
            },
            progress: progress.clone(),
            prefix: config.prefix.clone(),
            partitions: config.partitions,
            watchers: Watchers::new(),
        };
        let projector = Projector {
            database,
            kafka: config.kafka,
            prefix: config.prefix,
            partitions: config.partitions,
            schemas,
            progress,
            metrics,
            readiness: readiness.component(COMPONENT),
            observed: Observed::default(),
            iterations: Iterations::default(),
            created_at: Instant::now(),
            main_runtime: Handle::current(),
        };
        Ok(Self {
            api,
            projector: Arc::new(projector),
        })
    }

    /// The gRPC service `ordermesh.query.v1.QueryService`.
    pub fn routes(&self) -> Routes {
        Routes::new(QueryServiceServer::new(self.api.clone()))
    }

    /// Collects the metrics that are read from the tables, until `shutdown`.
    pub fn run_table_metrics(
        &self,
        shutdown: CancellationToken,
    ) -> impl Future<Output = ()> + use<> {
        let pool = self.api.reader.pool.clone();
        table_metrics::run(pool, self.projector.metrics.clone(), shutdown)
    }

    /// Reports a stalled projector thread in the readiness. Never ends.
    pub fn watch_stalls(&self) -> impl Future<Output = ()> + use<> {
        let projector = &self.projector;
        stall::watch(
            projector.iterations.clone(),
            STALL_LIMITS,
            projector.readiness.clone(),
        )
    }

    /// A handle on the projector's state, for operators.
    pub fn observed(&self) -> Observed {
        self.projector.observed.clone()
    }

    /// Keeps the read model up to date until `shutdown`. Blocks: give it a thread of its own.
    ///
    /// # Errors
    ///
    /// [`Error::Projector`] when the log does not contain the position, the read model belongs to another log, or the
    /// schema registry was replaced. Database failures are retried and reported in the readiness.
    pub fn project(&self, shutdown: &CancellationToken) -> Result<(), Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::Runtime)?;
        self.projector
            .run(&runtime, shutdown)
            .map_err(|error| Error::Projector(error.into()))
    }
}
