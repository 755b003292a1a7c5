//! The queries of the API.

use contracts::orders::v1::OrderLine;
use sqlx::postgres::PgRow;
use sqlx::types::time::OffsetDateTime;
use sqlx::{FromRow, PgPool, Row as _};
use uuid::Uuid;

use super::page::PageKey;
use crate::fold::{OrderRow, StockRow};
use crate::metrics::Statements;

/// Reads the read model and times the statements. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    /// Connections to the database.
    pub pool: PgPool,
    /// Durations of the statements.
    pub statements: Statements,
}

/// An order and its events after a version, from one snapshot.
#[derive(Debug)]
pub struct OrderUpdate {
    /// The order.
    pub order: OrderRow,
    /// The records of the events after that version, by version.
    pub records: Vec<Vec<u8>>,
}

impl FromRow<'_, PgRow> for OrderUpdate {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            order: OrderRow::from_row(row)?,
            records: row.try_get("records")?,
        })
    }
}

/// Selects a page of orders: those after `after`, newest first.
#[derive(Clone, Copy, Debug)]
pub struct PageQuery<'a> {
    /// Orders in any of these statuses.
    pub statuses: &'a [i16],
    /// Orders placed at this time or later.
    pub placed_from: OffsetDateTime,
    /// Orders after this key.
    pub after: PageKey,
    /// Maximum number of orders.
    pub limit: i64,
}

/// The order, if it is in the read model.
pub async fn order(reader: &Reader, order_id: Uuid) -> sqlx::Result<Option<OrderRow>> {
    let read = sqlx::query_as("SELECT * FROM orders WHERE order_id = $1")
        .bind(order_id)
        .fetch_optional(&reader.pool);
    reader.statements.time("read_order", read).await
}

/// The order's lines, by position.
pub async fn lines(reader: &Reader, order_id: Uuid) -> sqlx::Result<Vec<OrderLine>> {
    let read = sqlx::query_as(
        "SELECT sku, quantity, unit_price, discount, description FROM order_lines WHERE order_id = $1 ORDER BY position",
    )
    .bind(order_id)
    .fetch_all(&reader.pool);
    let rows: Vec<(String, i64, i64, i64, String)> =
        reader.statements.time("read_lines", read).await?;
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

/// The records of the order's events, by version.
pub async fn history(reader: &Reader, order_id: Uuid) -> sqlx::Result<Vec<Vec<u8>>> {
    let read =
        sqlx::query_scalar("SELECT record FROM order_events WHERE order_id = $1 ORDER BY version")
            .bind(order_id)
            .fetch_all(&reader.pool);
    reader.statements.time("read_history", read).await
}

/// The order, if it is in the read model, with its events after a version. One statement reads one snapshot.
pub async fn order_update(
    reader: &Reader,
    order_id: Uuid,
    after: i64,
) -> sqlx::Result<Option<OrderUpdate>> {
    let read = sqlx::query_as(
        "SELECT orders.*, ARRAY(
             SELECT record FROM order_events
             WHERE order_events.order_id = orders.order_id AND order_events.version > $2
             ORDER BY order_events.version
         ) AS records
         FROM orders WHERE order_id = $1",
    )
    .bind(order_id)
    .bind(after)
    .fetch_optional(&reader.pool);
    reader.statements.time("read_news", read).await
}

/// A page of the orders of all customers.
pub async fn by_status(reader: &Reader, page: PageQuery<'_>) -> sqlx::Result<Vec<OrderRow>> {
    // A short index scan for each status, merged: one scan over several statuses would sort all their orders.
    let read = sqlx::query_as(
        "SELECT page.* FROM UNNEST($1::int2[]) wanted (status) CROSS JOIN LATERAL (
             SELECT * FROM orders
             WHERE orders.status = wanted.status AND placed_at >= $2 AND (placed_at, order_id) < ($3, $4)
             ORDER BY placed_at DESC, order_id DESC LIMIT $5
         ) page
         ORDER BY placed_at DESC, order_id DESC LIMIT $5",
    )
    .bind(page.statuses)
    .bind(page.placed_from)
    .bind(page.after.placed_at)
    .bind(page.after.order_id)
    .bind(page.limit)
    .fetch_all(&reader.pool);
    reader.statements.time("list_by_status", read).await
}

/// A page of a customer's orders.
pub async fn by_customer(
    reader: &Reader,
    customer_id: &str,
    page: PageQuery<'_>,
) -> sqlx::Result<Vec<OrderRow>> {
    let read = sqlx::query_as(
        "SELECT * FROM orders
         WHERE customer_id = $1 AND status = ANY($2) AND placed_at >= $3 AND (placed_at, order_id) < ($4, $5)
         ORDER BY placed_at DESC, order_id DESC LIMIT $6",
    )
    .bind(customer_id)
    .bind(page.statuses)
    .bind(page.placed_from)
    .bind(page.after.placed_at)
    .bind(page.after.order_id)
    .bind(page.limit)
    .fetch_all(&reader.pool);
    reader.statements.time("list_by_customer", read).await
}

/// The product's stock, if it is in the read model.
pub async fn stock(reader: &Reader, sku: &str) -> sqlx::Result<Option<StockRow>> {
    let read = sqlx::query_as("SELECT * FROM stock WHERE sku = $1")
        .bind(sku)
        .fetch_optional(&reader.pool);
    reader.statements.time("read_stock", read).await
}

/// First offset of the partition that is not applied; `None` when it has no position yet.
pub async fn position(reader: &Reader, topic: &str, partition: i32) -> sqlx::Result<Option<i64>> {
    let read =
        sqlx::query_scalar("SELECT next_offset FROM positions WHERE topic = $1 AND partition = $2")
            .bind(topic)
            .bind(partition)
            .fetch_optional(&reader.pool);
    reader.statements.time("read_position", read).await
}
