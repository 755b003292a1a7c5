//! A payment provider and a carrier that fail, and processes that end while they wait for them.

use std::process::Command;
use std::time::{Duration, Instant};

use contracts::orders::v1::{EndReason, OrderStatus};
use contracts::sandbox::v1::{Behaviour, Faults, LedgerPayment};
use contracts::shipping::v1::ShipmentStatus;
use harness::eventually;
use harness::system::{FAULTLESS, SERVICES, System, order_of};

use harness::basket_load::{load, verify_and_audit, wait_for_acknowledged, wait_for_load};

const BREAKER: &str =
    "ordermesh_engine_breaker_state{service=\"payments\",target=\"payment-provider\"} ";
const OLDEST: &str =
    "ordermesh_engine_effects_oldest_seconds{service=\"payments\",target=\"payment-provider\"} ";

/// One process for each service, and some mugs in stock.
fn start_services(set: impl FnOnce(&mut System)) -> System {
    let mut system = System::new();
    set(&mut system);
    for service in SERVICES {
        system.start(service);
    }
    for service in SERVICES {
        system.wait_until_ready(service);
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

/// Places an order of mugs and waits until its charge is requested.
fn awaits_payment(system: &System) -> String {
    let placed = system.place(order_of(&[("mug", 2)])).unwrap();
    system.wait_for_status(&placed.order_id, OrderStatus::AwaitingPayment);
    placed.order_id
}

/// The ledger entries of one order.
fn entries(system: &System, order_id: &str) -> Vec<LedgerPayment> {
    let mut ledger = system.ledger();
    ledger.retain(|entry| entry.idempotency_key.starts_with(order_id));
    ledger
}

fn entry_kinds(system: &System, order_id: &str) -> Vec<String> {
    let entries = entries(system, order_id);
    entries.into_iter().map(|entry| entry.kind).collect()
}

#[test]
fn killed_between_a_charge_and_its_lost_answer_an_order_is_charged_once() {
    let mut system = start_services(|_| {});
    provider_fails(
        &system,
        Faults {
            reply_lost_percent: 100,
            // The lookup that would find the charge is late as well.
            slow_percent: 100,
            slow_ms: 3_000,
            ..Faults::default()
        },
    );
    let order_id = awaits_payment(&system);
    eventually("the order is charged", || {
        (entry_kinds(&system, &order_id) == ["charged"]).then_some(())
    });
    system.kill("payments");
    system.behave(FAULTLESS);
    system.start_until_ready("payments");
    system.wait_for_status(&order_id, OrderStatus::Delivered);
    assert_eq!(entry_kinds(&system, &order_id), ["charged"]);
    system.audit_at_rest(None);
}

#[test]
fn during_an_outage_orders_wait_for_their_payment_and_everything_else_continues() {
    const OUTAGE: Duration = Duration::from_secs(20);
    let system = start_services(|_| {});
    system.stock("sample", 1_000);
    let paid = system.place(order_of(&[("mug", 1)])).unwrap().order_id;
    system.wait_for_status(&paid, OrderStatus::Delivered);
    assert_eq!(system.metric("payments", BREAKER), Some(0.0));

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
        (system.metric("payments", BREAKER) == Some(2.0)).then_some(())
    });
    let mut received = 1_000;
    while begun.elapsed() < OUTAGE {
        let mut free = order_of(&[("sample", 1)]);
        free.lines[0].unit_price = 0;
        let free = system.place(free).unwrap();
        system.wait_for_status(&free.order_id, OrderStatus::Delivered);
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
    // A probe may be in flight.
    assert!(system.metric("payments", BREAKER) >= Some(1.0));
    assert!(system.metric("payments", OLDEST) > Some(0.0));
    for order_id in &waiting {
        let order = system.order(order_id, 0).unwrap();
        assert_eq!(order.status(), OrderStatus::AwaitingPayment);
    }
    let charged = system.ledger();
    assert_eq!(charged.len(), 1, "{charged:?}");

    system.behave(FAULTLESS);
    for order_id in &waiting {
        system.wait_for_status(order_id, OrderStatus::Delivered);
    }
    assert_eq!(system.metric("payments", BREAKER), Some(0.0));
    eventually("nothing is awaited", || {
        (system.metric("payments", OLDEST) == Some(0.0)).then_some(())
    });
    system.audit_at_rest(None);
}

/// Delay of a charge in the network: long enough for a replacement to take over.
const NETWORK_DELAY: Duration = Duration::from_secs(20);

#[test]
fn a_late_charge_of_a_killed_owner_is_refused() {
    let mut system = start_services(|_| {});
    let late = late_charge(&system);
    system.kill("payments");
    cancel_in_time(&system, &late);
    system.start_until_ready("payments");
    is_voided(&system, &late);
    assert_late_charge_is_refused(&system, &late);
    system.audit_at_rest(None);
}

#[test]
fn a_late_charge_of_a_frozen_owner_is_refused_after_it_thaws() {
    let mut system = start_services(|_| {});
    let late = late_charge(&system);
    system.freeze("payments");
    cancel_in_time(&system, &late);
    let same = [("ORDERMESH_INSTANCE", "payments".to_owned())];
    system.start_as("replacement", "payments", &same);
    system.wait_until_ready("replacement");
    is_voided(&system, &late);
    // It may call once more before it learns that it has been replaced.
    system.thaw("payments");
    assert!(!system.wait_for_exit("payments").success());
    assert_late_charge_is_refused(&system, &late);
    system.wait_until_ready("replacement");
    system.audit_at_rest(None);
}

/// A charge that is delayed in the network.
struct LateCharge {
    order_id: String,
    /// When the provider receives it.
    arrives: Instant,
}

fn late_charge(system: &System) -> LateCharge {
    provider_fails(
        system,
        Faults {
            slow_percent: 100,
            slow_ms: u32::try_from(NETWORK_DELAY.as_millis()).unwrap(),
            ..Faults::default()
        },
    );
    let order_id = awaits_payment(system);
    eventually("the charge is on its way", || {
        let in_flight = "ordermesh_rpc_in_flight{server=\"sandbox\"} ";
        (system.metric("sandbox", in_flight) == Some(1.0)).then_some(())
    });
    LateCharge {
        order_id,
        arrives: Instant::now() + NETWORK_DELAY,
    }
}

/// Cancels the order. Later requests to the provider are not delayed.
fn cancel_in_time(system: &System, late: &LateCharge) {
    let cancelling = system.cancel(&late.order_id).unwrap();
    assert_eq!(cancelling.status(), OrderStatus::Cancelling);
    system.behave(FAULTLESS);
}

fn is_voided(system: &System, late: &LateCharge) {
    let order = system.wait_for_status(&late.order_id, OrderStatus::Cancelled);
    assert_eq!(order.refunded, 0);
    assert_eq!(entry_kinds(system, &late.order_id), ["voided"]);
}

/// Reads the ledger until the charge has arrived, and a little longer.
fn assert_late_charge_is_refused(system: &System, late: &LateCharge) {
    let observed_until = late.arrives + Duration::from_secs(1);
    eventually("the late charge has arrived", || {
        let kinds = entry_kinds(system, &late.order_id);
        assert_eq!(kinds, ["voided"], "nothing is taken of a cancelled order");
        (Instant::now() > observed_until).then_some(())
    });
}

#[test]
fn a_refused_refund_is_retried_and_executed_once() {
    let system = start_services(|system| {
        system.set("ORDERMESH_PAYMENTS_REFUND_WAIT_MS", "200");
    });
    let no_refunds = Behaviour {
        refund_refuse_percent: 100,
        ..FAULTLESS
    };
    // Undeliverable: the charge is to be refunded.
    system.behave(Behaviour {
        refuse_percent: 100,
        ..no_refunds
    });
    let undeliverable = system.place(order_of(&[("mug", 2)])).unwrap().order_id;
    refused_twice(&system, &undeliverable);

    // Cancelled after the payment, before the booking.
    system.behave(Behaviour {
        carrier: Some(Faults {
            outage: true,
            ..Faults::default()
        }),
        ..no_refunds
    });
    let cancelled = system.place(order_of(&[("mug", 2)])).unwrap().order_id;
    system.wait_for_status(&cancelled, OrderStatus::Confirmed);
    system.cancel(&cancelled).unwrap();
    // Before that, a carrier that is back may still accept the parcel.
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
        let order = system.wait_for_status(order_id, status);
        assert_eq!((order.end_reason(), order.refunded), (reason, 300));
        let kinds = entry_kinds(&system, order_id);
        let times = |kind| kinds.iter().filter(|found| *found == kind).count();
        assert_eq!((times("charged"), times("refunded")), (1, 1), "{kinds:?}");
        assert_eq!(
            times("refund_refused"),
            kinds.len() - 2,
            "each attempt has a key of its own: {kinds:?}"
        );
        eventually("the payment is flagged", || {
            is_flagged(&system, order_id).then_some(())
        });
    }
    system.audit_at_rest(None);
}

