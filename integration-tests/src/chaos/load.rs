//! Clients in an open loop: calls begin at a rate, whether or not earlier ones have their answer.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use chassis::grpc::Peer;
use contracts::orders::v1::order_service_client::OrderServiceClient;
use contracts::orders::v1::{
    CancelOrderRequest, OrderLine, PlaceOrderRequest, PlaceOrderResponse, PlaceOrderWait,
};
use contracts::query::v1::GetOrderRequest;
use contracts::query::v1::query_service_client::QueryServiceClient;
use serde_json::json;
use tokio::task::JoinHandle;
use tonic::{Code, Request, Status};
use uuid::Uuid;

use super::Plan;
use crate::eventually::eventually;
use crate::system::{System, order_of};

/// For one answer.
const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// How long a call is repeated: longer than all faults in a row that are to be survived, on a slow machine too.
const PATIENCE: Duration = Duration::from_secs(600);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Between an order and the wish to cancel it.
const SECOND_THOUGHTS_MS: u64 = 1_500;
/// Of a hundred orders, read by their owners, and how often each.
const READ_PERCENT: u8 = 10;
const READS: usize = 3;
/// How steep the popularity of products is.
const ZIPF: f64 = 1.0;
/// Distinct customers; who is declined is drawn by customer.
const CUSTOMERS: u32 = 5_000;

/// What clients do.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// Products, of Zipf's popularity.
    pub products: usize,
    /// Pieces of each in stock.
    pub pieces: i64,
    /// Every product as popular as any other, and one piece of one product in each order.
    pub single: bool,
    /// Of a hundred orders, cancelled soon after.
    pub cancelled_percent: u8,
    /// Of a hundred orders, placed once more.
    pub repeated_percent: u8,
    /// Of a hundred orders, for nothing: they need no payment.
    pub free_percent: u8,
}

/// A usual day.
pub const USUAL: Mix = Mix {
    products: 200,
    pieces: 3_000,
    single: false,
    cancelled_percent: 10,
    repeated_percent: 5,
    free_percent: 0,
};

/// Clients at work.
pub struct Load {
    shared: Arc<Shared>,
    clock: Option<JoinHandle<()>>,
}

struct Shared {
    mix: Mix,
    gateways: Vec<Peer>,
    /// Orders begun each second, in thousandths.
    rate: AtomicU64,
    /// Orders that are still to be begun.
    left: AtomicU64,
    turn: AtomicUsize,
    random: Mutex<fastrand::Rng>,
    popularity: Vec<f64>,
    journal: Mutex<BufWriter<File>>,
    counts: Counts,
    /// Answers that no client may get.
    wrong: Mutex<Vec<String>>,
    answers: Mutex<Vec<Duration>>,
    most_failures: Mutex<Vec<Status>>,
}

#[derive(Default)]
struct Counts {
    begun: AtomicU64,
    acknowledged: AtomicU64,
    under_way: AtomicU64,
    cancelled: AtomicU64,
    repeated: AtomicU64,
    given_up: AtomicU64,
}

impl Load {
    /// Fills the shelves, and begins to place orders through these gateways. What was acknowledged stands in
    /// `journal`, in the format of `ordermesh load`.
    ///
    /// # Panics
    ///
    /// When the journal cannot be written.
    pub fn begin(system: &System, gateways: &[SocketAddr], journal: &str, plan: &Plan) -> Self {
        let Plan { mix, seed, .. } = *plan;
        let stock = (0..mix.products).map(|product| (sku(product), mix.pieces));
        system.stock_all(stock.collect::<BTreeMap<_, _>>());
        let mut file = BufWriter::new(File::create(journal).expect("a journal"));
        let head = json!({"fact": "file", "name": "open loop", "sha256": format!("{seed:064x}")});
        writeln!(file, "{head}").expect("the journal can be written");
        let shared = Arc::new(Shared {
            mix,
            gateways: gateways
                .iter()
                .map(|address| system.peer(*address))
                .collect(),
            rate: AtomicU64::new(u64::from(plan.rate) * 1_000),
            left: AtomicU64::new(plan.orders.unwrap_or(u64::MAX)),
            turn: AtomicUsize::default(),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            popularity: popularity(mix.products),
            journal: Mutex::new(file),
            counts: Counts::default(),
            wrong: Mutex::default(),
            answers: Mutex::default(),
            most_failures: Mutex::default(),
        });
        let begin = Arc::clone(&shared);
        let clock = system.spawn_on(clock(begin));
        Self {
            shared,
            clock: Some(clock),
        }
    }

    /// A gateway; they take turns.
    pub fn gateway(&self, number: usize) -> Peer {
        let gateways = &self.shared.gateways;
        gateways[number % gateways.len()].clone()
    }

