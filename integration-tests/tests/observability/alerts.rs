//! Every fault is told of by the alert that names it; after the repair it is over.
//!
//! `culprits` always runs. `ORDERMESH_LONG=1` (`make test-observability`) adds the rest, in files that are called as
//! those of the rules.

mod audit;
mod culprits;
mod disks;
mod log;
mod objectives;
mod processes;
mod read_side;

use std::io::{Write as _, stderr};

use contracts::{Service, Topic};
use harness::alerts::Alerts;
use harness::eventually::DEADLINE;
use harness::system::{SERVICES, System, order_of};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::{LONG, programs};

/// The role that watches the offsets of all groups.
const LAG: &str = "lag";

/// A system with mugs on the shelf, every service in a process of its own, and somebody who watches over it with times
/// that are divided by `factor`.
fn watched(mut system: System, factor: u32) -> Option<(System, Alerts)> {
    let programs = programs("alerts")?;
    system.set("ORDERMESH_LAG_EVERY_MS", "500");
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

/// The same for a test that is only run on demand; whoever runs the tests is told.
fn watched_at_length(factor: u32) -> Option<(System, Alerts)> {
    if std::env::var_os(LONG).is_none() {
        let _ = writeln!(stderr(), "not tested here, but by make test-observability");
        return None;
    }
    watched(System::new(), factor)
}

/// Starts a process, and lets it be watched.
fn start(system: &mut System, alerts: &Alerts, name: &str) {
    system.up(name);
    alerts.follow(system);
}

fn place(system: &System) -> String {
    system.place(order_of(&[("mug", 1)])).unwrap().order_id
}

/// Writes a record as a stranger does.
fn write(system: &System, topic: &str, payload: &str) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", system.variable("ORDERMESH_KAFKA"))
        .create()
        .unwrap();
    let record = BaseRecord::<str, str>::to(topic).payload(payload);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(DEADLINE).unwrap();
}

fn topic(system: &System, service: Service, topic: Topic) -> String {
    topic.of(service, system.variable("ORDERMESH_PREFIX"))
}
