//! What is promised.

use contracts::orders::v1::{OrderStatus, PlaceOrderRequest, PlaceOrderWait};
use contracts::sandbox::v1::{Behaviour, Faults};
use harness::eventually;
use harness::system::{FAULTLESS, System, free_port, order_of};

use super::{place, start, watched_at_length};

#[test]
fn orders_and_calls_that_are_late_are_told_of_fast_and_slowly() {
    let Some((system, alerts)) = watched_at_length(60) else {
        return;
    };
    system.behave(Behaviour {
        provider: Some(Faults {
            slow_percent: 100,
            slow_ms: 1_500,
            ..Faults::default()
        }),
        ..FAULTLESS
    });
    let (orders, calls) = ([("objective", "orders")], [("objective", "calls")]);
    eventually("the budgets burn", || {
        place_and_wait(&system);
        let burns = |objective: &[_]| alerts.fires("LatencyBudgetBurnFast", objective);
        (burns(&orders) && burns(&calls)).then_some(())
    });
    eventually("the fast burn speaks for the slow one", || {
        place_and_wait(&system);
        let is_silent = alerts.fires_silently("LatencyBudgetBurnSlow", &orders);
        is_silent.then_some(())
    });
    system.behave(FAULTLESS);
    eventually("the fast burn is over", || {
        let placed = place(&system);
        system.reaches(&placed, OrderStatus::Confirmed);
        (!alerts.fires("LatencyBudgetBurnFast", &orders)).then_some(())
    });
    let notice = alerts.arrives("LatencyBudgetBurnSlow", &orders);
    assert_eq!(notice.receiver, "tickets");
    for objective in [&orders, &calls] {
        alerts.clears("LatencyBudgetBurnFast", objective);
    }
    alerts.clears("LatencyBudgetBurnSlow", &orders);
}

fn place_and_wait(system: &System) {
    let order = PlaceOrderRequest {
        wait: PlaceOrderWait::Confirmed.into(),
        ..order_of(&[("mug", 1)])
    };
    system.place(order).unwrap();
}

#[test]
fn calls_that_fail_are_told_of() {
    let Some((mut system, alerts)) = watched_at_length(20) else {
        return;
    };
    let placed = place(&system);
    system.reaches(&placed, OrderStatus::Delivered);
    system.kill("gateway");
    let nowhere = [("ORDERMESH_QUERY", free_port().to_string())];
    system.start_as("gateway", "gateway", &nowhere);
    system.ready("gateway");
    alerts.follow(&system);
    let gateway = [("server", "gateway")];
    eventually("reads fail for long enough", || {
        assert!(system.order(&placed, 0).is_err());
        alerts.fires("ErrorSpike", &gateway).then_some(())
    });
    system.kill("gateway");
    start(&mut system, &alerts, "gateway");
    eventually("reads pass again", || {
        system.order(&placed, 0).unwrap();
        (!alerts.fires("ErrorSpike", &gateway)).then_some(())
    });
    alerts.clears("ErrorSpike", &gateway);
}