    /// Orders begun each second from now on.
    pub fn rate(&self, rate: u32) {
        let rate = u64::from(rate) * 1_000;
        self.shared.rate.store(rate, Ordering::Relaxed);
    }

    /// Whether every order that was to be begun has its answer.
    pub fn is_over(&self) -> bool {
        let counts = &self.shared.counts;
        let left = self.shared.left.load(Ordering::Relaxed);
        let begins = self.shared.rate.load(Ordering::Relaxed) > 0 && left > 0;
        !begins && counts.under_way.load(Ordering::Relaxed) == 0
    }

    /// Orders acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.counts.acknowledged.load(Ordering::Relaxed)
    }

    /// How the call failed that failed most often before its answer, since this was asked last.
    pub fn most_failures(&self) -> Vec<Status> {
        std::mem::take(&mut *lock(&self.shared.most_failures))
    }

    /// Times from call to acknowledgement since this was asked last.
    pub fn answers(&self) -> Vec<Duration> {
        std::mem::take(&mut *lock(&self.shared.answers))
    }

    /// Waits until so many more orders are acknowledged.
    pub fn goes_on(&self, orders: u64) {
        let wanted = self.acknowledged() + orders;
        eventually(&format!("{orders} more orders are acknowledged"), || {
            (self.acknowledged() >= wanted).then_some(())
        });
    }

    /// The same, and how many there were each second.
    pub fn goes_on_at(&self, orders: u32) -> f64 {
        let began = Instant::now();
        self.goes_on(orders.into());
        f64::from(orders) / began.elapsed().as_secs_f64()
    }

    /// Waits until no call is under way and none is begun any more.
    ///
    /// # Panics
    ///
    /// When a call got an answer that it may not get, or none at all.
    pub fn drain(&self) {
        if self.shared.left.load(Ordering::Relaxed) == u64::MAX {
            self.rate(0);
        }
        eventually("every call has its answer", || self.is_over().then_some(()));
        lock(&self.shared.journal)
            .flush()
            .expect("the journal can be written");
        let wrong = lock(&self.shared.wrong);
        assert!(wrong.is_empty(), "wrong answers: {wrong:#?}");
        let given_up = self.shared.counts.given_up.load(Ordering::Relaxed);
        assert_eq!(given_up, 0, "calls without an answer");
    }

    /// What was done, on one line.
    pub fn summary(&self) -> String {
        let counts = &self.shared.counts;
        let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
        format!(
            "{} orders acknowledged, {} cancelled, {} repeated",
            count(&counts.acknowledged),
            count(&counts.cancelled),
            count(&counts.repeated)
        )
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(clock) = self.clock.take() {
            clock.abort();
        }
    }
}

/// Name of a product.
pub fn sku(product: usize) -> String {
    format!("product-{product:03}")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder panics")
}

/// Summed shares of the products by rank.
fn popularity(products: usize) -> Vec<f64> {
    #[allow(clippy::cast_precision_loss)]
    let shares = (1..=products).map(|rank| (rank as f64).powf(-ZIPF));
    let mut sum = 0.0;
    shares
        .map(|share| {
            sum += share;
            sum
        })
        .collect()
}

/// Begins calls when their time has come: what was missed is made up for.
async fn clock(shared: Arc<Shared>) {
    const TICK: Duration = Duration::from_millis(10);
    let mut tick = tokio::time::interval(TICK);
    let mut due = 0;
    let mut last = Instant::now();
    loop {
        tick.tick().await;
        let elapsed = last.elapsed();
        last = Instant::now();
        due += shared.rate.load(Ordering::Relaxed) * elapsed.as_micros() as u64;
        // Thousandths of a millionth make one order.
        while due >= 1_000_000_000 {
            due -= 1_000_000_000;
            let left = shared
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| match left {
                    0 => None,
                    u64::MAX => Some(left),
                    left => Some(left - 1),
                });
            if left.is_err() {
                due = 0;
                break;
            }
            shared.counts.begun.fetch_add(1, Ordering::Relaxed);
            shared.counts.under_way.fetch_add(1, Ordering::Relaxed);
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                client(&shared).await;
                shared.counts.under_way.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }
}

