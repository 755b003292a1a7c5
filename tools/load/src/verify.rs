//! Compares the acknowledged orders of a load with what the public API reports: every order is there, is final, and has
//! the total of its accepted lines.

use std::time::Duration;

use contracts::orders::v1::EndReason;
use contracts::query::v1::{GetOrderRequest, OrderView};
use contracts::rules;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use platform_client::retry::{self, Backoff};
use platform_client::{Clients, request};
use serde::Serialize;
use terminal::progress::Progress;
use terminal::{count, money, status};
use tokio::time::{Instant, sleep};
use tonic::Code;
use uuid::Uuid;

use crate::baskets::{BasketFile, CURRENCY};
use crate::journal::{BasketResult, History};

/// Orders that are read at the same time.
const CONCURRENCY: usize = 64;
/// Pause until an order that is missing or not final is read again.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Failed calls are retried for at least this long after the first read of an order.
const MIN_RETRY_TIME: Duration = Duration::from_secs(10);
/// Limit of the listed differences.
const MAX_EXAMPLES: usize = 5;

/// An order whose client got an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcknowledgedOrder {
    /// The order id.
    pub order_id: Uuid,
    /// Total of the accepted lines, in minor units.
    pub cents: i64,
}

/// The acknowledged orders of a file, in its order.
pub fn acknowledged_orders(file: &BasketFile, history: &History) -> Vec<AcknowledgedOrder> {
    let order = |basket: &str| {
        let state = history.basket(basket);
        match (state.order_id?, state.result?) {
            (order_id, BasketResult::Acknowledged { cents, .. }) => {
                Some(AcknowledgedOrder { order_id, cents })
            }
            (_, BasketResult::Refused { .. }) => None,
        }
    };
    file.baskets
        .iter()
        .filter_map(|basket| order(&basket.id))
        .collect()
}

/// The final state of an order could not be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "order {order_id} is not verified: {reason}; run the command again to repeat the verification"
)]
pub struct Error {
    order_id: Uuid,
    reason: String,
}

/// The result of the comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Acknowledged orders.
    orders: usize,
    /// Those that the API reports as final.
    #[serde(rename = "final")]
    ended: usize,
    /// Total of the accepted lines, in minor units.
    accepted_cents: i64,
    /// Total of the orders that the API reports, in minor units.
    reported_cents: i64,
    /// Orders that are missing, not final, or have another total.
    differing: usize,
    /// The first of them.
    examples: Vec<Difference>,
}

/// An order that is missing, not final, or has another total.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Difference {
    order_id: Uuid,
    /// What is wrong, as text.
    wrong: String,
}

impl Verification {
    /// Whether no order differs.
    pub const fn passed(&self) -> bool {
        self.differing == 0
    }

    /// Compares one order with what the API reports; `None` when it has no such order.
    fn add(&mut self, order: AcknowledgedOrder, reported: Option<&OrderView>) {
        self.orders += 1;
        self.accepted_cents += order.cents;
        let mut wrong = Vec::new();
        match reported {
            Some(reported) => {
                self.reported_cents += reported.total;
                if is_final(reported) {
                    self.ended += 1;
                } else {
                    let status = status(reported.status(), EndReason::Unspecified);
                    wrong.push(format!("still {status}"));
                }
                if (reported.total, reported.currency.as_str()) != (order.cents, CURRENCY) {
                    let total = money(reported.total, &reported.currency);
                    wrong.push(format!(
                        "{total} instead of {}",
                        money(order.cents, CURRENCY)
                    ));
                }
            }
            None => wrong.push("missing".to_owned()),
        }
        if wrong.is_empty() {
            return;
        }
        self.differing += 1;
        if self.examples.len() < MAX_EXAMPLES {
            self.examples.push(Difference {
                order_id: order.order_id,
                wrong: wrong.join("; "),
            });
        }
    }

    /// Rows of a table for people: name, number, details.
    pub fn rows(&self) -> Vec<[String; 3]> {
        let mark = |holds| if holds { '✓' } else { '✗' };
        let of = format!("of {} acknowledged orders", count(self.orders));
        let [reported, accepted] =
            [self.reported_cents, self.accepted_cents].map(|cents| money(cents, CURRENCY));
        let mut rows = vec![
            [
                format!("{} final", mark(self.ended == self.orders)),
                count(self.ended),
                of,
            ],
            [
                format!("{} money", mark(self.reported_cents == self.accepted_cents)),
                String::new(),
                format!("{reported} reported, {accepted} in the accepted lines"),
            ],
        ];
        if !self.passed() {
            let text = "orders differ, for example:".to_owned();
            rows.push(["✗".to_owned(), count(self.differing), text]);
        }
        rows.extend(self.examples.iter().map(|example| {
            let Difference { order_id, wrong } = example;
            let text = format!("{order_id}: {wrong}");
            [String::new(), String::new(), text]
        }));
        rows
    }
}

/// Reads the orders over the API, waits up to `patience` until all of them are final, and compares them.
///
/// Failed calls are retried until `patience` is over. After the first read of an order they are retried for ten seconds
/// at least, also when `patience` is over: one failed call does not end the verification.
///
/// # Errors
///
/// The API fails for longer, or refuses the client.
pub async fn verify(
    orders: &[AcknowledgedOrder],
    clients: &Clients,
    patience: Duration,
    progress: &Progress,
) -> Result<Verification, Error> {
    let deadline = Instant::now() + patience;
    stream::iter(orders)
        .map(|order| async move {
            let reported =
                read_until_final(clients, order.order_id, deadline, MIN_RETRY_TIME).await?;
            if reported.as_ref().is_some_and(is_final) {
                progress.step();
            }
            Ok((*order, reported))
        })
        // In the order of the file, so that the same orders are listed each time.
        .buffered(CONCURRENCY)
        .try_fold(
            Verification::default(),
            |mut verification, (order, reported)| async move {
                verification.add(order, reported.as_ref());
                Ok(verification)
            },
        )
        .await
}

/// Reads an order until it is final, until `deadline` at the latest; `None` when there is no such order. Failed calls
/// are retried for at least `min_retry_time`.
async fn read_until_final(
    clients: &Clients,
    order_id: Uuid,
    deadline: Instant,
    min_retry_time: Duration,
) -> Result<Option<OrderView>, Error> {
    let read = GetOrderRequest {
        order_id: order_id.to_string(),
        ..GetOrderRequest::default()
    };
    let retry_deadline = deadline.max(Instant::now() + min_retry_time);
    let mut backoff = Backoff::default();
    loop {
        let answer = clients.query.clone().get_order(request(read.clone())).await;
        let is_over = Instant::now() >= deadline;
        let pause = match answer {
            Ok(answer) => {
                let order = answer.into_inner().order;
                if is_over || order.as_ref().is_some_and(is_final) {
                    return Ok(order);
                }
                POLL_INTERVAL
            }
            // The read model may be behind.
            Err(status) if status.code() == Code::NotFound => {
                if is_over {
                    return Ok(None);
                }
                POLL_INTERVAL
            }
            Err(status) if retry::is_retryable(&status) && Instant::now() < retry_deadline => {
                backoff.next(&status)
            }
            Err(status) => {
                return Err(Error {
                    order_id,
                    reason: clients.failed(&status).to_string(),
                });
            }
        };
        sleep(pause).await;
    }
}

fn is_final(order: &OrderView) -> bool {
    rules::is_final(order.status())
}

#[cfg(test)]
mod tests;
