//! What a seed draws before anything happens: how large the world is, and what goes wrong in it.

use std::time::Duration;

use contracts::sandbox::v1::{Behaviour, Faults};

use crate::rng::SeededRng;

const SHORT_HORIZON: Duration = Duration::from_secs(20);

/// A world's size and its troubles. Most seeds have only some kinds of trouble, so that others are seen alone.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Partitions of every topic.
    pub partitions: u16,
    /// Processes of each service at the beginning.
    pub instances: usize,
    /// Orders that customers place.
    pub orders: usize,
    /// Products, and the pieces of each at the beginning.
    pub skus: usize,
    /// See [`Plan::skus`].
    pub pieces: i64,
    /// How many actions the troubled part of the run has.
    pub actions: usize,
    /// Between checkpoints.
    pub checkpoint_every: Duration,
    /// How long finished aggregates are remembered.
    pub horizon: Duration,
    /// …and beyond: sometimes shorter than a service may be silent, which must not matter.
    pub slack: Duration,
    /// In a million points of a worker's life: it crashes there.
    pub crash: u32,
    /// …: others run meanwhile.
    pub pause: u32,
    /// …: the broker does not answer.
    pub unanswered: u32,
    /// In a million requests to end a transaction: it does not go well.
    pub ending: u32,
    /// In a million commands sent outside of transactions: nobody knows whether it was written.
    pub unknown: u32,
    /// In a million actions: something happens to a process, or to the broker.
    pub mishap: u32,
    /// Processes come and go all the time, and markers are slow.
    pub is_restless: bool,
    /// In a million steps of a projector: it crashes, or loses its session.
    pub projector: u32,
    /// Of the payment provider and the carrier.
    pub behaviour: Behaviour,
}

impl Plan {
    /// The plan of a seed.
    pub fn draw(dice: &SeededRng) -> Self {
        let some = |most: u32| {
            if dice.toss() {
                dice.below(most as usize + 1) as u32
            } else {
                0
            }
        };
        let faults = |dice: &SeededRng| {
            let percent = |most: u32| {
                if dice.below(3) == 0 {
                    u32::try_from(dice.between(1, i64::from(most))).unwrap_or(0)
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
        let is_restless = dice.below(5) == 0;
        let mut plan = Self {
            partitions: u16::try_from(dice.between(1, 3)).unwrap_or(1),
            instances: dice.below(2) + 1,
            orders: dice.below(10) + 3,
            skus: dice.below(3) + 1,
            pieces: dice.between(2, 25),
            actions: dice.below(2_500) + 1_000,
            checkpoint_every: Duration::from_millis(dice.between(200, 3_000).unsigned_abs()),
            horizon: if dice.below(3) == 0 {
                SHORT_HORIZON
            } else {
                Duration::from_secs(900)
            },
            slack: Duration::from_secs(150),
            crash: some(8_000),
            pause: some(20_000),
            unanswered: some(3_000),
            ending: some(120_000),
            unknown: some(100_000),
            mishap: if is_restless { 40_000 } else { some(10_000) },
            is_restless,
            projector: some(60_000),
            behaviour: Behaviour {
                decline_percent: if dice.toss() { 20 } else { 0 },
                refuse_percent: if dice.below(3) == 0 { 20 } else { 0 },
                seed: dice.between(0, i64::MAX).unsigned_abs(),
                delivery_ms: u32::try_from(dice.between(50, 4_000)).unwrap_or(50),
                refund_refuse_percent: if dice.below(4) == 0 { 40 } else { 0 },
                provider: Some(faults(dice)),
                carrier: Some(faults(dice)),
            },
        };
        if plan.is_forgetful() && dice.toss() {
            plan.slack = Duration::from_secs(2);
        }
        plan
    }

    /// Aggregates may leave memory while the world lasts.
    pub fn is_forgetful(&self) -> bool {
        self.horizon == SHORT_HORIZON
    }
}
