//! Alerts of the service level objectives.

use contracts::orders::v1::{OrderStatus, PlaceOrderRequest, PlaceOrderWait};
use contracts::sandbox::v1::{Behaviour, Faults};
use harness::eventually;
use harness::system::{FAULTLESS, System, free_port, order_of};

use super::{monitored_long, place, start};

#[test]
fn late_orders_and_calls_raise_fast_and_slow_burn_alerts() {
    let Some((system, alerts)) = monitored_long(60) else {
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
        let burns = |objective: &[_]| alerts.is_firing("LatencyBudgetBurnFast", objective);
        (burns(&orders) && burns(&calls)).then_some(())
    });
    eventually("the fast burn inhibits the slow one", || {
        place_and_wait(&system);
        let is_silent = alerts.is_inhibited("LatencyBudgetBurnSlow", &orders);
        is_silent.then_some(())
    });
    system.behave(FAULTLESS);
    eventually("the fast burn is over", || {
        let placed = place(&system);
        system.wait_for_status(&placed, OrderStatus::Confirmed);
        (!alerts.is_firing("LatencyBudgetBurnFast", &orders)).then_some(())
    });
    let notification = alerts.wait_until_firing("LatencyBudgetBurnSlow", &orders);
    assert_eq!(notification.receiver, "tickets");
    for objective in [&orders, &calls] {
        alerts.wait_until_resolved("LatencyBudgetBurnFast", objective);
    }
    alerts.wait_until_resolved("LatencyBudgetBurnSlow", &orders);
}

fn place_and_wait(system: &System) {
    let order = PlaceOrderRequest {
        wait: PlaceOrderWait::Confirmed.into(),
        ..order_of(&[("mug", 1)])
    };
    system.place(order).unwrap();
}

#[test]
fn failing_calls_raise_an_alert() {
    let Some((mut system, alerts)) = monitored_long(20) else {
        return;
    };
    let placed = place(&system);
    system.wait_for_status(&placed, OrderStatus::Delivered);
    system.kill("gateway");
    let nowhere = [("ORDERMESH_QUERY", free_port().to_string())];
    system.start_as("gateway", "gateway", &nowhere);
    system.wait_until_ready("gateway");
    alerts.scrape_processes(&system);
    let gateway = [("server", "gateway")];
    eventually("reads fail for long enough", || {
        assert!(system.order(&placed, 0).is_err());
        alerts.is_firing("ErrorSpike", &gateway).then_some(())
    });
    system.kill("gateway");
    start(&mut system, &alerts, "gateway");
    eventually("reads succeed again", || {
        system.order(&placed, 0).unwrap();
        (!alerts.is_firing("ErrorSpike", &gateway)).then_some(())
    });
    alerts.wait_until_resolved("ErrorSpike", &gateway);
}
