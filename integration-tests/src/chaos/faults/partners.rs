//! The payment provider.

use std::time::Duration;

use contracts::sandbox::v1::{Behaviour, Faults};

use crate::chaos::ChaosRig;
use crate::eventually::eventually;
use crate::system::FAULTLESS;

const UNANSWERED: [&str; 2] = [
    "ordermesh_engine_effects_total{result=\"unknown\",service=\"payments\"",
    "ordermesh_engine_effects_total{result=\"timed_out\",service=\"payments\"",
];
/// What orders without a payment may lose to those that wait for theirs.
const SLOWER: f64 = 1.2;
/// The machine itself may be slow for once; what waits for the provider does so each time.
const TRIES: usize = 3;
/// Below this, times are those of the machine.
const NOISE_MS: f64 = 15.0;

/// Charges wait, fail, are repeated, and are never done twice. Orders that need no payment do not notice.
pub fn provider(ground: &mut ChaosRig) {
    ground.lasts(ground.form.seconds(6, 30));
    let phases = [
        (
            "is away",
            Faults {
                outage: true,
                ..Faults::default()
            },
            ground.form.seconds(8, 60),
        ),
        (
            "fails",
            Faults {
                error_percent: 10,
                ..Faults::default()
            },
            ground.form.seconds(4, 30),
        ),
        (
            "loses replies",
            Faults {
                reply_lost_percent: 10,
                ..Faults::default()
            },
            ground.form.seconds(4, 30),
        ),
        (
            "hangs",
            Faults {
                hang_percent: 100,
                ..Faults::default()
            },
            ground.form.seconds(8, 30),
        ),
    ];
    for (what, faults, lasting) in phases {
        let slowed = (0..TRIES).all(|_| is_slowed(ground, what, faults, lasting));
        assert!(
            !slowed,
            "the provider {what}, and orders without a payment wait for it"
        );
    }
}

/// Lets the provider fail for a while; whether orders that do not need it took longer than before and after.
fn is_slowed(ground: &ChaosRig, what: &str, faults: Faults, lasting: Duration) -> bool {
    let behave = |faults| {
        ground.system.behave(Behaviour {
            decline_percent: 5,
            provider: Some(faults),
            ..FAULTLESS
        });
    };
    let unanswered = || -> f64 {
        let names = ["payments-1", "payments-2"];
        let figures = names
            .iter()
            .flat_map(|name| UNANSWERED.map(|sample| ground.figure(name, sample)));
        figures.sum()
    };
    let (felt, usual) = (unanswered(), ground.free_orders_ms());
    behave(faults);
    ground.lasts(lasting);
    let during = ground.free_orders_ms();
    eventually(&format!("the provider {what}, and it is felt"), || {
        (unanswered() > felt).then_some(())
    });
    behave(Faults::default());
    ground.progress(&format!("the provider {what}"), "payments");
    ground.lasts(ground.form.seconds(5, 20));
    let usual = usual.max(ground.free_orders_ms());
    println!(
        "the provider {what}: orders without a payment take {during:.0} ms, otherwise {usual:.0} ms"
    );
    during > (usual * SLOWER).max(usual + NOISE_MS)
}

impl ChaosRig {
    /// Median time from created to confirmed of the last orders that needed no payment, milliseconds.
    fn free_orders_ms(&self) -> f64 {
        let sql = "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY took) FROM (
                 SELECT extract(epoch FROM confirmed_at - placed_at) * 1000 AS took
                   FROM read_v1.orders
                  WHERE total = 0 AND confirmed_at IS NOT NULL
                  ORDER BY placed_at DESC LIMIT 60) AS latest";
        let rows = self.query(sql);
        rows.first()
            .and_then(|row| row.parse().ok())
            .unwrap_or_else(|| panic!("no order without a payment is confirmed: {rows:?}"))
    }
}
