//! `shipments`.

use sqlx::PgConnection;

#[cfg(feature = "simulation")]
use super::MemoryReadModel;
use super::{Table, column, order_ids};
use crate::fold::ShipmentRow;

impl Table for ShipmentRow {
    async fn load(connection: &mut PgConnection, keys: &[&str]) -> sqlx::Result<Vec<Self>> {
        sqlx::query_as("SELECT * FROM shipments WHERE order_id = ANY($1)")
            .bind(order_ids(keys))
            .fetch_all(connection)
            .await
    }

    async fn store(connection: &mut PgConnection, rows: &[Self]) -> sqlx::Result<()> {
        sqlx::query(
            "INSERT INTO shipments (order_id, status, tracking_number, version)
             SELECT * FROM UNNEST($1::uuid[], $2::int2[], $3::text[], $4::int8[])
             ON CONFLICT (order_id) DO UPDATE SET
                 status = EXCLUDED.status, tracking_number = EXCLUDED.tracking_number, version = EXCLUDED.version",
        )
        .bind(column(rows, |row| row.order_id))
        .bind(column(rows, |row| row.status))
        .bind(column(rows, |row| row.tracking_number.as_str()))
        .bind(column(rows, |row| row.version))
        .execute(connection)
        .await?;
        Ok(())
    }

    #[cfg(feature = "simulation")]
    fn rows_mut(memory: &mut MemoryReadModel) -> &mut std::collections::BTreeMap<String, Self> {
        &mut memory.shipments
    }
}
