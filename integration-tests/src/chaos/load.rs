//! An open-loop load: calls start at a rate, independent of the answers to earlier ones.

mod client;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use chassis::grpc::Peer;
use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinHandle;
use tonic::Status;

use self::client::run_client;
use super::Plan;
use crate::eventually::eventually;
use crate::system::System;

/// Exponent of the popularity of products.
const ZIPF: f64 = 1.0;

/// What the clients do.
#[derive(Clone, Copy, Debug)]
pub struct WorkloadMix {
    /// Number of products. Their popularity follows Zipf's law.
    pub products: usize,
    /// Pieces of each product in stock.
    pub pieces: i64,
    /// Every product is equally popular, and each order is one piece of one product.
    pub single: bool,
    /// Percentage of orders that are cancelled soon after.
    pub cancelled_percent: u8,
    /// Percentage of orders that are placed a second time.
    pub repeated_percent: u8,
    /// Percentage of orders that cost nothing and need no payment.
    pub free_percent: u8,
}

/// The mix of most tests.
pub const DEFAULT_MIX: WorkloadMix = WorkloadMix {
    products: 200,
    pieces: 3_000,
    single: false,
    cancelled_percent: 10,
    repeated_percent: 5,
    free_percent: 0,
};

/// A running load.
pub struct Load {
    state: Arc<LoadState>,
    scheduler: Option<JoinHandle<()>>,
}

struct LoadState {
    mix: WorkloadMix,
    gateways: Vec<Peer>,
    /// Orders per second, in thousandths.
    rate: AtomicU64,
    /// Orders that are still to be started.
    left: AtomicU64,
    next_gateway: AtomicUsize,
    random: Mutex<fastrand::Rng>,
    popularity: Vec<f64>,
    journal: Mutex<BufWriter<File>>,
    counters: Counters,
    /// Answers that violate the API's guarantees.
    violations: Mutex<Vec<String>>,
    latencies: Mutex<Vec<Duration>>,
    most_failures: Mutex<Vec<Status>>,
}

#[derive(Default)]
struct Counters {
    started: AtomicU64,
    acknowledged: AtomicU64,
    in_flight: AtomicU64,
    cancelled: AtomicU64,
    repeated: AtomicU64,
    gave_up: AtomicU64,
}

impl Load {
    /// Fills the stock and starts to place orders through these gateways. Acknowledged orders are written to `journal`,
    /// in the format of `ordermesh load`.
    ///
    /// # Panics
    ///
    /// When the journal cannot be written.
    pub fn start(system: &System, gateways: &[SocketAddr], journal: &str, plan: &Plan) -> Self {
        let Plan { mix, seed, .. } = *plan;
        let stock = (0..mix.products).map(|product| (sku(product), mix.pieces));
        system.stock_all(stock.collect::<BTreeMap<_, _>>());
        let mut file = BufWriter::new(File::create(journal).expect("a journal"));
        let head = json!({"fact": "file", "name": "open loop", "sha256": format!("{seed:064x}")});
        writeln!(file, "{head}").expect("the journal can be written");
        let state = Arc::new(LoadState {
            mix,
            gateways: gateways
                .iter()
                .map(|address| system.peer(*address))
                .collect(),
            rate: AtomicU64::new(u64::from(plan.rate) * 1_000),
            left: AtomicU64::new(plan.orders.unwrap_or(u64::MAX)),
            next_gateway: AtomicUsize::default(),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            popularity: popularity(mix.products),
            journal: Mutex::new(file),
            counters: Counters::default(),
            violations: Mutex::default(),
            latencies: Mutex::default(),
            most_failures: Mutex::default(),
        });
        let begin = Arc::clone(&state);
        let scheduler = system.spawn_on(scheduler(begin));
        Self {
            state,
            scheduler: Some(scheduler),
        }
    }

    /// One of the gateways, in turn.
    pub fn gateway(&self, number: usize) -> Peer {
        let gateways = &self.state.gateways;
        gateways[number % gateways.len()].clone()
    }

