//! The most common faults: the alert names the cause, and alerts about its consequences are inhibited.

use contracts::orders::v1::OrderStatus;
use contracts::sandbox::v1::{Behaviour, Faults};
use contracts::{Service, Topic};
use harness::servers;
use harness::system::{FAULTLESS, System};

use super::{monitored, place, start, topic, write};

#[test]
fn a_killed_service_is_named_and_its_consequences_are_inhibited() {
    let Some((mut system, alerts)) = monitored(System::new(), 10) else {
        return;
    };
    let placed = place(&system);
    system.wait_for_status(&placed, OrderStatus::Delivered);
    system.kill("inventory");
    let down = [("service", "inventory"), ("instance", "inventory:9464")];
    let notification = alerts.wait_until_firing("ServiceDown", &down);
    assert_eq!(notification.receiver, "on-call");
    let summary = &notification.annotations["summary"];
    assert_eq!(summary, "inventory:9464 does not answer");
    alerts.wait_until_inhibited("ConsumerAbsent", &[("group", "inventory")]);
    let notified: Vec<_> = alerts.notified_alerts().into_iter().collect();
    assert_eq!(notified, ["ServiceDown"]);
    start(&mut system, &alerts, "inventory");
    alerts.wait_until_resolved("ServiceDown", &down);
}

#[test]
fn an_unreachable_partner_and_a_receiver_of_garbage_are_named() {
    let Some((system, alerts)) = monitored(System::new(), 20) else {
        return;
    };
    system.behave(Behaviour {
        provider: Some(Faults {
            outage: true,
            ..Faults::default()
        }),
        ..FAULTLESS
    });
    let waiting: Vec<_> = (0..20).map(|_| place(&system)).collect();
    let provider = [("service", "payments"), ("target", "payment-provider")];
    let notification = alerts.wait_until_firing("EffectTargetDown", &provider);
    assert_eq!(notification.receiver, "on-call");
    system.behave(FAULTLESS);
    for order_id in &waiting {
        system.wait_for_status(order_id, OrderStatus::Delivered);
    }
    alerts.wait_until_resolved("EffectTargetDown", &provider);

    let commands = topic(&system, Service::Inventory, Topic::Commands);
    write(&system, &commands, "garbage");
    let garbage = [("service", "inventory"), ("class", "unframed")];
    let notification = alerts.wait_until_firing("DeadLetters", &garbage);
    assert_eq!(notification.receiver, "tickets");
    alerts.wait_until_resolved("DeadLetters", &garbage);
}

#[test]
fn a_stopped_server_is_the_only_one_named() {
    let servers_lock = servers::exclusive();
    let Some((system, alerts)) = monitored(System::exclusive(&servers_lock), 10) else {
        return;
    };
    for (part, alert, consequence) in [
        (
            "postgres",
            "DatabaseDown",
            Some(("ProjectionStalled", ("service", "orders"))),
        ),
        ("registry", "RegistryDown", None),
        (
            "kafka",
            "KafkaDown",
            Some(("WorkerStopped", ("component", "projector"))),
        ),
    ] {
        let before = alerts.notified_alerts();
        let stopped = StoppedServer::stop(&servers_lock, part);
        let notification = alerts.wait_until_firing(alert, &[]);
        assert_eq!(notification.receiver, "on-call");
        if let Some((consequence, label)) = consequence {
            alerts.wait_until_inhibited(consequence, &[label]);
        }
        let notified = alerts.notified_alerts();
        let new_alerts: Vec<_> = notified.difference(&before).collect();
        assert_eq!(new_alerts, [alert]);
        drop(stopped);
        alerts.wait_until_resolved(alert, &[]);
    }
    let placed = place(&system);
    system.wait_for_status(&placed, OrderStatus::Delivered);
}

/// A stopped server of the stack. It is started again when the value is dropped, also after a failure, because other
/// tests need it.
struct StoppedServer<'a> {
    servers_lock: &'a servers::ExclusiveServers,
    part: &'static str,
}

impl<'a> StoppedServer<'a> {
    fn stop(servers_lock: &'a servers::ExclusiveServers, part: &'static str) -> Self {
        servers_lock.stack(["stop", part]);
        Self { servers_lock, part }
    }
}

impl Drop for StoppedServer<'_> {
    fn drop(&mut self) {
        self.servers_lock.stack(["start", self.part]);
    }
}
