//! `order_events` and `order_lines`, which are append-only.

use contracts::Body as _;
use contracts::orders::v1::OrderLine;
use contracts::orders::v1::order_event::Event;
use sqlx::PgConnection;
use uuid::Uuid;

use super::column;
use crate::fold::Applied;

/// Appends the applied events to the history of their orders, and the lines of those that were created.
pub async fn append(connection: &mut PgConnection, applied: &[Applied<Event>]) -> sqlx::Result<()> {
    sqlx::query(
        r#"INSERT INTO order_events (order_id, version, partition, "offset", time, kind, record)
           SELECT * FROM UNNEST($1::uuid[], $2::int8[], $3::int4[], $4::int8[], $5::timestamptz[], $6::text[],
               $7::bytea[])"#,
    )
    .bind(column(applied, order_id))
    .bind(column(applied, |applied| applied.change.version))
    .bind(column(applied, |applied| applied.partition))
    .bind(column(applied, |applied| applied.offset))
    .bind(column(applied, |applied| applied.change.time))
    .bind(column(applied, |applied| applied.change.event.kind()))
    .bind(column(applied, |applied| applied.change.payload.as_slice()))
    .execute(&mut *connection)
    .await?;

    let lines = created_lines(applied);
    if lines.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO order_lines (order_id, position, sku, quantity, unit_price, discount, description)
         SELECT * FROM UNNEST($1::uuid[], $2::int4[], $3::text[], $4::int8[], $5::int8[], $6::int8[], $7::text[])",
    )
    .bind(column(&lines, |(order, _, _)| *order))
    .bind(column(&lines, |(_, position, _)| *position))
    .bind(column(&lines, |(_, _, line)| line.sku.as_str()))
    .bind(column(&lines, |(_, _, line)| i64::from(line.quantity)))
    .bind(column(&lines, |(_, _, line)| line.unit_price))
    .bind(column(&lines, |(_, _, line)| line.discount))
    .bind(column(&lines, |(_, _, line)| line.description.as_str()))
    .execute(connection)
    .await?;
    Ok(())
}

fn created_lines(applied: &[Applied<Event>]) -> Vec<(Uuid, i32, &OrderLine)> {
    applied
        .iter()
        .filter_map(|applied| match &applied.change.event {
            Event::OrderCreated(created) => Some((order_id(applied), &created.lines)),
            _ => None,
        })
        .flat_map(|(order, lines)| {
            (0..)
                .zip(lines)
                .map(move |(position, line)| (order, position, line))
        })
        .collect()
}

/// The order of an applied event.
pub(super) fn order_id(applied: &Applied<Event>) -> Uuid {
    Uuid::try_parse(&applied.change.id).expect("the fold applies only events of valid order ids")
}
