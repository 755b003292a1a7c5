//! The projector: keeps the read model equal to the fold of the log.
//!
//! One thread reads all events topics of the partitions that it owns, folds a batch, and writes it together with the
//! positions in one SQL transaction. There is one road back from any trouble: forget everything, take the positions
//! from the database again.

mod batch;
mod lag;
mod log;
mod offset_advances;
mod ownership;
mod projection;
mod session;
mod topics;
mod trace;
mod write;

use std::sync::Arc;
use std::time::{Duration, Instant};

use chassis::Component;
use chassis::stall::Rounds;
use engine::log::replacement::Failing;
use observability::Outage;
use registry::Schemas;
use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::runtime::{Handle, Runtime};
use tokio_util::sync::CancellationToken;

pub use self::log::{Fetched, Source};
use crate::metrics::Metrics;
use crate::progress::Progress;
use crate::tables::Origin;
use crate::{locks, schema, tables};
pub use projection::Projection;

use ownership::Ownership;
use session::{End, OwnershipSession};
use topics::Topics;

/// First pause after a failure of the database; doubled up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(2);
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// What the log calls the read model's database.
const DATABASE: &str = "database";
/// What the readiness says while no broker answers.
const LOG_SILENT: &str = "the log does not answer";
/// How often a projector that owns nothing looks whether there is something to own.
const OWN_NOTHING_PAUSE: Duration = Duration::from_secs(1);

/// What the projector's own session asks of the server: a projector that is frozen, or cut off without a word, must
/// not keep its partitions. A living one says something every second.
const SESSION_LIMITS: [(&str, &str); 6] = [
    ("statement_timeout", "30s"),
    ("idle_in_transaction_session_timeout", "30s"),
    ("idle_session_timeout", "30s"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
];

/// Why the projector stops, or ([`Error::Database`], [`Error::Silent`]) begins anew.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log cannot be read on.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// The registry is not the one that gave the ids in the log.
    #[error(
        "the schema registry no longer knows schema {schema_id}, which was in use: it was wiped or replaced; bring its \
         data back"
    )]
    RegistryReplaced {
        /// The id.
        schema_id: u32,
    },
    /// The read model was made from another log.
    #[error(
        "the read model is the fold of another log ({kept}), not of this one ({ours}): point the service at its own \
         database, or rebuild the read model"
    )]
    Foreign {
        /// The log in the database.
        kept: Origin,
        /// The log that is configured.
        ours: Origin,
    },
    /// The database refused or broke off.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// The database did not answer.
    #[error("the database did not answer within {0:?}")]
    Silent(Duration),
}

/// What a projector works with.
#[derive(Clone)]
pub struct Projector {
    /// Where the read model is.
    pub database: PgConnectOptions,
    /// Kafka's bootstrap servers.
    pub kafka: String,
    /// The prefix of all topics.
    pub prefix: String,
    /// Partitions of each topic.
    pub partitions: u16,
    /// The schemas of the events.
    pub schemas: Schemas,
    /// Whom to tell what was applied.
    pub progress: Arc<Progress>,
    /// What to count.
    pub metrics: Metrics,
    /// Where to say whether it works.
    pub readiness: Component,
    /// Counts the rounds of its loops.
    pub rounds: Rounds,
    /// When it was made: how long clients of the log fail is counted from here.
    pub made: Instant,
    /// The runtime of the process, which answers for the registry.
    pub services: Handle,
}

/// What outlasts a session.
struct Carried {
    /// Before the next session, when this one fails.
    pause: Duration,
    /// Of the database.
    outage: Outage,
    /// For how long the clients of the log have failed.
    client: Failing,
}

impl Projector {
    /// Projects until `shutdown`, on the calling thread.
    ///
    /// # Errors
    ///
    /// [`Error::Log`], [`Error::RegistryReplaced`] and [`Error::Foreign`]. Trouble with the database is waited for.
    pub fn run(&self, runtime: &Runtime, shutdown: &CancellationToken) -> Result<(), Error> {
        let mut carried = Carried {
            pause: MIN_PAUSE,
            outage: Outage::of(DATABASE),
            client: Failing::default(),
        };
        while !shutdown.is_cancelled() {
            self.rounds.finish();
            let failure = match self.session(runtime, shutdown, &mut carried) {
                Ok(()) => continue,
                Err(
                    error
                    @ (Error::Log(_) | Error::RegistryReplaced { .. } | Error::Foreign { .. }),
                ) => {
                    self.readiness.not_ready(error.to_string());
                    return Err(error);
                }
                Err(failure) => failure,
            };
            self.metrics.database_failures.inc();
            self.readiness.not_ready(failure.to_string());
            let cause = std::error::Error::source(&failure).map(ToString::to_string);
            carried.outage.failed(match cause {
                Some(cause) => format!("{failure}: {cause}"),
                None => failure.to_string(),
            });
            sleep(runtime, shutdown, carried.pause);
            carried.pause = (carried.pause * 2).min(MAX_PAUSE);
        }
        Ok(())
    }

    /// Works on one connection to the database until it fails or `shutdown`.
    fn session(
        &self,
        runtime: &Runtime,
        shutdown: &CancellationToken,
        carried: &mut Carried,
    ) -> Result<(), Error> {
        let topics = Topics::new(&self.prefix);
        let Some(cluster_id) = log::cluster_id(&self.kafka)? else {
            self.readiness.not_ready(LOG_SILENT);
            return Ok(());
        };
        let mut connection = runtime.block_on(self.connect())?;
        runtime.block_on(self.claim(&mut connection, cluster_id))?;
        let mut ownership = Ownership::new(self.partitions);
        carried.pause = MIN_PAUSE;
        carried.outage.answered();
        carried.outage = Outage::of(DATABASE);
        self.readiness.ready();
        while !shutdown.is_cancelled() {
            self.rounds.finish();
            runtime.block_on(ownership.settle(&mut connection))?;
            if ownership.partitions().is_empty() {
                sleep(runtime, shutdown, OWN_NOTHING_PAUSE);
                continue;
            }
            tracing::info!(partitions = ?ownership.partitions(), "projecting");
            let mut session = OwnershipSession::begin(
                self,
                &topics,
                runtime,
                &mut connection,
                ownership.partitions(),
                &mut carried.client,
            )?;
            let end = session.work(&mut ownership, shutdown);
            self.metrics.disown();
            if let End::Fenced = end? {
                self.metrics.fenced.inc();
                tracing::warn!(
                    "somebody else has moved a position of this projector; its partitions are given up"
                );
                runtime.block_on(ownership.release_all(&mut connection))?;
            }
        }
        Ok(())
    }

    /// Nothing is read or written beside what another log has left.
    async fn claim(&self, connection: &mut PgConnection, cluster_id: String) -> Result<(), Error> {
        let ours = Origin {
            cluster_id,
            prefix: self.prefix.clone(),
            partitions: i32::from(self.partitions),
        };
        let kept = tables::claim(connection, &ours).await?;
        if kept == ours {
            Ok(())
        } else {
            Err(Error::Foreign { kept, ours })
        }
    }

    async fn connect(&self) -> Result<PgConnection, Error> {
        let options = self.database.clone().options(SESSION_LIMITS);
        tokio::time::timeout(CONNECT_DEADLINE, async {
            let mut connection = options.connect().await?;
            schema::create(&mut connection).await?;
            locks::join(&mut connection).await?;
            Ok(connection)
        })
        .await
        .map_err(|_| Error::Silent(CONNECT_DEADLINE))?
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
