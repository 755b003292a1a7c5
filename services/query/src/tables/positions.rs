//! `positions`.

use sqlx::PgConnection;

use super::column;

/// A step of one partition's position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advance {
    /// The topic's full name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Where the position must stand now.
    pub from: i64,
    /// First offset that is not applied after the step.
    pub to: i64,
    /// The last record that was seen below it, if any was since the last step.
    pub last: Option<Last>,
}

/// A record by which a log is known again: no other log has the same one in the same place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Last {
    /// Where it stands.
    pub offset: i64,
    /// When it was sent, in Unix milliseconds.
    pub sent_ms: Option<i64>,
    /// Its key.
    pub key: Vec<u8>,
}

/// A partition's position as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The topic's full name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// First offset that is not applied.
    pub next_offset: i64,
    /// A schema id that was in use.
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
    /// The last record below it, if one is known.
    pub fn last(&self) -> Option<Last> {
        Some(Last {
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

/// Moves positions, notes a schema id in use, and says whether every one of them stood where it was expected. When one did not, somebody else
/// has moved it and the transaction must not be committed.
pub async fn advance(
    connection: &mut PgConnection,
    steps: &[Advance],
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
    .bind(column(steps, |step| step.topic.as_str()))
    .bind(column(steps, |step| step.partition))
    .bind(column(steps, |step| step.from))
    .bind(column(steps, |step| step.to))
    .bind(schema_id.map(i64::from))
    .bind(column(steps, |step| step.last.as_ref().map(|last| last.offset)))
    .bind(column(steps, |step| step.last.as_ref()?.sent_ms))
    .bind(column(steps, |step| {
        step.last.as_ref().map(|last| last.key.as_slice())
    }))
    .execute(connection)
    .await?
    .rows_affected();
    Ok(usize::try_from(moved).is_ok_and(|moved| moved == steps.len()))
}
