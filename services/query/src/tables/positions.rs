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
}

/// A partition's position as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Position {
    /// The topic's full name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// First offset that is not applied.
    pub next_offset: i64,
    /// A schema id that was in use.
    pub schema_id: Option<i64>,
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
        "UPDATE positions SET next_offset = step.next, schema_id = COALESCE($5, positions.schema_id)
         FROM UNNEST($1::text[], $2::int4[], $3::int8[], $4::int8[]) step (topic, partition, expected, next)
         WHERE positions.topic = step.topic AND positions.partition = step.partition
             AND positions.next_offset = step.expected",
    )
    .bind(column(steps, |step| step.topic.as_str()))
    .bind(column(steps, |step| step.partition))
    .bind(column(steps, |step| step.from))
    .bind(column(steps, |step| step.to))
    .bind(schema_id.map(i64::from))
    .execute(connection)
    .await?
    .rows_affected();
    Ok(usize::try_from(moved).is_ok_and(|moved| moved == steps.len()))
}
