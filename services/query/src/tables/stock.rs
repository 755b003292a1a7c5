//! `stock`.

use sqlx::PgConnection;

#[cfg(feature = "simulation")]
use super::MemoryReadModel;
use super::{Table, column};
use crate::fold::StockRow;

impl Table for StockRow {
    async fn load(connection: &mut PgConnection, keys: &[&str]) -> sqlx::Result<Vec<Self>> {
        // PostgreSQL rejects a statement with a NUL in a parameter; no row can have such a key.
        let keys: Vec<_> = keys.iter().filter(|key| !key.contains('\0')).collect();
        sqlx::query_as("SELECT * FROM stock WHERE sku = ANY($1)")
            .bind(keys)
            .fetch_all(connection)
            .await
    }

    async fn store(connection: &mut PgConnection, rows: &[Self]) -> sqlx::Result<()> {
        sqlx::query(
            "INSERT INTO stock (sku, on_hand, reserved, received, deducted, version)
             SELECT * FROM UNNEST($1::text[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[])
             ON CONFLICT (sku) DO UPDATE SET
                 on_hand = EXCLUDED.on_hand, reserved = EXCLUDED.reserved, received = EXCLUDED.received,
                 deducted = EXCLUDED.deducted, version = EXCLUDED.version",
        )
        .bind(column(rows, |row| row.sku.as_str()))
        .bind(column(rows, |row| row.on_hand))
        .bind(column(rows, |row| row.reserved))
        .bind(column(rows, |row| row.received))
        .bind(column(rows, |row| row.deducted))
        .bind(column(rows, |row| row.version))
        .execute(connection)
        .await?;
        Ok(())
    }

    #[cfg(feature = "simulation")]
    fn rows_mut(memory: &mut MemoryReadModel) -> &mut std::collections::BTreeMap<String, Self> {
        &mut memory.stock
    }
}
