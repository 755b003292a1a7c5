//! The projector: keeps the read model equal to the fold of the log.
//!
//! One thread reads the owned partitions of all events topics, folds a batch, and writes it together with the positions
//! in one SQL transaction. There is one recovery path: drop all state and read the positions from the database again.

mod batch;
mod data_errors;
mod lag;
mod log;
mod observable;
mod offset_advances;
mod ownership;
#[cfg(feature = "simulation")]
mod projection;
mod session;
mod topics;
mod trace;
mod write;

use std::sync::Arc;
use std::time::{Duration, Instant};

use chassis::Component;
use chassis::stall::Iterations;
use engine::log::replacement::FailureTracker;
use observability::Outage;
use registry::Schemas;
use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::runtime::{Handle, Runtime};
use tokio_util::sync::CancellationToken;

pub use self::log::{FetchedRecord, Source};
pub use self::observable::{
    ObservablePartition, ObservableState, ObservableTopic, Observed, Phase,
};
use crate::metrics::Metrics;
use crate::progress::Progress;
use crate::tables::Origin;
use crate::{locks, schema, tables};
#[cfg(feature = "simulation")]
pub use projection::Projection;

use data_errors::RefusedRecords;
use ownership::Ownership;
use session::{OwnershipSession, SessionEnd};
use topics::Topics;

/// First pause after a failure of the database; doubled up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(2);
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Name of the read model's database in log messages.
const DATABASE: &str = "database";
/// Reason of not being ready while no broker answers.
const LOG_UNAVAILABLE: &str = "the log does not answer";
/// How often a projector without partitions tries to acquire some.
const ACQUIRE_INTERVAL: Duration = Duration::from_secs(1);

/// Settings of the projector's database session. The server closes the session of a frozen or disconnected projector,
/// which releases its partitions. A working projector sends a statement every second.
const SESSION_LIMITS: [(&str, &str); 6] = [
    ("statement_timeout", "30s"),
    ("idle_in_transaction_session_timeout", "30s"),
    ("idle_session_timeout", "30s"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
];

/// Why the projector stops. After [`Error::Database`] and [`Error::DatabaseTimeout`] it connects again instead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// The registry did not assign the schema ids in the log.
    #[error(
        "the schema registry no longer knows schema {schema_id}, which was in use: it was wiped or replaced; bring its \
         data back"
    )]
    RegistryReplaced {
        /// A schema id in use that the registry does not know.
        schema_id: u32,
    },
    /// The read model is the fold of another log.
    #[error(
        "the read model is the fold of another log ({stored}), not of this one ({configured}): point the service at its \
         own database, or rebuild the read model"
    )]
    ForeignReadModel {
        /// The log recorded in the database.
        stored: Origin,
        /// The configured log.
        configured: Origin,
    },
    /// A statement or the connection failed.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// The database did not answer.
    #[error("the database did not answer within {0:?}")]
    DatabaseTimeout(Duration),
}

/// A projector with its dependencies.
#[derive(Clone)]
pub struct Projector {
    /// The read model's database.
    pub database: PgConnectOptions,
    /// Kafka's bootstrap servers.
    pub kafka: String,
    /// The prefix of all topics.
    pub prefix: String,
    /// Partitions of each topic.
    pub partitions: u16,
    /// The schemas of the events.
    pub schemas: Schemas,
    /// Publishes applied versions and positions to waiting reads.
    pub progress: Arc<Progress>,
    /// The projector's metrics.
    pub metrics: Metrics,
    /// The projector's entry in the readiness.
    pub readiness: Component,
    /// The projector's state, for operators.
    pub observed: Observed,
    /// Counts the iterations of its loops.
    pub iterations: Iterations,
    /// Time origin of the failure durations of log clients.
    pub created_at: Instant,
    /// The runtime of the process; the registry client runs on it.
    pub main_runtime: Handle,
}

/// State that is kept across database connections.
struct RetryState {
    /// Pause before the next connection.
    pause: Duration,
    database_outage: Outage,
    /// For how long the log clients have failed.
    log_failures: FailureTracker,
    refused: RefusedRecords,
}

