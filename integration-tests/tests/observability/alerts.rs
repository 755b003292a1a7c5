//! Every fault is told of by the alert that names it, and by no other; after the repair it is over.
//!
//! The first three tests always run. `ORDERMESH_LONG=1` (`make test-observability`) adds those of all other alerts.

use std::collections::BTreeSet;

use contracts::orders::v1::OrderStatus;
use contracts::sandbox::v1::{Behaviour, Faults};
use contracts::{Service, Topic};
use harness::alerts::Alerts;
use harness::servers;
use harness::system::{FAULTLESS, SERVICES, System, order_of};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::programs;

/// The role that watches the offsets of all groups.
const LAG: &str = "lag";

const PROVIDER_OUTAGE: Behaviour = Behaviour {
    provider: Some(Faults {
        outage: true,
        error_percent: 0,
        hang_percent: 0,
        reply_lost_percent: 0,
        slow_percent: 0,
        slow_ms: 0,
    }),
    ..FAULTLESS
};

/// A system with mugs on the shelf, every service in a process of its own, and somebody who watches over it.
fn watched(mut system: System, factor: u32) -> Option<(System, Alerts)> {
    let programs = programs("alerts")?;
    let names: Vec<_> = SERVICES.into_iter().chain([LAG]).collect();
    for name in &names {
        system.start(name);
    }
    for name in &names {
        system.ready(name);
    }
    system.stock("mug", 100_000);
    let alerts = Alerts::start(&programs, &system, factor);
    Some((system, alerts))
}

fn heard_only(alerts: &Alerts, names: &[&str]) {
    let names: BTreeSet<_> = names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(alerts.heard(), names);
}

/// Starts a process again, where Prometheus finds it.
fn restart(system: &mut System, alerts: &Alerts, name: &str) {
    system.up(name);
    alerts.follow(system);
}

fn place(system: &System) -> String {
    system.place(order_of(&[("mug", 1)])).unwrap().order_id
}

#[test]
fn a_service_that_is_killed_is_named_and_what_follows_from_it_is_silent() {
    let Some((mut system, alerts)) = watched(System::new(), 10) else {
        return;
    };
    let placed = place(&system);
    system.reaches(&placed, OrderStatus::Delivered);
    system.kill("inventory");
    let down = [("service", "inventory"), ("instance", "inventory:9464")];
    let notice = alerts.arrives("ServiceDown", &down);
    assert_eq!(notice.receiver, "on-call");
    assert_eq!(
        notice.annotations["summary"],
        "inventory:9464 does not answer"
    );
    alerts.is_silent("ConsumerAbsent", &[("group", "inventory")]);
    restart(&mut system, &alerts, "inventory");
    alerts.clears("ServiceDown", &down);
    heard_only(&alerts, &["ServiceDown"]);
}

#[test]
fn a_partner_that_is_gone_is_named_and_so_is_who_gets_garbage() {
    let Some((system, alerts)) = watched(System::new(), 20) else {
        return;
    };
    system.behave(PROVIDER_OUTAGE);
    let waiting: Vec<_> = (0..20).map(|_| place(&system)).collect();
    let provider = [("service", "payments"), ("target", "payment-provider")];
    alerts.arrives("EffectTargetDown", &provider);
    system.behave(FAULTLESS);
    for order_id in &waiting {
        system.reaches(order_id, OrderStatus::Delivered);
    }
    alerts.clears("EffectTargetDown", &provider);

    write_garbage(&system, Service::Inventory);
    let garbage = [("service", "inventory"), ("class", "unframed")];
    let notice = alerts.arrives("DeadLetters", &garbage);
    assert_eq!(notice.receiver, "tickets");
    alerts.clears("DeadLetters", &garbage);
    heard_only(&alerts, &["EffectTargetDown", "DeadLetters"]);
}

#[test]
fn a_part_of_the_stack_that_stops_is_named_and_nothing_else() {
    let alone = servers::alone();
    let Some((system, alerts)) = watched(System::alone(&alone), 10) else {
        return;
    };
    for (part, alert) in [
        ("postgres", "DatabaseDown"),
        ("registry", "RegistryDown"),
        ("kafka", "KafkaDown"),
    ] {
        alone.stack(["stop", part]);
        let notice = alerts.arrives(alert, &[]);
        assert_eq!(notice.receiver, "on-call");
        if part == "postgres" {
            alerts.is_silent("ProjectionStalled", &[("service", "orders")]);
        }
        alone.stack(["start", part]);
        alerts.clears(alert, &[]);
    }
    heard_only(&alerts, &["DatabaseDown", "RegistryDown", "KafkaDown"]);
    let placed = place(&system);
    system.reaches(&placed, OrderStatus::Delivered);
}

/// A record that can never be processed.
fn write_garbage(system: &System, service: Service) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", system.variable("ORDERMESH_KAFKA"))
        .create()
        .expect("the settings are valid");
    let topic = topic(system, service, Topic::Commands);
    let record = BaseRecord::<str, str>::to(&topic).payload("garbage");
    producer.send(record).expect("the queue has room");
    producer.flush(harness::eventually::DEADLINE).expect("Kafka takes it");
}

fn topic(system: &System, service: Service, topic: Topic) -> String {
    format!("{}{}.{}", system.variable("ORDERMESH_PREFIX"), service.name(), topic.name())
}
