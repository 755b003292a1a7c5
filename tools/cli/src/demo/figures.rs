//! The figures of the demo: orders by status, latencies, throughput.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use contracts::orders::v1::{EndReason, OrderStatus};
use load::baskets::CURRENCY;
use load::latency::Latency;
use load::loader::{Order, PlacedOrders};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgPool;
use terminal::{Align, Table, amount, count, duration, status};
use uuid::Uuid;

use super::order_times::OrderTimes;

/// The orders with one status and reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Status and reason, such as `rejected, out of stock`.
    status: String,
    orders: i64,
    lines: i64,
    /// Sum of the totals, in minor units.
    total: i64,
}

/// Orders by status and reason.
///
/// # Errors
///
/// The database does not answer.
pub async fn by_status(pool: &PgPool) -> sqlx::Result<Vec<Group>> {
    let rows: Vec<(i16, i16, i64, i64, i64)> = sqlx::query_as(
        "SELECT status, end_reason, count(*), sum(line_count)::bigint, sum(total)::bigint
         FROM orders GROUP BY status, end_reason ORDER BY status, end_reason",
    )
    .fetch_all(pool)
    .await?;
    let group = |(order_status, reason, orders, lines, total)| {
        let order_status = OrderStatus::try_from(i32::from(order_status)).unwrap_or_default();
        let reason = EndReason::try_from(i32::from(reason)).unwrap_or_default();
        Group {
            status: status(order_status, reason),
            orders,
            lines,
            total,
        }
    };
    Ok(rows.into_iter().map(group).collect())
}

/// The groups and their sums as a table for people.
pub fn table(groups: &[Group]) -> Table {
    let mut table = Table::new([
        ("status", Align::Left),
        ("orders", Align::Right),
        ("lines", Align::Right),
        (CURRENCY, Align::Right),
    ]);
    let all = Group {
        status: "all".into(),
        orders: groups.iter().map(|group| group.orders).sum(),
        lines: groups.iter().map(|group| group.lines).sum(),
        total: groups.iter().map(|group| group.total).sum(),
    };
    for group in groups.iter().chain([&all]) {
        table.row([
            group.status.clone(),
            count(group.orders),
            count(group.lines),
            amount(group.total, CURRENCY),
        ]);
    }
    table
}

/// Latencies and throughput. Calls are timed by the clock of the loader, events by that of the broker or the producer;
/// in the demo all run on one machine.
pub struct Speed {
    /// From the call to its answer, when the order is created.
    answered: Latency,
    /// From the call until the confirmation is in the log.
    confirmed: Latency,
    /// From the call until the read model shows the order; measured for every twentieth order.
    visible: Latency,
    /// From the first call until the final event of the last order is in the log.
    all: Duration,
    orders: usize,
}

impl Speed {
    /// Computes the figures from the placed orders and their times in the log.
    pub fn of(placed: &PlacedOrders, times: &HashMap<Uuid, OrderTimes>) -> Self {
        let since = |order: &Order, at_ms: i64| {
            Duration::from_millis(u64::try_from(at_ms - order.called_ms).unwrap_or_default())
        };
        let confirmed = placed.orders.iter().filter_map(|order| {
            let confirmed_ms = times.get(&order.id)?.confirmed_ms?;
            Some(since(order, confirmed_ms))
        });
        let ends = placed
            .orders
            .iter()
            .filter_map(|order| times.get(&order.id)?.final_ms);
        let first_ms = placed
            .orders
            .iter()
            .map(|order| order.called_ms)
            .min()
            .unwrap_or_default();
        let last_ms = ends.clone().max().unwrap_or(first_ms);
        Self {
            answered: Latency::of(placed.orders.iter().map(|order| order.acknowledged)),
            confirmed: Latency::of(confirmed),
            visible: Latency::of(placed.orders.iter().filter_map(|order| order.visible)),
            all: Duration::from_millis(u64::try_from(last_ms - first_ms).unwrap_or_default()),
            orders: ends.count(),
        }
    }

    /// The figures as JSON.
    pub fn json(&self) -> Value {
        json!({
            "created_ms": self.answered.json(),
            "visible_ms": self.visible.json(),
            "confirmed_ms": self.confirmed.json(),
            "final_orders": self.orders,
            "seconds": self.all.as_secs_f64(),
        })
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    fn per_second(&self) -> u64 {
        (self.orders as f64 / self.all.as_secs_f64().max(0.001)) as u64
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [(p50, _), (p95, _), (p99, _)] = Latency::PERCENTILES;
        let mut table = Table::new([
            ("from the call", Align::Left),
            (p50, Align::Right),
            (p95, Align::Right),
            (p99, Align::Right),
        ]);
        for (name, latency) in [
            ("created", &self.answered),
            ("visible", &self.visible),
            ("confirmed", &self.confirmed),
        ] {
            if !latency.is_empty() {
                let [p50, p95, p99] =
                    Latency::PERCENTILES.map(|(_, percent)| duration(latency.percentile(percent)));
                table.row([name.into(), p50, p95, p99]);
            }
        }
        let (orders, all) = (count(self.orders), duration(self.all));
        writeln!(formatter, "{table}")?;
        write!(
            formatter,
            "  {orders} orders final {all} after the first call: {}/s",
            count(self.per_second())
        )
    }
}
