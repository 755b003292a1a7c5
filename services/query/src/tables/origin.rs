//! `origin`.

use std::fmt;

use sqlx::PgConnection;

/// The log that a read model is the fold of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// What the Kafka cluster calls itself.
    pub cluster_id: String,
    /// Goes before every topic.
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

/// The log that this read model belongs to: `origin`, if it has not been another one's before.
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