/// One client's order, and what may follow.
async fn client(shared: &Shared) {
    let (order, is_cancelled, is_repeated, is_read, pause) = {
        let mut random = lock(&shared.random);
        let order = order(shared, &mut random);
        let is_cancelled = random.u8(..100) < shared.mix.cancelled_percent;
        let is_repeated = random.u8(..100) < shared.mix.repeated_percent;
        let is_read = random.u8(..100) < READ_PERCENT;
        (
            order,
            is_cancelled,
            is_repeated,
            is_read,
            random.u64(..SECOND_THOUGHTS_MS),
        )
    };
    let began = Instant::now();
    let answer = match shared.place(&order).await {
        Ok(answer) => answer,
        Err(status) => return shared.failed("place", &order.order_id, &status),
    };
    lock(&shared.answers).push(began.elapsed());
    shared.acknowledged(&order, &answer);
    if is_repeated {
        match shared.place(&order).await {
            Ok(again) if again.order_id == answer.order_id && again.version >= answer.version => {
                shared.counts.repeated.fetch_add(1, Ordering::Relaxed);
            }
            Ok(again) => shared.wrong(format!("{answer:?} became {again:?} when repeated")),
            Err(status) => shared.failed("repeat", &order.order_id, &status),
        }
    }
    if is_read {
        shared.reads(&order, answer.version).await;
    }
    if is_cancelled {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        match shared.cancel(&order).await {
            Ok(()) => {
                shared.counts.cancelled.fetch_add(1, Ordering::Relaxed);
            }
            // It has ended or is on its way already.
            Err(status) if status.code() == Code::FailedPrecondition => {}
            Err(status) => shared.failed("cancel", &order.order_id, &status),
        }
    }
}

fn order(shared: &Shared, random: &mut fastrand::Rng) -> PlaceOrderRequest {
    let mix = &shared.mix;
    let is_free = random.u8(..100) < mix.free_percent;
    let mut lines = BTreeMap::new();
    let wanted = if mix.single { 1 } else { random.usize(1..=3) };
    for _ in 0..wanted {
        let product = if mix.single {
            random.usize(..mix.products)
        } else {
            let total = shared.popularity.last().copied().unwrap_or_default();
            let point = random.f64() * total;
            let rank = shared.popularity.partition_point(|sum| *sum < point);
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

impl Shared {
    async fn place(&self, order: &PlaceOrderRequest) -> Result<PlaceOrderResponse, Status> {
        self.call(|peer| {
            let order = in_time(order.clone());
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
            let cancel = in_time(cancel.clone());
            async move { OrderServiceClient::new(peer).cancel_order(cancel).await }
        })
        .await
        .map(drop)
    }

    /// Reads an order some times, as its owner does: at least what was written is there, and nothing goes back.
    async fn reads(&self, order: &PlaceOrderRequest, written: u64) {
        let mut seen = written;
        for _ in 0..READS {
            let read = GetOrderRequest {
                order_id: order.order_id.clone(),
                min_version: written,
                min_position: None,
            };
            let found = self
                .call(|peer| {
                    let read = in_time(read.clone());
                    async move { QueryServiceClient::new(peer).get_order(read).await }
                })
                .await;
            let version = match found {
                Ok(found) => found.order.unwrap_or_default().version,
                Err(status) => return self.failed("read", &order.order_id, &status),
            };
            if version < seen {
                self.wrong(format!(
                    "{} went back from {seen} to {version}",
                    order.order_id
                ));
            }
            seen = version;
            // Each client is a reader of its own.
            let fact = json!({
                "fact": "read",
                "reader": order.order_id,
                "order_id": order.order_id,
                "version": version,
            });
            writeln!(lock(&self.journal), "{fact}").expect("the journal can be written");
        }
    }

    /// Repeats a call while that may help, at one gateway after the other.
    async fn call<T, F>(&self, mut call: impl FnMut(Peer) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let end = Instant::now() + PATIENCE;
        let mut pause = FIRST_PAUSE;
        let mut turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut failures = Vec::new();
        loop {
            let peer = self.gateways[turn % self.gateways.len()].clone();
            turn += 1;
            let answer = call(peer).await;
            match answer {
                Err(status) if may_pass(&status) && Instant::now() < end => {
                    failures.push(status);
                    let share = lock(&self.random).f64();
                    tokio::time::sleep(pause.mul_f64(share)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                answer => {
                    let mut most = lock(&self.most_failures);
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
        writeln!(lock(&self.journal), "{fact}").expect("the journal can be written");
        self.counts.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    fn failed(&self, what: &str, order_id: &str, status: &Status) {
        if may_pass(status) {
            self.counts.given_up.fetch_add(1, Ordering::Relaxed);
        }
        self.wrong(format!("{what} {order_id}: {status}"));
    }

    fn wrong(&self, what: String) {
        lock(&self.wrong).push(what);
    }
}

fn in_time<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_DEADLINE);
    request
}

/// Whether the same call may have another answer later. What a broken connection leaves behind is among them.
fn may_pass(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Cancelled
            | Code::Unknown
            | Code::Internal
            | Code::Aborted
    )
}
