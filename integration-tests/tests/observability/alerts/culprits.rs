//! The faults that every system meets: the alert names the culprit, and what follows from it is silent.

use contracts::orders::v1::OrderStatus;
use contracts::sandbox::v1::{Behaviour, Faults};
use contracts::{Service, Topic};
use harness::servers;
use harness::system::{FAULTLESS, System};

use super::{place, start, topic, watched, write};

#[test]
fn a_service_that_is_killed_is_named_and_its_absence_is_silent() {
    let Some((mut system, alerts)) = watched(System::new(), 10) else {
        return;
    };
    let placed = place(&system);
    system.reaches(&placed, OrderStatus::Delivered);
    system.kill("inventory");
    let down = [("service", "inventory"), ("instance", "inventory:9464")];
    let notice = alerts.arrives("ServiceDown", &down);
    assert_eq!(notice.receiver, "on-call");
    let summary = &notice.annotations["summary"];
    assert_eq!(summary, "inventory:9464 does not answer");
    alerts.is_silent("ConsumerAbsent", &[("group", "inventory")]);
    let heard: Vec<_> = alerts.heard().into_iter().collect();
    assert_eq!(heard, ["ServiceDown"]);
    start(&mut system, &alerts, "inventory");
    alerts.clears("ServiceDown", &down);
}

#[test]
fn a_partner_that_is_gone_is_named_and_so_is_who_is_sent_garbage() {
    let Some((system, alerts)) = watched(System::new(), 20) else {
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
    let notice = alerts.arrives("EffectTargetDown", &provider);
    assert_eq!(notice.receiver, "on-call");
    system.behave(FAULTLESS);
    for order_id in &waiting {
        system.reaches(order_id, OrderStatus::Delivered);
    }
    alerts.clears("EffectTargetDown", &provider);

    let commands = topic(&system, Service::Inventory, Topic::Commands);
    write(&system, &commands, "garbage");
    let garbage = [("service", "inventory"), ("class", "unframed")];
    let notice = alerts.arrives("DeadLetters", &garbage);
    assert_eq!(notice.receiver, "tickets");
    alerts.clears("DeadLetters", &garbage);
}

#[test]
fn a_part_of_the_stack_that_stops_is_named_and_nothing_else() {
    let alone = servers::alone();
    let Some((system, alerts)) = watched(System::alone(&alone), 10) else {
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
        let before = alerts.heard();
        let stopped = Stopped::stop(&alone, part);
        let notice = alerts.arrives(alert, &[]);
        assert_eq!(notice.receiver, "on-call");
        if let Some((consequence, label)) = consequence {
            alerts.is_silent(consequence, &[label]);
        }
        let heard = alerts.heard();
        let news: Vec<_> = heard.difference(&before).collect();
        assert_eq!(news, [alert]);
        drop(stopped);
        alerts.clears(alert, &[]);
    }
    let placed = place(&system);
    system.reaches(&placed, OrderStatus::Delivered);
}

/// A part of the stack that is started again when this is dropped, also by a failure: others need it.
struct Stopped<'a> {
    alone: &'a servers::Alone,
    part: &'static str,
}

impl<'a> Stopped<'a> {
    fn stop(alone: &'a servers::Alone, part: &'static str) -> Self {
        alone.stack(["stop", part]);
        Self { alone, part }
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.alone.stack(["start", self.part]);
    }
}
