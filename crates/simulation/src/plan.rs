//! The plan of a run: its size and the rates of its faults, drawn before the run starts.

use std::time::Duration;

use contracts::sandbox::v1::{Behaviour, Faults};

use crate::rng::SeededRng;

const SHORT_HORIZON: Duration = Duration::from_secs(20);

/// The size of a run and its fault rates. Most seeds have only some kinds of faults, so that each kind also occurs
/// without the others.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Partitions of every topic.
    pub partitions: u16,
    /// Processes of each service at the start.
    pub instances: usize,
    /// Number of orders that customers place.
    pub orders: usize,
    /// Number of products.
    pub skus: usize,
    /// Stock of each product at the start.
    pub initial_stock: i64,
    /// Number of actions while faults are enabled.
    pub actions: usize,
    /// Time between checkpoints.
    pub checkpoint_every: Duration,
    /// How long finished aggregates stay in memory.
    pub horizon: Duration,
    /// Time that is added to the horizon. Some seeds make it shorter than a service may be unavailable, which must not
    /// change results.
    pub slack: Duration,
    /// Crashes in a million points of a worker's calls.
    pub crash_ppm: u32,
    /// Pauses in a million points, in which other processes run.
    pub pause_ppm: u32,
    /// Missing answers of the broker in a million points.
    pub unanswered_ppm: u32,
    /// Delivery faults in a million requests to end a transaction.
    pub end_fault_ppm: u32,
    /// Sends without a result in a million commands outside of transactions; the command may be written or not.
    pub unknown_send_ppm: u32,
    /// External faults in a million actions.
    pub external_fault_ppm: u32,
    /// Processes often join and leave, and markers are slow.
    pub has_churn: bool,
    /// Crashes and lost sessions in a million steps of a projector.
    pub projector_fault_ppm: u32,
    /// Behaviour and faults of the payment provider and the carrier.
    pub behaviour: Behaviour,
}

impl Plan {
    /// The plan of a seed.
    pub fn draw(rng: &SeededRng) -> Self {
        let rate = |max: u32| {
            if rng.flip_coin() {
                rng.below(max as usize + 1) as u32
            } else {
                0
            }
        };
        let faults = |rng: &SeededRng| {
            let percent = |max: u32| {
                if rng.below(3) == 0 {
                    u32::try_from(rng.between(1, i64::from(max))).unwrap_or(0)
                } else {
                    0
                }
            };
            let slow_percent = percent(30);
            Faults {
                outage: false,
                hang_percent: percent(15),
                error_percent: percent(30),
                slow_percent,
                slow_ms: if slow_percent > 0 { 3_000 } else { 0 },
                reply_lost_percent: percent(30),
            }
        };
        let has_churn = rng.below(5) == 0;
        let mut plan = Self {
            partitions: u16::try_from(rng.between(1, 3)).unwrap_or(1),
            instances: rng.below(2) + 1,
            orders: rng.below(10) + 3,
            skus: rng.below(3) + 1,
            initial_stock: rng.between(2, 25),
            actions: rng.below(2_500) + 1_000,
            checkpoint_every: Duration::from_millis(rng.between(200, 3_000).unsigned_abs()),
            horizon: if rng.below(3) == 0 {
                SHORT_HORIZON
            } else {
                Duration::from_secs(900)
            },
            slack: Duration::from_secs(150),
            crash_ppm: rate(8_000),
            pause_ppm: rate(20_000),
            unanswered_ppm: rate(3_000),
            end_fault_ppm: rate(120_000),
            unknown_send_ppm: rate(100_000),
            external_fault_ppm: if has_churn { 40_000 } else { rate(10_000) },
            has_churn,
            projector_fault_ppm: rate(60_000),
            behaviour: Behaviour {
                decline_percent: if rng.flip_coin() { 20 } else { 0 },
                refuse_percent: if rng.below(3) == 0 { 20 } else { 0 },
                seed: rng.between(0, i64::MAX).unsigned_abs(),
                delivery_ms: u32::try_from(rng.between(50, 4_000)).unwrap_or(50),
                refund_refuse_percent: if rng.below(4) == 0 { 40 } else { 0 },
                provider: Some(faults(rng)),
                carrier: Some(faults(rng)),
            },
        };
        if plan.has_short_horizon() && rng.flip_coin() {
            plan.slack = Duration::from_secs(2);
        }
        plan
    }

    /// Whether aggregates may be evicted during the run.
    pub fn has_short_horizon(&self) -> bool {
        self.horizon == SHORT_HORIZON
    }
}
