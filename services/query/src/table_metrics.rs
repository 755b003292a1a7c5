//! Collects metrics from the tables every few seconds: open orders, their age, and parked keys.

use std::time::Duration;

use contracts::orders::v1::OrderStatus;
use sqlx::PgPool;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

const INTERVAL: Duration = Duration::from_secs(3);

/// The statuses that are not final, with their label values.
const OPEN_STATUSES: [(OrderStatus, &str); 5] = [
    (OrderStatus::Pending, "pending"),
    (OrderStatus::AwaitingPayment, "awaiting_payment"),
    (OrderStatus::Confirmed, "confirmed"),
    (OrderStatus::Shipped, "shipped"),
    (OrderStatus::Cancelling, "cancelling"),
];

/// Open orders of one status.
struct OpenOrders {
    status: i16,
    orders: i64,
    oldest_seconds: f64,
}

from_row!(OpenOrders {
    status,
    orders,
    oldest_seconds
});

/// Collects until `shutdown`, over one connection of the pool.
pub async fn run(pool: PgPool, metrics: Metrics, shutdown: CancellationToken) {
    // The first collection is delayed: the projector creates the tables first.
    let mut every = tokio::time::interval_at(tokio::time::Instant::now() + INTERVAL, INTERVAL);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(every.tick()).await.is_some() {
        if let Err(error) = collect(&pool, &metrics).await {
            tracing::debug!(%error, "table metrics cannot be collected");
            metrics.look_failures.inc();
            // Stale values would look current.
            metrics.open_orders.reset();
            metrics.oldest_open_order_seconds.reset();
            metrics.parked_keys.reset();
        }
    }
}

async fn collect(pool: &PgPool, metrics: &Metrics) -> sqlx::Result<()> {
    let mut connection = pool.acquire().await?;
    let statements = &metrics.statements;
    let open = sqlx::query_as(
        "SELECT status, count(*) AS orders,
             extract(epoch FROM clock_timestamp() - min(placed_at))::float8 AS oldest_seconds
         FROM orders WHERE status = ANY($1) GROUP BY status",
    )
    .bind(OPEN_STATUSES.map(|(status, _)| status as i16))
    .fetch_all(&mut *connection);
    let open: Vec<OpenOrders> = statements.time("count_open_orders", open).await?;
    let parked = sqlx::query_scalar("SELECT count(*) FROM parked WHERE key <> ''")
        .fetch_one(&mut *connection);
    let parked: i64 = statements.time("count_parked_keys", parked).await?;

    for (status, name) in OPEN_STATUSES {
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
        let mut count = 0;
        for status in statuses {
            let is_open = OPEN_STATUSES.iter().any(|(open, _)| *open == status);
            assert_ne!(is_open, is_final(status as i16), "{status:?}");
            count += 1;
        }
        assert!(count > OPEN_STATUSES.len());
    }
}
