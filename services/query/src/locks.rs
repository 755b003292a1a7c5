//! The advisory locks that distribute the partitions over the projectors.
//!
//! Session locks are held on the connection that writes: when it is lost, its locks and its uncommitted writes are lost
//! too.

use sqlx::PgConnection;

/// First half of every lock key: a namespace apart from other users of the database. The last digit is the version of
/// the read model.
const CLASS: i32 = 0x07de_0001;
/// Second half of the key, when it is not a partition; partitions are not negative.
const SCHEMA: i32 = -1;
const MEMBER: i32 = -2;

/// Waits for the lock that serializes the creation of the schema; held until the transaction ends.
pub async fn lock_schema(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query("SELECT pg_advisory_xact_lock($1, $2)")
        .bind(CLASS)
        .bind(SCHEMA)
        .execute(connection)
        .await?;
    Ok(())
}

/// Registers the session as a projector.
pub async fn register_member(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query("SELECT pg_advisory_lock_shared($1, $2)")
        .bind(CLASS)
        .bind(MEMBER)
        .execute(connection)
        .await?;
    Ok(())
}

/// Number of sessions that are registered as projectors of this database.
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

/// Locks a partition if it is free; returns whether it did.
pub async fn try_lock_partition(
    connection: &mut PgConnection,
    partition: i32,
) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT pg_try_advisory_lock($1, $2)")
        .bind(CLASS)
        .bind(partition)
        .fetch_one(connection)
        .await
}

/// Unlocks a partition.
pub async fn unlock_partition(connection: &mut PgConnection, partition: i32) -> sqlx::Result<()> {
    sqlx::query("SELECT pg_advisory_unlock($1, $2)")
        .bind(CLASS)
        .bind(partition)
        .execute(connection)
        .await?;
    Ok(())
}
