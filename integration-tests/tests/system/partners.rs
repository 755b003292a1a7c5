//! A payment provider and a carrier that fail, and processes that end while they wait for them.

use std::process::Command;
use std::time::{Duration, Instant};

use contracts::orders::v1::{EndReason, OrderStatus};
use contracts::sandbox::v1::{Behaviour, Faults, LedgerPayment};
use contracts::shipping::v1::ShipmentStatus;
use harness::eventually;
use harness::system::{FAULTLESS, SERVICES, System, order_of};

use super::faults::{acknowledged, finish, load};

const BREAKER: &str =
    "ordermesh_engine_breaker_state{service=\"payments\",target=\"payment-provider\"} ";
const OLDEST: &str =
    "ordermesh_engine_effects_oldest_seconds{service=\"payments\",target=\"payment-provider\"} ";

/// Every service in a process of its own, and some mugs on the shelf.
fn running(set: impl FnOnce(&mut System)) -> System {
    let mut system = System::new();
    set(&mut system);
    for service in SERVICES {
        system.start(service);
    }
    for service in SERVICES {
        system.ready(service);
    }
    system.stock("mug", 1_000);
    system
}

fn provider_fails(system: &System, faults: Faults) {
    system.behave(Behaviour {
        provider: Some(faults),
        ..FAULTLESS
    });
}

/// Places an order of mugs and waits until its charge is asked for.
fn awaits_payment(system: &System) -> String {
    let placed = system.place(order_of(&[("mug", 2)])).unwrap();
    system.reaches(&placed.order_id, OrderStatus::AwaitingPayment);
    placed.order_id
}

/// The ledger's entries of one order.
fn entries(system: &System, order_id: &str) -> Vec<LedgerPayment> {
    let mut ledger = system.ledger();
    ledger.retain(|entry| entry.idempotency_key.starts_with(order_id));
    ledger
}

fn kinds(system: &System, order_id: &str) -> Vec<String> {
    let entries = entries(system, order_id);
    entries.into_iter().map(|entry| entry.kind).collect()
}

#[test]
fn killed_between_a_charge_and_its_lost_answer_an_order_is_charged_once() {
    let mut system = running(|_| {});
    provider_fails(
        &system,
        Faults {
            reply_lost_percent: 100,
            // The look-up that would find the charge comes late as well.
            slow_percent: 100,
            slow_ms: 3_000,
            ..Faults::default()
        },
    );
    let order_id = awaits_payment(&system);
    eventually("the order is charged", || {
        (kinds(&system, &order_id) == ["charged"]).then_some(())
    });
    system.kill("payments");
    system.behave(FAULTLESS);
    system.up("payments");
    system.reaches(&order_id, OrderStatus::Delivered);
    assert_eq!(kinds(&system, &order_id), ["charged"]);
    system.check(None);
}

#[test]
fn in_an_outage_orders_wait_for_their_payment_and_everything_else_goes_on() {
    const OUTAGE: Duration = Duration::from_secs(20);
    let system = running(|_| {});
    system.stock("sample", 1_000);
    let paid = system.place(order_of(&[("mug", 1)])).unwrap().order_id;
    system.reaches(&paid, OrderStatus::Delivered);
    assert_eq!(system.figure("payments", BREAKER), Some(0.0));

    let begun = Instant::now();
    provider_fails(
        &system,
        Faults {
            outage: true,
            ..Faults::default()
        },
    );
    let waiting: Vec<_> = (0..20).map(|_| awaits_payment(&system)).collect();
    eventually("the breaker is open", || {
        (system.figure("payments", BREAKER) == Some(2.0)).then_some(())
    });
    let mut received = 1_000;
    while begun.elapsed() < OUTAGE {
        let mut free = order_of(&[("sample", 1)]);
        free.lines[0].unit_price = 0;
        let free = system.place(free).unwrap();
        system.reaches(&free.order_id, OrderStatus::Delivered);
        received += 5;
        system.stock("mug", 5);
        eventually("the adjusted stock is read", || {
            (system.stock_of("mug").received == received).then_some(())
        });
    }
    assert!(
        received > 1_000,
        "the outage left no time for anything else"
    );
    // A probe may be under way.
    assert!(system.figure("payments", BREAKER) >= Some(1.0));
    assert!(system.figure("payments", OLDEST) > Some(0.0));
    for order_id in &waiting {
        let order = system.order(order_id, 0).unwrap();
        assert_eq!(order.status(), OrderStatus::AwaitingPayment);
    }
    let charged = system.ledger();
    assert_eq!(charged.len(), 1, "{charged:?}");

    system.behave(FAULTLESS);
    for order_id in &waiting {
        system.reaches(order_id, OrderStatus::Delivered);
    }
    assert_eq!(system.figure("payments", BREAKER), Some(0.0));
    eventually("nothing is awaited", || {
        (system.figure("payments", OLDEST) == Some(0.0)).then_some(())
    });
    system.check(None);
}

