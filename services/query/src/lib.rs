//! The read side: a projector that keeps the read model in PostgreSQL equal to the fold of the log, and the API that
//! reads it.
//!
//! - `fold`: the rows, as pure folds of events.
//! - `tables`: how rows are read and written, a set at a time; `read_v1.sql` is their shape.
//! - `projector`: from the log into the tables, batch by batch.
//! - `api`: the gRPC service over the tables.
//! - `overview`: figures that only the tables know.

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
use chassis::stall::{self, Limits, Rounds};
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

pub use projector::{Fetched, Projection, Source};
pub use schema::NAME as SCHEMA;
pub use tables::Memory;

/// Name of the projector in the readiness of its process.
const COMPONENT: &str = "projector";
/// The projector waits for the log or the database for some seconds, and for the end of a statement for 40 s at most.
const STALL_LIMITS: Limits = Limits {
    not_ready: Duration::from_secs(10),
    stuck: Duration::from_secs(120),
};
const POOL_SIZE: u32 = 4;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(1);
/// No read takes longer than a caller waits.
const READ_LIMIT: (&str, &str) = ("statement_timeout", "5s");

/// Why the read side cannot be set up, or stops.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database's URL cannot be used.
    #[error("the database url is not valid")]
    DatabaseUrl(#[source] sqlx::Error),
    /// The metrics are registered already.
    #[error("the metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
    /// The projector's runtime cannot be built.
    #[error("the projector's runtime cannot be built")]
    Runtime(#[source] std::io::Error),
    /// The projector cannot go on; only an operator can help.
    #[error("the projector stopped")]
    Projector(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Where the read side finds its neighbours.
#[derive(Clone, Debug)]
pub struct Config {
    /// URL of the PostgreSQL database; the read model stands in its schema [`SCHEMA`].
    pub database: String,
    /// Kafka's bootstrap servers.
    pub kafka: String,
    /// Goes before every topic.
    pub prefix: String,
    /// Partitions of each topic.
    pub partitions: u16,
}

/// The read side of one process: [`Query::routes`] serves it, [`Query::project`] feeds it. Cheap to clone.
#[derive(Clone)]
pub struct Query {
    api: Api,
    projector: Arc<Projector>,
}

impl Query {
    /// Puts the read side together; nothing is connected yet. Call it within the runtime of the process.
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
        // Connections are not tested before use: a broken one fails a single read, which the caller repeats.
        let pool = PgPoolOptions::new()
            .max_connections(POOL_SIZE)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .connect_lazy_with(database.clone().options([READ_LIMIT]));
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
            rounds: Rounds::default(),
            made: Instant::now(),
            services: Handle::current(),
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

    /// Looks at the tables now and then until `shutdown`, for the figures that only they know.
    pub fn run_table_metrics(
        &self,
        shutdown: CancellationToken,
    ) -> impl Future<Output = ()> + use<> {
        let pool = self.api.reader.pool.clone();
        table_metrics::run(pool, self.projector.metrics.clone(), shutdown)
    }

    /// Tells the readiness when the projector's thread stalls; for as long as the process lives.
    pub fn watch_stalls(&self) -> impl Future<Output = ()> + use<> {
        let projector = &self.projector;
        stall::watch(
            projector.rounds.clone(),
            STALL_LIMITS,
            projector.readiness.clone(),
        )
    }

    /// Keeps the read model up to date until `shutdown`. Blocks: give it a thread of its own.
    ///
    /// # Errors
    ///
    /// [`Error::Projector`] when the log does not hold what comes next or is not the read model's, or the schema
    /// registry was replaced. Trouble with the database is waited for and shown in the readiness.
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
