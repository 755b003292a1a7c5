//! What came out of the demo, in figures.

use std::fmt;
use std::time::Duration;

use contracts::orders::v1::{EndReason, OrderStatus};
use sqlx::PgPool;

use crate::check::OrdersLog;
use crate::load::baskets::CURRENCY;
use crate::load::latency::Latency;
use crate::load::loader::{Order, Placed};
use crate::terminal::{Align, Table, amount, count, duration, status};

/// Orders by their status and its reason, with lines and money.
///
/// # Errors
///
/// The database does not answer.
pub async fn by_status(pool: &PgPool) -> sqlx::Result<Table> {
    let rows: Vec<(i16, i16, i64, i64, i64)> = sqlx::query_as(
        "SELECT status, end_reason, count(*), sum(line_count)::bigint, sum(total)::bigint
         FROM orders GROUP BY status, end_reason ORDER BY status, end_reason",
    )
    .fetch_all(pool)
    .await?;
    let mut table = Table::new([
        ("status", Align::Left),
        ("orders", Align::Right),
        ("lines", Align::Right),
        (CURRENCY, Align::Right),
    ]);
    let mut sums = (0, 0, 0);
    for (order_status, reason, orders, lines, total) in rows {
        let order_status = OrderStatus::try_from(i32::from(order_status)).unwrap_or_default();
        let reason = EndReason::try_from(i32::from(reason)).unwrap_or_default();
        table.row([
            status(order_status, reason),
            count(orders),
            count(lines),
            amount(total, CURRENCY),
        ]);
        sums = (sums.0 + orders, sums.1 + lines, sums.2 + total);
    }
    table.row([
        "all".into(),
        count(sums.0),
        count(sums.1),
        amount(sums.2, CURRENCY),
    ]);
    Ok(table)
}

/// How fast the orders were. Calls begin on the loader's clock, events have the broker's or the producer's: all the
/// same clock here.
pub struct Speed {
    /// From the call to its answer: the order is created.
    answered: Latency,
    /// From the call until the confirmation was written to the log.
    confirmed: Latency,
    /// From the call until a reader of the read model saw the order, of every twentieth order.
    visible: Latency,
    /// From the first call until the end of the last order was written to the log.
    all: Duration,
    orders: usize,
}

impl Speed {
    /// Of the orders that were placed and what the log says of them.
    pub fn of(placed: &Placed, log: &OrdersLog) -> Self {
        let since = |order: &Order, at_ms: i64| {
            Duration::from_millis(u64::try_from(at_ms - order.called_ms).unwrap_or_default())
        };
        let confirmed = placed.orders.iter().filter_map(|order| {
            let confirmed_ms = log.orders.get(&order.id)?.confirmed_ms?;
            Some(since(order, confirmed_ms))
        });
        let ends = placed
            .orders
            .iter()
            .filter_map(|order| log.orders.get(&order.id)?.final_ms);
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
        let [(fifty, _), (most, _), (nearly_all, _)] = Latency::SHOWN;
        let mut table = Table::new([
            ("from the call", Align::Left),
            (fifty, Align::Right),
            (most, Align::Right),
            (nearly_all, Align::Right),
        ]);
        for (name, latency) in [
            ("created", &self.answered),
            ("visible", &self.visible),
            ("confirmed", &self.confirmed),
        ] {
            if !latency.is_empty() {
                let [fifty, most, nearly_all] =
                    Latency::SHOWN.map(|(_, percent)| duration(latency.percentile(percent)));
                table.row([name.into(), fifty, most, nearly_all]);
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
