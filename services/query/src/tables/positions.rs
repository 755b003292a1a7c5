//! `positions`.

use sqlx::PgConnection;

use super::column;

/// An advance of the position of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advance {
    /// The topic's full name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The expected current position.
    pub from: i64,
    /// The new position: first offset that is not applied.
    pub to: i64,
    /// The last record below the new position; `None` when no record followed the previous advance.
    pub last_record: Option<RecordIdentity>,
}

/// Identity of a record, to detect a replaced log: another log has another record at the same offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordIdentity {
    /// Offset in the partition.
    pub offset: i64,
    /// Send time in Unix milliseconds.
    pub sent_ms: Option<i64>,
    /// Key; empty when the record has none.
    pub key: Vec<u8>,
}

/// The stored position of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The topic's full name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// First offset that is not applied.
    pub next_offset: i64,
    /// A schema id in use.
    pub schema_id: Option<i64>,
    pub(super) last_offset: Option<i64>,
    pub(super) last_sent_ms: Option<i64>,
    pub(super) last_key: Option<Vec<u8>>,
}

from_row!(Position {
    topic,
    partition,
    next_offset,
    schema_id,
    last_offset,
    last_sent_ms,
    last_key
});

impl Position {
    /// The last record below the position, if it is known.
    pub fn last_record(&self) -> Option<RecordIdentity> {
        Some(RecordIdentity {
            offset: self.last_offset.filter(|last| *last < self.next_offset)?,
            sent_ms: self.last_sent_ms,
            key: self.last_key.clone()?,
        })
    }
}

/// The positions of these partitions; those without one start at offset 0.
pub async fn load(
    connection: &mut PgConnection,
    topics: &[String],
    partitions: &[i32],
) -> sqlx::Result<Vec<Position>> {
    sqlx::query(
        "INSERT INTO positions (topic, partition, next_offset)
         SELECT topic, partition, 0 FROM UNNEST($1::text[]) topic CROSS JOIN UNNEST($2::int4[]) partition
         ON CONFLICT DO NOTHING",
    )
    .bind(topics)
    .bind(partitions)
    .execute(&mut *connection)
    .await?;
    sqlx::query_as("SELECT * FROM positions WHERE topic = ANY($1) AND partition = ANY($2)")
        .bind(topics)
        .bind(partitions)
        .fetch_all(connection)
        .await
}

/// Moves the positions and stores a schema id in use. Returns whether every position was the expected one; if not,
/// another projector has moved it, and the transaction must not be committed.
pub async fn advance(
    connection: &mut PgConnection,
    advances: &[Advance],
    schema_id: Option<u32>,
) -> sqlx::Result<bool> {
    let moved = sqlx::query(
        "UPDATE positions SET next_offset = step.next, schema_id = COALESCE($5, positions.schema_id),
             last_offset = COALESCE(step.last_offset, positions.last_offset),
             last_sent_ms = CASE WHEN step.last_offset IS NULL THEN positions.last_sent_ms ELSE step.last_sent_ms END,
             last_key = COALESCE(step.last_key, positions.last_key)
         FROM UNNEST($1::text[], $2::int4[], $3::int8[], $4::int8[], $6::int8[], $7::int8[], $8::bytea[])
             step (topic, partition, expected, next, last_offset, last_sent_ms, last_key)
         WHERE positions.topic = step.topic AND positions.partition = step.partition
             AND positions.next_offset = step.expected",
    )
    .bind(column(advances, |advance| advance.topic.as_str()))
    .bind(column(advances, |advance| advance.partition))
    .bind(column(advances, |advance| advance.from))
    .bind(column(advances, |advance| advance.to))
    .bind(schema_id.map(i64::from))
    .bind(column(advances, |advance| advance.last_record.as_ref().map(|record| record.offset)))
    .bind(column(advances, |advance| advance.last_record.as_ref()?.sent_ms))
    .bind(column(advances, |advance| {
        advance.last_record.as_ref().map(|record| record.key.as_slice())
    }))
    .execute(connection)
    .await?
    .rows_affected();
    Ok(usize::try_from(moved).is_ok_and(|moved| moved == advances.len()))
}