/// How long the network holds a charge up: time for a replacement to take over.
const HELD_UP: Duration = Duration::from_secs(20);

#[test]
fn a_late_charge_of_a_killed_owner_is_refused() {
    let mut system = running(|_| {});
    let late = late_charge(&system);
    system.kill("payments");
    cancel_in_time(&system, &late);
    system.up("payments");
    is_voided(&system, &late);
    arrives_in_vain(&system, &late);
    system.check(None);
}

#[test]
fn a_late_charge_of_a_frozen_owner_is_refused_also_when_it_thaws() {
    let mut system = running(|_| {});
    let late = late_charge(&system);
    system.freeze("payments");
    cancel_in_time(&system, &late);
    let same = [("ORDERMESH_INSTANCE", "payments".to_owned())];
    system.start_as("replacement", "payments", &same);
    system.ready("replacement");
    is_voided(&system, &late);
    // It may ask once more before it learns that it has been replaced.
    system.thaw("payments");
    assert!(!system.ended("payments").success());
    arrives_in_vain(&system, &late);
    system.ready("replacement");
    system.check(None);
}

/// A charge that the network holds up.
struct LateCharge {
    order_id: String,
    /// The provider has it by then.
    arrives: Instant,
}

fn late_charge(system: &System) -> LateCharge {
    provider_fails(
        system,
        Faults {
            slow_percent: 100,
            slow_ms: u32::try_from(HELD_UP.as_millis()).unwrap(),
            ..Faults::default()
        },
    );
    let order_id = awaits_payment(system);
    eventually("the charge is on its way", || {
        let in_flight = "ordermesh_rpc_in_flight{server=\"sandbox\"} ";
        (system.figure("sandbox", in_flight) == Some(1.0)).then_some(())
    });
    LateCharge {
        order_id,
        arrives: Instant::now() + HELD_UP,
    }
}

/// The customer cancels, and whatever is asked of the provider from now on is not held up.
fn cancel_in_time(system: &System, late: &LateCharge) {
    let cancelling = system.cancel(&late.order_id).unwrap();
    assert_eq!(cancelling.status(), OrderStatus::Cancelling);
    system.behave(FAULTLESS);
}

fn is_voided(system: &System, late: &LateCharge) {
    let order = system.reaches(&late.order_id, OrderStatus::Cancelled);
    assert_eq!(order.refunded, 0);
    assert_eq!(kinds(system, &late.order_id), ["voided"]);
}

/// Reads the ledger until the charge has come, and a little longer.
fn arrives_in_vain(system: &System, late: &LateCharge) {
    let looked_enough = late.arrives + Duration::from_secs(1);
    eventually("the late charge has come", || {
        let kinds = kinds(system, &late.order_id);
        assert_eq!(kinds, ["voided"], "nothing is taken of a cancelled order");
        (Instant::now() > looked_enough).then_some(())
    });
}

#[test]
fn a_refused_refund_is_asked_for_again_and_given_back_once() {
    let system = running(|system| {
        system.set("ORDERMESH_PAYMENTS_REFUND_WAIT_MS", "200");
    });
    let no_refunds = Behaviour {
        refund_refuse_percent: 100,
        ..FAULTLESS
    };
    // Undeliverable: what was charged is to be given back.
    system.behave(Behaviour {
        refuse_percent: 100,
        ..no_refunds
    });
    let undeliverable = system.place(order_of(&[("mug", 2)])).unwrap().order_id;
    refused_twice(&system, &undeliverable);

    // Cancelled when it was paid for, but not yet with the carrier.
    system.behave(Behaviour {
        carrier: Some(Faults {
            outage: true,
            ..Faults::default()
        }),
        ..no_refunds
    });
    let cancelled = system.place(order_of(&[("mug", 2)])).unwrap().order_id;
    system.reaches(&cancelled, OrderStatus::Confirmed);
    system.cancel(&cancelled).unwrap();
    // Before that, a carrier that is back may still take the parcel.
    eventually("the shipment is to be cancelled", || {
        let status = column(&system, "shipments", "status", &cancelled);
        (status == (ShipmentStatus::Cancelling as i32).to_string()).then_some(())
    });
    system.behave(no_refunds);
    refused_twice(&system, &cancelled);

    system.behave(FAULTLESS);
    for (order_id, status, reason) in [
        (
            &undeliverable,
            OrderStatus::Rejected,
            EndReason::Undeliverable,
        ),
        (&cancelled, OrderStatus::Cancelled, EndReason::Customer),
    ] {
        let order = system.reaches(order_id, status);
        assert_eq!((order.end_reason(), order.refunded), (reason, 300));
        let kinds = kinds(&system, order_id);
        let times = |kind| kinds.iter().filter(|found| *found == kind).count();
        assert_eq!((times("charged"), times("refunded")), (1, 1), "{kinds:?}");
        assert_eq!(
            times("refund_refused"),
            kinds.len() - 2,
            "each attempt has a key of its own: {kinds:?}"
        );
        eventually("somebody should look", || {
            is_flagged(&system, order_id).then_some(())
        });
    }
    system.check(None);
}

