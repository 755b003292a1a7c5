//! `orders`.

use sqlx::PgConnection;

#[cfg(feature = "simulation")]
use super::MemoryReadModel;
use super::{Table, column, order_ids};
use crate::fold::OrderRow;

impl Table for OrderRow {
    async fn load(connection: &mut PgConnection, keys: &[&str]) -> sqlx::Result<Vec<Self>> {
        sqlx::query_as("SELECT * FROM orders WHERE order_id = ANY($1)")
            .bind(order_ids(keys))
            .fetch_all(connection)
            .await
    }

    async fn store(connection: &mut PgConnection, rows: &[Self]) -> sqlx::Result<()> {
        sqlx::query(
            "INSERT INTO orders (order_id, status, end_reason, customer_id, total, currency, line_count, placed_at,
                 confirmed_at, updated_at, version, tracking_number, refunded, late)
             SELECT * FROM UNNEST($1::uuid[], $2::int2[], $3::int2[], $4::text[], $5::int8[], $6::text[], $7::int4[],
                 $8::timestamptz[], $9::timestamptz[], $10::timestamptz[], $11::int8[], $12::text[], $13::int8[],
                 $14::bool[])
             ON CONFLICT (order_id) DO UPDATE SET
                 status = EXCLUDED.status, end_reason = EXCLUDED.end_reason, confirmed_at = EXCLUDED.confirmed_at,
                 updated_at = EXCLUDED.updated_at, version = EXCLUDED.version,
                 tracking_number = EXCLUDED.tracking_number, refunded = EXCLUDED.refunded, late = EXCLUDED.late",
        )
        .bind(column(rows, |row| row.order_id))
        .bind(column(rows, |row| row.status))
        .bind(column(rows, |row| row.end_reason))
        .bind(column(rows, |row| row.customer_id.as_str()))
        .bind(column(rows, |row| row.total))
        .bind(column(rows, |row| row.currency.as_str()))
        .bind(column(rows, |row| row.line_count))
        .bind(column(rows, |row| row.placed_at))
        .bind(column(rows, |row| row.confirmed_at))
        .bind(column(rows, |row| row.updated_at))
        .bind(column(rows, |row| row.version))
        .bind(column(rows, |row| row.tracking_number.as_str()))
        .bind(column(rows, |row| row.refunded))
        .bind(column(rows, |row| row.late))
        .execute(connection)
        .await?;
        Ok(())
    }

    #[cfg(feature = "simulation")]
    fn rows_mut(memory: &mut MemoryReadModel) -> &mut std::collections::BTreeMap<String, Self> {
        &mut memory.orders
    }
}
