//! `parked`.

use sqlx::PgConnection;

use super::column;
use crate::fold::Parked;

/// Longest error that is stored, in characters.
const MAX_ERROR: usize = 1_000;

/// The parked keys of a topic.
pub async fn keys(
    connection: &mut PgConnection,
    topic: &str,
    partitions: &[i32],
) -> sqlx::Result<Vec<Vec<u8>>> {
    sqlx::query_scalar(
        "SELECT key FROM parked WHERE topic = $1 AND partition = ANY($2) AND key <> ''",
    )
    .bind(topic)
    .bind(partitions)
    .fetch_all(connection)
    .await
}

/// Parks records. A key keeps the error of its first record.
pub async fn park(
    connection: &mut PgConnection,
    topic: &str,
    parked: &[Parked],
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO parked (topic, partition, key, first_offset, last_offset, records, error)
         SELECT $1::text, * FROM UNNEST($2::int4[], $3::bytea[], $4::int8[], $5::int8[], $6::int8[], $7::text[])
         ON CONFLICT (topic, partition, key) DO UPDATE SET
             last_offset = EXCLUDED.last_offset, records = parked.records + EXCLUDED.records",
    )
    .bind(topic)
    .bind(column(parked, |parked| parked.partition))
    .bind(column(parked, |parked| parked.key.as_slice()))
    .bind(column(parked, |parked| parked.first_offset))
    .bind(column(parked, |parked| parked.last_offset))
    .bind(column(parked, |parked| parked.records))
    .bind(column(parked, |parked| parked.error.replace('\0', "\u{fffd}").chars().take(MAX_ERROR).collect::<String>()))
    .execute(connection)
    .await?;
    Ok(())
}