impl Projector {
    /// Projects until `shutdown`, on the calling thread.
    ///
    /// # Errors
    ///
    /// [`Error::Log`], [`Error::RegistryReplaced`] and [`Error::ForeignReadModel`]. Database failures are retried.
    pub fn run(&self, runtime: &Runtime, shutdown: &CancellationToken) -> Result<(), Error> {
        let mut retry = RetryState {
            pause: MIN_PAUSE,
            database_outage: Outage::of(DATABASE),
            log_failures: FailureTracker::default(),
            refused: RefusedRecords::default(),
        };
        while !shutdown.is_cancelled() {
            self.iterations.increment();
            let failure = match self.run_connected(runtime, shutdown, &mut retry) {
                Ok(()) => continue,
                Err(
                    error @ (Error::Log(_)
                    | Error::RegistryReplaced { .. }
                    | Error::ForeignReadModel { .. }),
                ) => {
                    self.readiness.not_ready(error.to_string());
                    return Err(error);
                }
                Err(failure) => failure,
            };
            self.observed.without_partitions(Phase::Connecting);
            self.metrics.database_failures.inc();
            self.readiness.not_ready(failure.to_string());
            let cause = std::error::Error::source(&failure).map(ToString::to_string);
            retry.database_outage.failed(match cause {
                Some(cause) => format!("{failure}: {cause}"),
                None => failure.to_string(),
            });
            sleep(runtime, shutdown, retry.pause);
            retry.pause = (retry.pause * 2).min(MAX_PAUSE);
        }
        Ok(())
    }

    /// Projects over one database connection, until it fails or until `shutdown`.
    fn run_connected(
        &self,
        runtime: &Runtime,
        shutdown: &CancellationToken,
        retry: &mut RetryState,
    ) -> Result<(), Error> {
        let topics = Topics::new(&self.prefix);
        let Some(cluster_id) = log::cluster_id(&self.kafka)? else {
            self.readiness.not_ready(LOG_UNAVAILABLE);
            return Ok(());
        };
        let mut connection = runtime.block_on(self.connect())?;
        runtime.block_on(self.claim(&mut connection, cluster_id))?;
        let mut ownership = Ownership::new(self.partitions);
        retry.pause = MIN_PAUSE;
        retry.database_outage.answered();
        retry.database_outage = Outage::of(DATABASE);
        self.readiness.ready();
        while !shutdown.is_cancelled() {
            self.iterations.increment();
            runtime.block_on(ownership.rebalance(&mut connection))?;
            if ownership.partitions().is_empty() {
                self.observed.without_partitions(Phase::Idle);
                sleep(runtime, shutdown, ACQUIRE_INTERVAL);
                continue;
            }
            tracing::info!(partitions = ?ownership.partitions(), "projecting");
            let mut session = OwnershipSession::begin(
                self,
                &topics,
                runtime,
                &mut connection,
                ownership.partitions(),
                &mut retry.log_failures,
                &mut retry.refused,
            )?;
            let end = session.run(&mut ownership, shutdown);
            self.metrics.reset_partitions();
            if let SessionEnd::Fenced = end? {
                self.metrics.fenced.inc();
                tracing::warn!("another projector has moved a position; releasing all partitions");
                runtime.block_on(ownership.release_all(&mut connection))?;
            }
        }
        Ok(())
    }

    /// Records the configured log as the origin of an empty read model, and verifies the origin of any other.
    async fn claim(&self, connection: &mut PgConnection, cluster_id: String) -> Result<(), Error> {
        let configured = Origin {
            cluster_id,
            prefix: self.prefix.clone(),
            partitions: i32::from(self.partitions),
        };
        let stored = tables::claim(connection, &configured).await?;
        if stored == configured {
            Ok(())
        } else {
            Err(Error::ForeignReadModel { stored, configured })
        }
    }

    async fn connect(&self) -> Result<PgConnection, Error> {
        let options = self.database.clone().options(SESSION_LIMITS);
        tokio::time::timeout(CONNECT_DEADLINE, async {
            let mut connection = options.connect().await?;
            schema::create(&mut connection).await?;
            locks::register_member(&mut connection).await?;
            Ok(connection)
        })
        .await
        .map_err(|_| Error::DatabaseTimeout(CONNECT_DEADLINE))?
    }
}

fn sleep(runtime: &Runtime, shutdown: &CancellationToken, duration: Duration) {
    runtime.block_on(async {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(duration) => {}
        }
    });
}
