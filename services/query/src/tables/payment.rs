//! `payments`.

use sqlx::PgConnection;

#[cfg(feature = "simulation")]
use super::MemoryReadModel;
use super::{Table, column, order_ids};
use crate::fold::PaymentRow;

impl Table for PaymentRow {
    async fn load(connection: &mut PgConnection, keys: &[&str]) -> sqlx::Result<Vec<Self>> {
        sqlx::query_as("SELECT * FROM payments WHERE order_id = ANY($1)")
            .bind(order_ids(keys))
            .fetch_all(connection)
            .await
    }

    async fn store(connection: &mut PgConnection, rows: &[Self]) -> sqlx::Result<()> {
        sqlx::query(
            "INSERT INTO payments (order_id, status, amount, currency, provider_reference, flagged, version)
             SELECT * FROM UNNEST($1::uuid[], $2::int2[], $3::int8[], $4::text[], $5::text[], $6::bool[], $7::int8[])
             ON CONFLICT (order_id) DO UPDATE SET
                 status = EXCLUDED.status, amount = EXCLUDED.amount, currency = EXCLUDED.currency,
                 provider_reference = EXCLUDED.provider_reference, flagged = EXCLUDED.flagged,
                 version = EXCLUDED.version",
        )
        .bind(column(rows, |row| row.order_id))
        .bind(column(rows, |row| row.status))
        .bind(column(rows, |row| row.amount))
        .bind(column(rows, |row| row.currency.as_str()))
        .bind(column(rows, |row| row.provider_reference.as_str()))
        .bind(column(rows, |row| row.flagged))
        .bind(column(rows, |row| row.version))
        .execute(connection)
        .await?;
        Ok(())
    }

    #[cfg(feature = "simulation")]
    fn rows_mut(memory: &mut MemoryReadModel) -> &mut std::collections::BTreeMap<String, Self> {
        &mut memory.payments
    }
}
