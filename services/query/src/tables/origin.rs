//! `origin`.

use std::fmt;

use sqlx::PgConnection;

/// The log that a read model is the fold of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Id of the Kafka cluster.
    pub cluster_id: String,
    /// The prefix of all topics.
    pub prefix: String,
    /// Partitions of each topic.
    pub partitions: i32,
}

from_row!(Origin {
    cluster_id,
    prefix,
    partitions
});

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cluster_id,
            prefix,
            partitions,
        } = self;
        write!(
            f,
            "cluster {cluster_id}, prefix {prefix:?}, {partitions} partitions"
        )
    }
}

/// Records `origin` if the read model has no origin yet, and returns the recorded origin.
pub async fn claim(connection: &mut PgConnection, origin: &Origin) -> sqlx::Result<Origin> {
    sqlx::query(
        "INSERT INTO origin (cluster_id, prefix, partitions) VALUES ($1, $2, $3)
         ON CONFLICT DO NOTHING",
    )
    .bind(&origin.cluster_id)
    .bind(&origin.prefix)
    .bind(origin.partitions)
    .execute(&mut *connection)
    .await?;
    sqlx::query_as("SELECT cluster_id, prefix, partitions FROM origin")
        .fetch_one(connection)
        .await
}
