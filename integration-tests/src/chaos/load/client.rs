//! One client: places an order, and repeats, reads or cancels it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chassis::grpc::Peer;
use contracts::orders::v1::order_service_client::OrderServiceClient;
use contracts::orders::v1::{
    CancelOrderRequest, OrderLine, PlaceOrderRequest, PlaceOrderResponse, PlaceOrderWait,
};
use contracts::query::v1::GetOrderRequest;
use contracts::query::v1::query_service_client::QueryServiceClient;
use platform_client::retry::is_retryable;
use serde_json::json;
use tonic::{Code, Request, Status};
use uuid::Uuid;

use super::{LoadState, sku};
use crate::system::order_of;

/// Time-out of one call.
const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// How long a call is retried: longer than all consecutive faults together, on a slow machine too.
const RETRY_DEADLINE: Duration = Duration::from_secs(600);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Upper limit of the delay between an order and its cancellation.
const CANCEL_DELAY_MS: u64 = 1_500;
/// Percentage of orders that are read by their owner, and reads of each.
const READ_PERCENT: u8 = 10;
const READS_PER_ORDER: usize = 3;
/// Number of customers. Whether a payment is declined is drawn by customer.
const CUSTOMERS: u32 = 5_000;

/// Places one order, and repeats, reads or cancels it.
pub(super) async fn run_client(state: &LoadState) {
    let (order, is_cancelled, is_repeated, is_read, pause) = {
        let mut random = state.random.lock();
        let order = random_order(state, &mut random);
        let is_cancelled = random.u8(..100) < state.mix.cancelled_percent;
        let is_repeated = random.u8(..100) < state.mix.repeated_percent;
        let is_read = random.u8(..100) < READ_PERCENT;
        (
            order,
            is_cancelled,
            is_repeated,
            is_read,
            random.u64(..CANCEL_DELAY_MS),
        )
    };
    let began = Instant::now();
    let answer = match state.place(&order).await {
        Ok(answer) => answer,
        Err(status) => return state.failed("place", &order.order_id, &status),
    };
    state.latencies.lock().push(began.elapsed());
    state.acknowledged(&order, &answer);
    if is_repeated {
        match state.place(&order).await {
            Ok(repeated)
                if repeated.order_id == answer.order_id && repeated.version >= answer.version =>
            {
                state.counters.repeated.fetch_add(1, Ordering::Relaxed);
            }
            Ok(repeated) => {
                state.record_violation(format!("{answer:?} became {repeated:?} when repeated"))
            }
            Err(status) => state.failed("repeat", &order.order_id, &status),
        }
    }
    if is_read {
        state.read_own_writes(&order, answer.version).await;
    }
    if is_cancelled {
        // A customer changes their mind after a while; nothing is waited for.
        tokio::time::sleep(Duration::from_millis(pause)).await;
        match state.cancel(&order).await {
            Ok(()) => {
                state.counters.cancelled.fetch_add(1, Ordering::Relaxed);
            }
            // The order is already final or on its way.
            Err(status) if status.code() == Code::FailedPrecondition => {}
            Err(status) => state.failed("cancel", &order.order_id, &status),
        }
    }
}

fn random_order(state: &LoadState, random: &mut fastrand::Rng) -> PlaceOrderRequest {
    let mix = &state.mix;
    let is_free = random.u8(..100) < mix.free_percent;
    let mut lines = BTreeMap::new();
    let wanted = if mix.single { 1 } else { random.usize(1..=3) };
    for _ in 0..wanted {
        let product = if mix.single {
            random.usize(..mix.products)
        } else {
            let total = state.popularity.last().copied().unwrap_or_default();
            let point = random.f64() * total;
            let rank = state.popularity.partition_point(|sum| *sum < point);
            rank.min(mix.products - 1)
        };
        let quantity = if mix.single { 1 } else { random.u32(1..=3) };
        lines.insert(
            sku(product),
            OrderLine {
                sku: sku(product),
                quantity,
                unit_price: if is_free { 0 } else { random.i64(100..1_000) },
                discount: 0,
                description: String::new(),
            },
        );
    }
    PlaceOrderRequest {
        order_id: Uuid::now_v7().to_string(),
        customer_id: format!("customer-{}", random.u32(..CUSTOMERS)),
        lines: lines.into_values().collect(),
        wait: PlaceOrderWait::Created.into(),
        ..order_of(&[])
    }
}

