//! What only the tables know, looked at every few seconds: how many orders are open, since when, and what is parked.

use std::time::Duration;

use contracts::orders::v1::OrderStatus;
use sqlx::PgPool;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

const EVERY: Duration = Duration::from_secs(3);

/// The statuses that are not final, in one word each.
const OPEN: [(OrderStatus, &str); 5] = [
    (OrderStatus::Pending, "pending"),
    (OrderStatus::AwaitingPayment, "awaiting_payment"),
    (OrderStatus::Confirmed, "confirmed"),
    (OrderStatus::Shipped, "shipped"),
    (OrderStatus::Cancelling, "cancelling"),
];

/// Orders of one status.
struct Open {
    status: i16,
    orders: i64,
    oldest_seconds: f64,
}

from_row!(Open {
    status,
    orders,
    oldest_seconds
});

/// Looks again and again until `shutdown`, over one connection of the pool.
pub async fn run(pool: PgPool, metrics: Metrics, shutdown: CancellationToken) {
    // Not at once: the projector makes the tables first.
    let mut every = tokio::time::interval_at(tokio::time::Instant::now() + EVERY, EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(every.tick()).await.is_some() {
        if let Err(error) = look(&pool, &metrics).await {
            tracing::debug!(%error, "the tables cannot be looked at");
            metrics.look_failures.inc();
            // Old figures would be taken for new ones.
            metrics.open_orders.reset();
            metrics.oldest_open_order_seconds.reset();
            metrics.parked_keys.reset();
        }
    }
}

async fn look(pool: &PgPool, metrics: &Metrics) -> sqlx::Result<()> {
    let mut connection = pool.acquire().await?;
    let timed = &metrics.statements;
    let open = sqlx::query_as(
        "SELECT status, count(*) AS orders,
             extract(epoch FROM clock_timestamp() - min(placed_at))::float8 AS oldest_seconds
         FROM orders WHERE status = ANY($1) GROUP BY status",
    )
    .bind(OPEN.map(|(status, _)| status as i16))
    .fetch_all(&mut *connection);
    let open: Vec<Open> = timed.time("count_open_orders", open).await?;
    let parked = sqlx::query_scalar("SELECT count(*) FROM parked WHERE key <> ''")
        .fetch_one(&mut *connection);
    let parked: i64 = timed.time("count_parked_keys", parked).await?;

    for (status, name) in OPEN {
        let found = open.iter().find(|open| open.status == status as i16);
        let (orders, oldest) = found.map_or((0, 0.0), |open| (open.orders, open.oldest_seconds));
        metrics.open_orders.with_label_values(&[name]).set(orders);
        metrics
            .oldest_open_order_seconds
            .with_label_values(&[name])
            .set(oldest.max(0.0));
    }
    metrics
        .parked_keys
        .with_label_values(&[] as &[&str])
        .set(parked);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::is_final;

    #[test]
    fn an_order_is_open_until_it_is_final() {
        let statuses = (1..).map_while(|status| OrderStatus::try_from(status).ok());
        let mut seen = 0;
        for status in statuses {
            let is_open = OPEN.iter().any(|(open, _)| *open == status);
            assert_ne!(is_open, is_final(status as i16), "{status:?}");
            seen += 1;
        }
        assert!(seen > OPEN.len());
    }
}
