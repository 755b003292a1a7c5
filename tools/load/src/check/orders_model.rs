//! Compares the orders of the read model with the log and with the acknowledged orders.

use std::collections::HashSet;
use std::time::Duration;

use contracts::rules::FINAL_ORDER_STATUSES;
use sqlx::PgPool;
use terminal::{amount, count};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{AcknowledgedOrder, Check, OrdersLog};
use crate::baskets::CURRENCY;

/// The final statuses, as the read model stores them.
fn final_statuses() -> [i16; FINAL_ORDER_STATUSES.len()] {
    FINAL_ORDER_STATUSES.map(|status| status as i16)
}

/// How long the projector may take to apply what the log held when it was read.
const PROJECTOR_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Number of orders that are not final yet.
///
/// # Errors
///
/// The database does not answer.
pub async fn open_orders(pool: &PgPool) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT count(*) FROM orders WHERE status <> ALL($1)")
        .bind(final_statuses())
        .fetch_one(pool)
        .await
}

/// At most `size` order ids; the same orders always give the same sample.
pub async fn sample(pool: &PgPool, size: u32) -> sqlx::Result<HashSet<Uuid>> {
    let ids: Vec<Uuid> =
        sqlx::query_scalar("SELECT order_id FROM orders ORDER BY md5(order_id::text) LIMIT $1")
            .bind(i64::from(size))
            .fetch_all(pool)
            .await?;
    Ok(ids.into_iter().collect())
}

/// Sum of the totals in PostgreSQL = sum of the amounts of the accepted lines, or of the totals in the log.
pub async fn totals_match(
    pool: &PgPool,
    acknowledged: Option<&[AcknowledgedOrder]>,
    log: &OrdersLog,
) -> sqlx::Result<Check> {
    let (stored, expected, by) = match acknowledged {
        Some(orders) => {
            let ids: Vec<Uuid> = orders.iter().map(|order| order.order_id).collect();
            let stored = sqlx::query_scalar(
                "SELECT coalesce(sum(total), 0)::bigint FROM orders WHERE order_id = ANY($1)",
            );
            let stored: i64 = stored.bind(ids).fetch_one(pool).await?;
            (
                stored,
                orders.iter().map(|order| order.cents).sum(),
                "the accepted lines",
            )
        }
        None => {
            let stored = sqlx::query_scalar("SELECT coalesce(sum(total), 0)::bigint FROM orders");
            (stored.fetch_one(pool).await?, log.total(), "the log")
        }
    };
    let (left, right) = (amount(stored, CURRENCY), amount(expected, CURRENCY));
    Ok(Check {
        name: "money is exact",
        passed: stored == expected,
        detail: format!("{left} in PostgreSQL, {right} in {by}"),
    })
}

/// Every acknowledged order is in the read model, and final.
pub async fn all_final(
    pool: &PgPool,
    acknowledged: Option<&[AcknowledgedOrder]>,
) -> sqlx::Result<Check> {
    let (all, ended) = match acknowledged {
        Some(orders) => {
            let ids: Vec<Uuid> = orders.iter().map(|order| order.order_id).collect();
            let ended = sqlx::query_scalar(
                "SELECT count(*) FROM orders WHERE order_id = ANY($1) AND status = ANY($2)",
            );
            let ended: i64 = ended
                .bind(ids)
                .bind(final_statuses())
                .fetch_one(pool)
                .await?;
            (i64::try_from(orders.len()).unwrap_or(i64::MAX), ended)
        }
        None => {
            sqlx::query_as("SELECT count(*), count(*) FILTER (WHERE status = ANY($1)) FROM orders")
                .bind(final_statuses())
                .fetch_one(pool)
                .await?
        }
    };
    Ok(Check {
        name: "every acknowledged order is final",
        passed: all == ended,
        detail: format!("{} of {}", count(ended), count(all)),
    })
}

/// The read model equals the fold of the log: the same set of orders with the same versions and totals, and the same
/// status for every order of the sample.
pub async fn matches_fold(pool: &PgPool, log: &OrdersLog) -> sqlx::Result<Check> {
    await_projector(pool, log).await?;
    let rows: Vec<(Uuid, i64, i64, i16)> =
        sqlx::query_as("SELECT order_id, version, total, status FROM orders")
            .fetch_all(pool)
            .await?;
    let (mut different, mut sampled) = (0_usize, 0_usize);
    for (order_id, version, total, status) in &rows {
        let logged = log.orders.get(order_id);
        let is_same = logged.is_some_and(|logged| {
            let state = logged.state.as_ref();
            sampled += usize::from(state.is_some());
            (i64::try_from(logged.version), logged.total) == (Ok(*version), *total)
                && state
                    .is_none_or(|state| (state.status, state.total) == (i32::from(*status), *total))
        });
        different += usize::from(!is_same);
    }
    let known: HashSet<&Uuid> = rows.iter().map(|(order_id, ..)| order_id).collect();
    let missing = log
        .orders
        .keys()
        .filter(|order_id| !known.contains(order_id))
        .count();
    let detail = if different + missing == 0 && log.gaps == 0 {
        let (orders, events) = (count(rows.len()), count(log.event_count()));
        format!(
            "{orders} orders, {events} events, {} folded whole",
            count(sampled)
        )
    } else {
        let (different, missing, gaps) = (count(different), count(missing), count(log.gaps));
        format!("{different} orders differ, {missing} are missing, {gaps} gaps between versions")
    };
    Ok(Check {
        name: "read model is the fold of the log",
        passed: different + missing == 0 && log.gaps == 0,
        detail,
    })
}

/// Waits until the read model has as many events as the log had.
async fn await_projector(pool: &PgPool, log: &OrdersLog) -> sqlx::Result<()> {
    let wanted = i64::try_from(log.event_count()).unwrap_or(i64::MAX);
    let deadline = Instant::now() + PROJECTOR_TIMEOUT;
    loop {
        let applied: i64 =
            sqlx::query_scalar("SELECT coalesce(sum(version), 0)::bigint FROM orders")
                .fetch_one(pool)
                .await?;
        if applied >= wanted || Instant::now() >= deadline {
            return Ok(());
        }
        sleep(POLL_INTERVAL).await;
    }
}
