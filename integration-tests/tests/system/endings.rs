//! Every way an order can end besides the plain ones of `life`: cancelled in each step, undeliverable, expired.

use contracts::orders::v1::{EndReason, OrderStatus, PlaceOrderResponse};
use contracts::query::v1::OrderView;
use contracts::sandbox::v1::{Behaviour, Faults};
use harness::eventually;
use harness::system::{FAULTLESS, OUTAGE, PROVIDER_OUTAGE, SERVICES, System, order_of};
use tonic::Code;
use uuid::Uuid;

const CARRIER_OUTAGE: Behaviour = Behaviour {
    carrier: Some(OUTAGE),
    ..FAULTLESS
};

#[test]
fn cancelled_before_anything_is_reserved() {
    let mut system = System::new();
    for service in SERVICES {
        if service != "inventory" {
            system.start(service);
        }
    }
    for service in SERVICES {
        if service != "inventory" {
            system.ready(service);
        }
    }
    // Inventory is away: its commands wait in the log.
    let placed = mugs(&system, 2);
    assert_eq!(placed.status(), OrderStatus::Pending);
    let cancelling = system.cancel(&placed.order_id).unwrap();
    assert_eq!(cancelling.status(), OrderStatus::Cancelling);
    assert!(cancelling.version > placed.version);
    system.up("inventory");
    let order = system.reaches(&placed.order_id, OrderStatus::Cancelled);
    assert_eq!(
        (order.end_reason(), order.refunded),
        (EndReason::Customer, 0)
    );
    system.check(None);
}

#[test]
fn cancelled_while_the_provider_is_away_and_nothing_is_charged() {
    let system = running();
    system.behave(PROVIDER_OUTAGE);
    let placed = mugs(&system, 2);
    system.reaches(&placed.order_id, OrderStatus::AwaitingPayment);

    let unknown = Uuid::now_v7().to_string();
    for (order_id, customer) in [(&placed.order_id, "eve"), (&unknown, "ada")] {
        let refused = system.cancel_as(customer, order_id).unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "{refused}");
    }
    let first = system.cancel(&placed.order_id).unwrap();
    let again = system.cancel(&placed.order_id).unwrap();
    assert_eq!(
        (first.status(), again.status()),
        (OrderStatus::Cancelling, OrderStatus::Cancelling)
    );

    system.behave(FAULTLESS);
    let order = system.reaches(&placed.order_id, OrderStatus::Cancelled);
    assert_eq!(
        (order.end_reason(), order.refunded),
        (EndReason::Customer, 0)
    );
    let after = system.cancel(&placed.order_id).unwrap();
    assert_eq!(
        (after.status(), after.version),
        (OrderStatus::Cancelled, order.version),
        "the same answer, and no event"
    );
    nothing_left_the_shelf(&system);
    system.check(None);
}

#[test]
fn cancelled_when_the_charge_was_carried_out_but_its_answer_was_lost() {
    let system = running();
    system.behave(Behaviour {
        provider: Some(Faults {
            reply_lost_percent: 100,
            // Look-ups are slow as well, or the charge would be found before the customer cancels.
            slow_percent: 100,
            slow_ms: 400,
            ..Faults::default()
        }),
        ..FAULTLESS
    });
    let placed = mugs(&system, 2);
    system.reaches(&placed.order_id, OrderStatus::AwaitingPayment);
    system.cancel(&placed.order_id).unwrap();
    system.behave(FAULTLESS);
    let order = system.reaches(&placed.order_id, OrderStatus::Cancelled);
    assert!(
        [0, placed_total(2)].contains(&order.refunded),
        "void, or charged and given back whole: {}",
        order.refunded
    );
    nothing_left_the_shelf(&system);
    system.check(None);
}

#[test]
fn cancelled_after_payment_before_the_carrier_has_the_parcel() {
    let system = running();
    // The booking is late on its way to the carrier, and finds its key void.
    system.behave(Behaviour {
        carrier: Some(Faults {
            slow_percent: 100,
            slow_ms: 8_000,
            ..Faults::default()
        }),
        ..FAULTLESS
    });
    let placed = mugs(&system, 2);
    system.reaches(&placed.order_id, OrderStatus::Confirmed);
    let answer = system.cancel(&placed.order_id).unwrap();
    assert_eq!(answer.status(), OrderStatus::Cancelling);
    // What is asked again from now on is not late.
    system.behave(FAULTLESS);
    let order = system.reaches(&placed.order_id, OrderStatus::Cancelled);
    assert_eq!(
        (order.end_reason(), order.refunded),
        (EndReason::Customer, placed_total(2))
    );
    nothing_left_the_shelf(&system);
    system.check(None);
}

#[test]
fn shipping_decides_the_race_with_a_cancellation() {
    let system = running();
    let orders: Vec<_> = (0..40).map(|_| mugs(&system, 1).order_id).collect();
    let accepted = orders
        .iter()
        .filter(|order_id| system.cancel(order_id).is_ok())
        .count();
    let ended: Vec<_> = orders
        .iter()
        .map(|order_id| ends(&system, order_id))
        .collect();
    let cancelled = ended
        .iter()
        .filter(|order| order.status() == OrderStatus::Cancelled)
        .count();
    assert!(cancelled <= accepted, "{cancelled} of {accepted}");
    for order in &ended {
        let is_right = match order.status() {
            OrderStatus::Delivered => order.refunded == 0,
            OrderStatus::Cancelled => [0, placed_total(1)].contains(&order.refunded),
            _ => false,
        };
        assert!(is_right, "{order:?}");
    }
    system.check(None);
}

