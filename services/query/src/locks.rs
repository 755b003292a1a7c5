//! The advisory locks by which projectors share the partitions.
//!
//! Session locks are held on the very connection that writes: when it is gone, so are the locks and whatever it had
//! not committed.

use sqlx::PgConnection;

/// First half of every key, so that other users of the database can keep out of the way; the last digit is the
/// version of the read model.
const CLASS: i32 = 0x07de_0001;
/// Second halves beside the partition numbers, which are not negative.
const SCHEMA: i32 = -1;
const MEMBER: i32 = -2;

/// Waits for the right to create the schema; held until the transaction ends.
pub async fn schema(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query("SELECT pg_advisory_xact_lock($1, $2)")
        .bind(CLASS)
        .bind(SCHEMA)
        .execute(connection)
        .await?;
    Ok(())
}

/// Makes the session count as a projector.
pub async fn join(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query("SELECT pg_advisory_lock_shared($1, $2)")
        .bind(CLASS)
        .bind(MEMBER)
        .execute(connection)
        .await?;
    Ok(())
}

/// Sessions that count as projectors of this database.
pub async fn members(connection: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar(
        "SELECT count(*) FROM pg_locks
         WHERE locktype = 'advisory' AND granted AND objsubid = 2
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
             AND classid::int8 = $1::int4::int8 AND objid::int8 = ($2::int4::int8 & 4294967295)",
    )
    .bind(CLASS)
    .bind(MEMBER)
    .fetch_one(connection)
    .await
}

/// Takes a partition if nobody has it.
pub async fn try_partition(connection: &mut PgConnection, partition: i32) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT pg_try_advisory_lock($1, $2)")
        .bind(CLASS)
        .bind(partition)
        .fetch_one(connection)
        .await
}

/// Leaves a partition to others.
pub async fn release_partition(connection: &mut PgConnection, partition: i32) -> sqlx::Result<()> {
    sqlx::query("SELECT pg_advisory_unlock($1, $2)")
        .bind(CLASS)
        .bind(partition)
        .execute(connection)
        .await?;
    Ok(())
}
