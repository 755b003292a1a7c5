//! Faults of the payment provider.

use std::time::Duration;

use contracts::sandbox::v1::{Behaviour, Faults};

use crate::chaos::ChaosRig;
use crate::eventually::eventually;
use crate::system::FAULTLESS;

const UNCONFIRMED_EFFECTS: [&str; 2] = [
    "ordermesh_engine_effects_total{result=\"unknown\",service=\"payments\"",
    "ordermesh_engine_effects_total{result=\"timed_out\",service=\"payments\"",
];
/// Upper limit of the slowdown of orders without a payment, as a factor.
const MAX_SLOWDOWN: f64 = 1.2;
/// Attempts: a slow machine may exceed the limit once, a real dependency on the provider exceeds it each time.
const TRIES: usize = 3;
/// Differences below this are noise of the machine.
const NOISE_MS: f64 = 15.0;

/// Charges wait, fail and are retried, and are never executed twice. Orders without a payment are not slowed down.
pub fn provider(rig: &mut ChaosRig) {
    rig.hold_fault(rig.scale.seconds(6, 30));
    let phases = [
        (
            "is away",
            Faults {
                outage: true,
                ..Faults::default()
            },
            rig.scale.seconds(8, 60),
        ),
        (
            "fails",
            Faults {
                error_percent: 10,
                ..Faults::default()
            },
            rig.scale.seconds(4, 30),
        ),
        (
            "loses replies",
            Faults {
                reply_lost_percent: 10,
                ..Faults::default()
            },
            rig.scale.seconds(4, 30),
        ),
        (
            "hangs",
            Faults {
                hang_percent: 100,
                ..Faults::default()
            },
            rig.scale.seconds(8, 30),
        ),
    ];
    for (what, faults, lasting) in phases {
        let slowed = (0..TRIES).all(|_| is_slowed(rig, what, faults, lasting));
        assert!(
            !slowed,
            "the provider {what}, and orders without a payment wait for it"
        );
    }
}

/// Makes the provider fail for a while. Returns whether orders without a payment took longer than before and after.
fn is_slowed(rig: &ChaosRig, what: &str, faults: Faults, lasting: Duration) -> bool {
    let behave = |faults| {
        rig.system.behave(Behaviour {
            decline_percent: 5,
            provider: Some(faults),
            ..FAULTLESS
        });
    };
    let unconfirmed_effects = || -> f64 {
        let names = ["payments-1", "payments-2"];
        let counts = names
            .iter()
            .flat_map(|name| UNCONFIRMED_EFFECTS.map(|sample| rig.metric(name, sample)));
        counts.sum()
    };
    let (effects_before, usual) = (unconfirmed_effects(), rig.free_orders_ms());
    behave(faults);
    rig.hold_fault(lasting);
    let during = rig.free_orders_ms();
    eventually(
        &format!("the provider {what}, and effects stay unconfirmed"),
        || (unconfirmed_effects() > effects_before).then_some(()),
    );
    behave(Faults::default());
    rig.wait_for_progress(&format!("the provider {what}"), "payments");
    rig.hold_fault(rig.scale.seconds(5, 20));
    let usual = usual.max(rig.free_orders_ms());
    println!(
        "the provider {what}: orders without a payment take {during:.0} ms, otherwise {usual:.0} ms"
    );
    during > (usual * MAX_SLOWDOWN).max(usual + NOISE_MS)
}

impl ChaosRig {
    /// Median time from placed to confirmed of the latest orders without a payment, milliseconds.
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