#[test]
fn too_late_to_cancel() {
    let system = running();
    system.behave(Behaviour {
        delivery_ms: 1_500,
        ..FAULTLESS
    });
    let placed = mugs(&system, 1);
    system.reaches(&placed.order_id, OrderStatus::Shipped);
    let on_its_way = system.cancel(&placed.order_id).unwrap_err();
    system.reaches(&placed.order_id, OrderStatus::Delivered);
    let delivered = system.cancel(&placed.order_id).unwrap_err();
    let nothing = system.place(order_of(&[("unicorn", 1)])).unwrap();
    system.reaches(&nothing.order_id, OrderStatus::Rejected);
    let rejected = system.cancel(&nothing.order_id).unwrap_err();
    for (refused, status) in [
        (on_its_way, "shipped"),
        (delivered, "delivered"),
        (rejected, "rejected"),
    ] {
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains(status), "{refused}");
        let details = String::from_utf8_lossy(refused.details()).into_owned();
        assert!(details.contains("TOO_LATE"), "{details}");
    }
    system.check(None);
}

#[test]
fn undeliverable() {
    let system = running();
    system.behave(Behaviour {
        refuse_percent: 100,
        ..FAULTLESS
    });
    let placed = mugs(&system, 3);
    let order = system.reaches(&placed.order_id, OrderStatus::Rejected);
    assert_eq!(
        (order.end_reason(), order.refunded),
        (EndReason::Undeliverable, placed_total(3))
    );
    nothing_left_the_shelf(&system);
    system.check(None);
}

#[test]
fn every_waiting_step_expires_by_its_own_rule() {
    let mut system = System::new();
    for wait in [
        "ORDERMESH_ORDERS_STOCK_WAIT_MS",
        "ORDERMESH_ORDERS_PAYMENT_WAIT_MS",
        "ORDERMESH_ORDERS_SHIPPING_WAIT_MS",
        "ORDERMESH_ORDERS_DELIVERY_WAIT_MS",
    ] {
        system.set(wait, "1500");
    }
    for service in SERVICES {
        system.start(service);
    }
    for service in SERVICES {
        system.ready(service);
    }
    system.stock("mug", 10);

    // No answer from inventory.
    system.kill("inventory");
    let pending = mugs(&system, 1);
    system.reaches(&pending.order_id, OrderStatus::Cancelling);
    system.up("inventory");
    let order = system.reaches(&pending.order_id, OrderStatus::Rejected);
    assert_eq!(
        (order.end_reason(), order.refunded),
        (EndReason::Expired, 0)
    );

    // No answer from the provider.
    system.behave(PROVIDER_OUTAGE);
    let unpaid = mugs(&system, 1);
    system.reaches(&unpaid.order_id, OrderStatus::Cancelling);
    system.behave(FAULTLESS);
    let order = system.reaches(&unpaid.order_id, OrderStatus::Rejected);
    assert_eq!(
        (order.end_reason(), order.refunded),
        (EndReason::Expired, 0)
    );

    // No answer from the carrier: shipping is asked for its verdict.
    system.behave(CARRIER_OUTAGE);
    let unsent = mugs(&system, 1);
    system.reaches(&unsent.order_id, OrderStatus::Cancelling);
    system.behave(FAULTLESS);
    let order = system.reaches(&unsent.order_id, OrderStatus::Rejected);
    assert_eq!(
        (order.end_reason(), order.refunded),
        (EndReason::Expired, placed_total(1))
    );
    nothing_left_the_shelf(&system);

    // Nothing that has been shipped is undone by a clock.
    system.behave(Behaviour {
        delivery_ms: 4_000,
        ..FAULTLESS
    });
    let slow = mugs(&system, 1);
    let late = eventually("the order is flagged as late", || {
        system
            .order(&slow.order_id, 0)
            .ok()
            .filter(|order| order.late)
    });
    assert_eq!(late.status(), OrderStatus::Shipped);
    let order = system.reaches(&slow.order_id, OrderStatus::Delivered);
    assert_eq!((order.late, order.refunded), (true, 0));
    system.check(None);
}

/// A system in one process with mugs on the shelf.
fn running() -> System {
    let mut system = System::new();
    system.up("all");
    system.behave(FAULTLESS);
    system.stock("mug", 100);
    system
}

fn mugs(system: &System, pieces: u32) -> PlaceOrderResponse {
    system.place(order_of(&[("mug", pieces)])).unwrap()
}

/// What so many mugs cost, minor units.
fn placed_total(pieces: u32) -> i64 {
    i64::from(pieces) * 150
}

fn ends(system: &System, order_id: &str) -> OrderView {
    eventually(&format!("{order_id} ends"), || {
        system.order(order_id, 0).ok().filter(|order| {
            matches!(
                order.status(),
                OrderStatus::Delivered | OrderStatus::Cancelled | OrderStatus::Rejected
            )
        })
    })
}

fn nothing_left_the_shelf(system: &System) {
    eventually("every mug is back on the shelf", || {
        let mug = system.stock_of("mug");
        (mug.reserved == 0 && mug.deducted == 0 && mug.available == mug.on_hand).then_some(())
    });
}