fn refused_twice(system: &System, order_id: &str) {
    eventually("two attempts of the refund are refused", || {
        let kinds = kinds(system, order_id);
        let refused = kinds.iter().filter(|kind| *kind == "refund_refused");
        (refused.count() >= 2).then_some(())
    });
    system.reaches(order_id, OrderStatus::Cancelling);
}

/// Whether the read model's payment is flagged; no API shows it.
fn is_flagged(system: &System, order_id: &str) -> bool {
    column(system, "payments", "flagged", order_id) == "t"
}

/// What the read model has of an order in some table; nothing when it has no row of it.
fn column(system: &System, table: &str, column: &str, order_id: &str) -> String {
    let query = format!("SELECT {column} FROM {table} WHERE order_id = '{order_id}'");
    let output = Command::new("psql")
        .args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", &query])
        .arg(system.variable("ORDERMESH_DATABASE"))
        .env("PGOPTIONS", "-c search_path=read_v1")
        .output()
        .expect("psql can be run");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let value = String::from_utf8_lossy(&output.stdout);
    value.trim().to_owned()
}

#[test]
fn the_ledger_survives_when_its_provider_is_killed_in_the_middle_of_a_load() {
    let mut system = running(|system| {
        system.set("ORDERMESH_SANDBOX_DECLINE_PERCENT", "5");
    });
    let mut load = load(&system);
    for orders in [150, 450, 750] {
        acknowledged(&system, orders);
        let before = system.ledger();
        assert!(!before.is_empty());
        system.kill("sandbox");
        system.up("sandbox");
        let after = system.ledger();
        assert_eq!(before, after[..before.len()], "what was listed is kept");
    }
    finish(&system, &mut load);
    system.check(Some(&system.path("journal")));
}

#[test]
fn partners_fail_in_every_way_in_the_middle_of_a_load() {
    let seed = fastrand::u64(..).to_string();
    println!("seed {seed}");
    let mut system = running(|system| {
        for (name, value) in [
            ("ORDERMESH_SANDBOX_SEED", seed.as_str()),
            ("ORDERMESH_SANDBOX_DECLINE_PERCENT", "5"),
            ("ORDERMESH_SANDBOX_REFUSE_PERCENT", "5"),
            ("ORDERMESH_SANDBOX_REFUND_REFUSE_PERCENT", "50"),
            ("ORDERMESH_SANDBOX_PROVIDER_HANG_PERCENT", "1"),
            ("ORDERMESH_SANDBOX_PROVIDER_ERROR_PERCENT", "10"),
            ("ORDERMESH_SANDBOX_PROVIDER_SLOW_PERCENT", "20"),
            ("ORDERMESH_SANDBOX_PROVIDER_SLOW_MS", "300"),
            ("ORDERMESH_SANDBOX_PROVIDER_REPLY_LOST_PERCENT", "30"),
            // None hangs: the look-up of a parcel is given up only after 25 seconds.
            ("ORDERMESH_SANDBOX_CARRIER_ERROR_PERCENT", "10"),
            ("ORDERMESH_SANDBOX_CARRIER_SLOW_PERCENT", "20"),
            ("ORDERMESH_SANDBOX_CARRIER_SLOW_MS", "300"),
            ("ORDERMESH_SANDBOX_CARRIER_REPLY_LOST_PERCENT", "30"),
            // Half of all attempts are refused, and the wait doubles: some orders need ten.
            ("ORDERMESH_PAYMENTS_REFUND_WAIT_MS", "5"),
        ] {
            system.set(name, value);
        }
    });
    let mut load = load(&system);
    for (orders, service) in [(200, "payments"), (400, "shipping"), (600, "sandbox")] {
        acknowledged(&system, orders);
        system.kill(service);
        system.up(service);
    }
    finish(&system, &mut load);
    // Nothing is switched off: retries alone bring every order to its end.
    system.check(Some(&system.path("journal")));
}