    /// Sets the rate, in orders per second.
    pub fn set_rate(&self, rate: u32) {
        let rate = u64::from(rate) * 1_000;
        self.state.rate.store(rate, Ordering::Relaxed);
    }

    /// Whether every order that was to be started has its answer.
    pub fn is_finished(&self) -> bool {
        let counters = &self.state.counters;
        let left = self.state.left.load(Ordering::Relaxed);
        let begins = self.state.rate.load(Ordering::Relaxed) > 0 && left > 0;
        !begins && counters.in_flight.load(Ordering::Relaxed) == 0
    }

    /// Number of orders acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.state.counters.acknowledged.load(Ordering::Relaxed)
    }

    /// The failures of the call that failed most often before it succeeded, since the last call of this method.
    pub fn take_most_failures(&self) -> Vec<Status> {
        std::mem::take(&mut *self.state.most_failures.lock())
    }

    /// Times from call to acknowledgement since the last call of this method.
    pub fn take_latencies(&self) -> Vec<Duration> {
        std::mem::take(&mut *self.state.latencies.lock())
    }

    /// Waits until this many more orders are acknowledged.
    pub fn wait_for_orders(&self, orders: u64) {
        let wanted = self.acknowledged() + orders;
        eventually(&format!("{orders} more orders are acknowledged"), || {
            (self.acknowledged() >= wanted).then_some(())
        });
    }

    /// Like [`Load::wait_for_orders`]. Returns the orders per second.
    pub fn measure_rate(&self, orders: u32) -> f64 {
        let began = Instant::now();
        self.wait_for_orders(orders.into());
        f64::from(orders) / began.elapsed().as_secs_f64()
    }

    /// Waits until no call is in flight and no more are started.
    ///
    /// # Panics
    ///
    /// When an answer violated a guarantee, or a call got none.
    pub fn drain(&self) {
        if self.state.left.load(Ordering::Relaxed) == u64::MAX {
            self.set_rate(0);
        }
        eventually("every call has its answer", || {
            self.is_finished().then_some(())
        });
        self.state
            .journal
            .lock()
            .flush()
            .expect("the journal can be written");
        let violations = self.state.violations.lock();
        assert!(violations.is_empty(), "violations: {violations:#?}");
        let gave_up = self.state.counters.gave_up.load(Ordering::Relaxed);
        assert_eq!(gave_up, 0, "calls without an answer");
    }

    /// The counts in one line.
    pub fn summary(&self) -> String {
        let counters = &self.state.counters;
        let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
        format!(
            "{} orders acknowledged, {} cancelled, {} repeated",
            count(&counters.acknowledged),
            count(&counters.cancelled),
            count(&counters.repeated)
        )
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(scheduler) = self.scheduler.take() {
            scheduler.abort();
        }
    }
}

/// SKU of a product.
pub fn sku(product: usize) -> String {
    format!("product-{product:03}")
}

/// Cumulated popularity of the products by rank.
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

/// Starts calls at the configured rate. Missed ticks are made up for.
async fn scheduler(state: Arc<LoadState>) {
    const TICK: Duration = Duration::from_millis(10);
    let mut tick = tokio::time::interval(TICK);
    let mut due = 0;
    let mut last = Instant::now();
    loop {
        tick.tick().await;
        let elapsed = last.elapsed();
        last = Instant::now();
        due += state.rate.load(Ordering::Relaxed) * elapsed.as_micros() as u64;
        // An order costs 10^9: the rate is in thousandths, the time in microseconds.
        while due >= 1_000_000_000 {
            due -= 1_000_000_000;
            let left = state
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
            state.counters.started.fetch_add(1, Ordering::Relaxed);
            state.counters.in_flight.fetch_add(1, Ordering::Relaxed);
            let state = Arc::clone(&state);
            tokio::spawn(async move {
                run_client(&state).await;
                state.counters.in_flight.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }
}