impl LoadState {
    async fn place(&self, order: &PlaceOrderRequest) -> Result<PlaceOrderResponse, Status> {
        self.call(|peer| {
            let order = with_deadline(order.clone());
            async move { OrderServiceClient::new(peer).place_order(order).await }
        })
        .await
    }

    async fn cancel(&self, order: &PlaceOrderRequest) -> Result<(), Status> {
        let cancel = CancelOrderRequest {
            order_id: order.order_id.clone(),
            customer_id: order.customer_id.clone(),
        };
        self.call(|peer| {
            let cancel = with_deadline(cancel.clone());
            async move { OrderServiceClient::new(peer).cancel_order(cancel).await }
        })
        .await
        .map(drop)
    }

    /// Reads an order several times as its owner does: at least what was written is visible, and the version never
    /// decreases.
    async fn read_own_writes(&self, order: &PlaceOrderRequest, written: u64) {
        let mut last_version = written;
        for _ in 0..READS_PER_ORDER {
            let read = GetOrderRequest {
                order_id: order.order_id.clone(),
                min_version: written,
                min_position: None,
            };
            let found = self
                .call(|peer| {
                    let read = with_deadline(read.clone());
                    async move { QueryServiceClient::new(peer).get_order(read).await }
                })
                .await;
            let version = match found {
                Ok(found) => found.order.unwrap_or_default().version,
                Err(status) => return self.failed("read", &order.order_id, &status),
            };
            if version < last_version {
                self.record_violation(format!(
                    "{} went back from {last_version} to {version}",
                    order.order_id
                ));
            }
            last_version = version;
            // Each client counts as a reader of its own.
            let fact = json!({
                "fact": "read",
                "reader": order.order_id,
                "order_id": order.order_id,
                "version": version,
            });
            writeln!(self.journal.lock(), "{fact}").expect("the journal can be written");
        }
    }

    /// Retries a call while that may help, at one gateway after the other.
    async fn call<T, F>(&self, mut call: impl FnMut(Peer) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let end = Instant::now() + RETRY_DEADLINE;
        let mut pause = FIRST_PAUSE;
        let mut next_gateway = self.next_gateway.fetch_add(1, Ordering::Relaxed);
        let mut failures = Vec::new();
        loop {
            let peer = self.gateways[next_gateway % self.gateways.len()].clone();
            next_gateway += 1;
            let answer = call(peer).await;
            match answer {
                Err(status) if is_retryable(&status) && Instant::now() < end => {
                    failures.push(status);
                    let share = self.random.lock().f64();
                    tokio::time::sleep(pause.mul_f64(share)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                answer => {
                    let mut most = self.most_failures.lock();
                    if failures.len() > most.len() {
                        *most = failures;
                    }
                    return answer.map(tonic::Response::into_inner);
                }
            }
        }
    }

    fn acknowledged(&self, order: &PlaceOrderRequest, answer: &PlaceOrderResponse) {
        let cents: i64 = order
            .lines
            .iter()
            .map(|line| line.unit_price * i64::from(line.quantity))
            .sum();
        let fact = json!({
            "fact": "acknowledged",
            "basket": order.order_id,
            "order_id": order.order_id,
            "status": answer.status().as_str_name(),
            "version": answer.version,
            "lines": order.lines.len(),
            "cents": cents,
        });
        writeln!(self.journal.lock(), "{fact}").expect("the journal can be written");
        self.counters.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    fn failed(&self, what: &str, order_id: &str, status: &Status) {
        if is_retryable(status) {
            self.counters.gave_up.fetch_add(1, Ordering::Relaxed);
        }
        self.record_violation(format!("{what} {order_id}: {status}"));
    }

    fn record_violation(&self, what: String) {
        self.violations.lock().push(what);
    }
}

fn with_deadline<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_DEADLINE);
    request
}
