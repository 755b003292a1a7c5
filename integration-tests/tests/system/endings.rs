//! The outcomes of an order that `lifecycle` does not cover: cancelled in each step, undeliverable, expired.

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
fn an_order_is_cancelled_before_anything_is_reserved() {
    let mut system = System::new();
    for service in SERVICES {
        if service != "inventory" {
            system.start(service);
        }
    }
    for service in SERVICES {
        if service != "inventory" {
            system.wait_until_ready(service);
        }
    }
    // Inventory is down: its commands wait in the log.
    let placed = place_mugs(&system, 2);
    assert_eq!(placed.status(), OrderStatus::Pending);
    let cancelling = system.cancel(&placed.order_id).unwrap();
    assert_eq!(cancelling.status(), OrderStatus::Cancelling);
    assert!(cancelling.version > placed.version);
    system.start_until_ready("inventory");
    let order = system.wait_for_status(&placed.order_id, OrderStatus::Cancelled);
    assert_eq!(
        (order.end_reason(), order.refunded),
        (EndReason::Customer, 0)
    );
    system.audit_at_rest(None);
}

#[test]
fn an_order_cancelled_during_a_provider_outage_is_not_charged() {
    let system = start_system();
    system.behave(PROVIDER_OUTAGE);
    let placed = place_mugs(&system, 2);
    system.wait_for_status(&placed.order_id, OrderStatus::AwaitingPayment);

    let unknown = Uuid::now_v7().to_string();
    for (order_id, customer) in [(&placed.order_id, "eve"), (&unknown, "ada")] {
        let refused = system.cancel_as(customer, order_id).unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "{refused}");
    }
    let first = system.cancel(&placed.order_id).unwrap();
    let repeated = system.cancel(&placed.order_id).unwrap();
    assert_eq!(
        (first.status(), repeated.status()),
        (OrderStatus::Cancelling, OrderStatus::Cancelling)
    );

    system.behave(FAULTLESS);
    let order = system.wait_for_status(&placed.order_id, OrderStatus::Cancelled);
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
    assert_stock_untouched(&system);
    system.audit_at_rest(None);
}

#[test]
fn an_order_cancelled_after_a_charge_with_a_lost_answer_is_refunded() {
    let system = start_system();
    system.behave(Behaviour {
        provider: Some(Faults {
            reply_lost_percent: 100,
            // Lookups are slow as well; otherwise the charge would be found before the customer cancels.
            slow_percent: 100,
            slow_ms: 400,
            ..Faults::default()
        }),
        ..FAULTLESS
    });
    let placed = place_mugs(&system, 2);
    system.wait_for_status(&placed.order_id, OrderStatus::AwaitingPayment);
    system.cancel(&placed.order_id).unwrap();
    system.behave(FAULTLESS);
    let order = system.wait_for_status(&placed.order_id, OrderStatus::Cancelled);
    assert!(
        [0, placed_total(2)].contains(&order.refunded),
        "void, or charged and fully refunded: {}",
        order.refunded
    );
    assert_stock_untouched(&system);
    system.audit_at_rest(None);
}

#[test]
fn an_order_is_cancelled_between_payment_and_booking() {
    let system = start_system();
    // The booking reaches the carrier late, and finds its key void.
    system.behave(Behaviour {
        carrier: Some(Faults {
            slow_percent: 100,
            slow_ms: 8_000,
            ..Faults::default()
        }),
        ..FAULTLESS
    });
    let placed = place_mugs(&system, 2);
    system.wait_for_status(&placed.order_id, OrderStatus::Confirmed);
    let answer = system.cancel(&placed.order_id).unwrap();
    assert_eq!(answer.status(), OrderStatus::Cancelling);
    // Later requests are not delayed.
    system.behave(FAULTLESS);
    let order = system.wait_for_status(&placed.order_id, OrderStatus::Cancelled);
    assert_eq!(
        (order.end_reason(), order.refunded),
        (EndReason::Customer, placed_total(2))
    );
    assert_stock_untouched(&system);
    system.audit_at_rest(None);
}