fn refused_twice(system: &System, order_id: &str) {
    eventually("two attempts of the refund are refused", || {
        let kinds = entry_kinds(system, order_id);
        let refused = kinds.iter().filter(|kind| *kind == "refund_refused");
        (refused.count() >= 2).then_some(())
    });
    system.wait_for_status(order_id, OrderStatus::Cancelling);
}

/// Whether the payment is flagged in the read model; no API returns it.
fn is_flagged(system: &System, order_id: &str) -> bool {
    column(system, "payments", "flagged", order_id) == "t"
}

/// A column of an order's row in the read model; empty without a row.
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
fn the_ledger_survives_a_kill_of_its_provider_during_a_load() {
    let mut system = start_services(|system| {
        system.set("ORDERMESH_SANDBOX_DECLINE_PERCENT", "5");
    });
    let mut load = load(&system);
    for orders in [150, 450, 750] {
        wait_for_acknowledged(&system, orders);
        let before = system.ledger();
        assert!(!before.is_empty());
        system.kill("sandbox");
        system.start_until_ready("sandbox");
        let after = system.ledger();
        assert_eq!(before, after[..before.len()], "what was listed is kept");
    }
    wait_for_load(&system, &mut load);
    verify_and_audit(&system);
}

#[test]
fn partners_fail_in_every_way_during_a_load() {
    let seed = fastrand::u64(..).to_string();
    println!("seed {seed}");
    let mut system = start_services(|system| {
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
            // No hanging calls: the lookup of a parcel times out only after 25 seconds.
            ("ORDERMESH_SANDBOX_CARRIER_ERROR_PERCENT", "10"),
            ("ORDERMESH_SANDBOX_CARRIER_SLOW_PERCENT", "20"),
            ("ORDERMESH_SANDBOX_CARRIER_SLOW_MS", "300"),
            ("ORDERMESH_SANDBOX_CARRIER_REPLY_LOST_PERCENT", "30"),
            // Half of all attempts are refused, and the back-off doubles: some orders need ten.
            ("ORDERMESH_PAYMENTS_REFUND_WAIT_MS", "5"),
        ] {
            system.set(name, value);
        }
    });
    let mut load = load(&system);
    for (orders, service) in [(200, "payments"), (400, "shipping"), (600, "sandbox")] {
        wait_for_acknowledged(&system, orders);
        system.kill(service);
        system.start_until_ready(service);
    }
    wait_for_load(&system, &mut load);
    // The faults stay on: retries alone finish every order.
    verify_and_audit(&system);
}
