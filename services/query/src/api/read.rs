//! What the API reads.

use contracts::orders::v1::OrderLine;
use sqlx::PgPool;
use uuid::Uuid;

use super::page::Key;
use crate::fold::{OrderRow, StockRow};

/// The order, if it is in the read model.
pub async fn order(pool: &PgPool, order_id: Uuid) -> sqlx::Result<Option<OrderRow>> {
    sqlx::query_as("SELECT * FROM orders WHERE order_id = $1")
        .bind(order_id)
        .fetch_optional(pool)
        .await
}

/// The order's lines, in their order.
pub async fn lines(pool: &PgPool, order_id: Uuid) -> sqlx::Result<Vec<OrderLine>> {
    let rows: Vec<(String, i64, i64, i64, String)> = sqlx::query_as(
        "SELECT sku, quantity, unit_price, discount, description FROM order_lines WHERE order_id = $1 ORDER BY position",
    )
    .bind(order_id)
    .fetch_all(pool)
    .await?;
    rows.into_iter()
        .map(|(sku, quantity, unit_price, discount, description)| {
            let quantity =
                u32::try_from(quantity).map_err(|error| sqlx::Error::Decode(error.into()))?;
            Ok(OrderLine {
                sku,
                quantity,
                unit_price,
                discount,
                description,
            })
        })
        .collect()
}

/// The records of the order's events, in the order of their versions.
pub async fn history(pool: &PgPool, order_id: Uuid) -> sqlx::Result<Vec<Vec<u8>>> {
    sqlx::query_scalar("SELECT record FROM order_events WHERE order_id = $1 ORDER BY version")
        .bind(order_id)
        .fetch_all(pool)
        .await
}

/// The next orders behind `after` in any of the statuses, newest first.
pub async fn by_status(
    pool: &PgPool,
    statuses: &[i16],
    after: Key,
    limit: i64,
) -> sqlx::Result<Vec<OrderRow>> {
    // A short index scan for each status, merged: one scan over several statuses would have to sort them all.
    sqlx::query_as(
        "SELECT page.* FROM UNNEST($1::int2[]) wanted (status) CROSS JOIN LATERAL (
             SELECT * FROM orders
             WHERE orders.status = wanted.status AND (placed_at, order_id) < ($2, $3)
             ORDER BY placed_at DESC, order_id DESC LIMIT $4
         ) page
         ORDER BY placed_at DESC, order_id DESC LIMIT $4",
    )
    .bind(statuses)
    .bind(after.placed_at)
    .bind(after.order_id)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// The next orders of a customer behind `after` in any of the statuses, newest first.
pub async fn by_customer(
    pool: &PgPool,
    customer_id: &str,
    statuses: &[i16],
    after: Key,
    limit: i64,
) -> sqlx::Result<Vec<OrderRow>> {
    sqlx::query_as(
        "SELECT * FROM orders
         WHERE customer_id = $1 AND status = ANY($2) AND (placed_at, order_id) < ($3, $4)
         ORDER BY placed_at DESC, order_id DESC LIMIT $5",
    )
    .bind(customer_id)
    .bind(statuses)
    .bind(after.placed_at)
    .bind(after.order_id)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// The product's stock, if it is in the read model.
pub async fn stock(pool: &PgPool, sku: &str) -> sqlx::Result<Option<StockRow>> {
    sqlx::query_as("SELECT * FROM stock WHERE sku = $1")
        .bind(sku)
        .fetch_optional(pool)
        .await
}

/// First offset of the partition that is not applied; `None` when nothing ever was.
pub async fn position(pool: &PgPool, topic: &str, partition: i32) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar("SELECT next_offset FROM positions WHERE topic = $1 AND partition = $2")
        .bind(topic)
        .bind(partition)
        .fetch_optional(pool)
        .await
}