#[test]
fn shipping_decides_the_race_with_a_cancellation() {
    let system = start_system();
    let orders: Vec<_> = (0..40).map(|_| place_mugs(&system, 1).order_id).collect();
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
    system.audit_at_rest(None);
}

#[test]
fn a_shipped_order_cannot_be_cancelled() {
    let system = start_system();
    system.behave(Behaviour {
        delivery_ms: 1_500,
        ..FAULTLESS
    });
    let placed = place_mugs(&system, 1);
    system.wait_for_status(&placed.order_id, OrderStatus::Shipped);
    let on_its_way = system.cancel(&placed.order_id).unwrap_err();
    system.wait_for_status(&placed.order_id, OrderStatus::Delivered);
    let delivered = system.cancel(&placed.order_id).unwrap_err();
    let nothing = system.place(order_of(&[("unicorn", 1)])).unwrap();
    system.wait_for_status(&nothing.order_id, OrderStatus::Rejected);
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
    system.audit_at_rest(None);
}

#[test]
fn an_undeliverable_order_is_rejected() {
    let system = start_system();
    system.behave(Behaviour {
        refuse_percent: 100,
        ..FAULTLESS
    });
    let placed = place_mugs(&system, 3);
    let order = system.wait_for_status(&placed.order_id, OrderStatus::Rejected);
    assert_eq!(
        (order.end_reason(), order.refunded),
        (EndReason::Undeliverable, placed_total(3))
    );
    assert_stock_untouched(&system);
    system.audit_at_rest(None);
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
        system.wait_until_ready(service);
    }
    system.stock("mug", 10);

    // No answer from inventory.
    system.kill("inventory");
    let pending = place_mugs(&system, 1);
    system.wait_for_status(&pending.order_id, OrderStatus::Cancelling);
    system.start_until_ready("inventory");
    let order = system.wait_for_status(&pending.order_id, OrderStatus::Rejected);
    assert_eq!(
        (order.end_reason(), order.refunded),
        (EndReason::Expired, 0)
    );

    // No answer from the provider.
    system.behave(PROVIDER_OUTAGE);
    let unpaid = place_mugs(&system, 1);
    system.wait_for_status(&unpaid.order_id, OrderStatus::Cancelling);
    system.behave(FAULTLESS);
    let order = system.wait_for_status(&unpaid.order_id, OrderStatus::Rejected);
    assert_eq!(
        (order.end_reason(), order.refunded),
        (EndReason::Expired, 0)
    );

    // No answer from the carrier: shipping is asked to decide.
    system.behave(CARRIER_OUTAGE);
    let unsent = place_mugs(&system, 1);
    system.wait_for_status(&unsent.order_id, OrderStatus::Cancelling);
    system.behave(FAULTLESS);
    let order = system.wait_for_status(&unsent.order_id, OrderStatus::Rejected);
    assert_eq!(
        (order.end_reason(), order.refunded),
        (EndReason::Expired, placed_total(1))
    );
    assert_stock_untouched(&system);

    // No time-out undoes what has been shipped.
    system.behave(Behaviour {
        delivery_ms: 4_000,
        ..FAULTLESS
    });
    let slow = place_mugs(&system, 1);
    let late = eventually("the order is flagged as late", || {
        system
            .order(&slow.order_id, 0)
            .ok()
            .filter(|order| order.late)
    });
    assert_eq!(late.status(), OrderStatus::Shipped);
    let order = system.wait_for_status(&slow.order_id, OrderStatus::Delivered);
    assert_eq!((order.late, order.refunded), (true, 0));
    system.audit_at_rest(None);
}

/// A system in one process with mugs in stock.
fn start_system() -> System {
    let mut system = System::new();
    system.start_until_ready("all");
    system.behave(FAULTLESS);
    system.stock("mug", 100);
    system
}

fn place_mugs(system: &System, pieces: u32) -> PlaceOrderResponse {
    system.place(order_of(&[("mug", pieces)])).unwrap()
}

/// Total of this many mugs, minor units.
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

fn assert_stock_untouched(system: &System) {
    eventually("every mug is back in stock", || {
        let mug = system.stock_of("mug");
        (mug.reserved == 0 && mug.deducted == 0 && mug.available == mug.on_hand).then_some(())
    });
}
