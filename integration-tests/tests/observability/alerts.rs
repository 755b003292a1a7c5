//! Every fault raises the alert that names it, and the alert resolves after the repair.
//!
//! `culprits` always runs. `ORDERMESH_LONG=1` (`make test-observability` without `FORM=short`) adds the rest, in files
//! named like those of the rules.

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

/// The role that reports the offsets of all groups.
const LAG: &str = "lag";

/// A system with stock, one process for each service, and alerts with all times divided by `factor`.
fn monitored(mut system: System, factor: u32) -> Option<(System, Alerts)> {
    let programs = programs("alerts")?;
    system.set("ORDERMESH_LAG_EVERY_MS", "500");
    let names: Vec<_> = SERVICES.into_iter().chain([LAG]).collect();
    for name in &names {
        system.start(name);
    }
    for name in &names {
        system.wait_until_ready(name);
    }
    system.stock("mug", 100_000);
    let alerts = Alerts::start(&programs, &system, factor);
    Some((system, alerts))
}

/// Like [`monitored`], for a test that runs only on demand. Prints that it is skipped otherwise.
fn monitored_long(factor: u32) -> Option<(System, Alerts)> {
    if std::env::var_os(LONG).is_none() {
        let _ = writeln!(
            stderr(),
            "not tested here, but by make test-observability without FORM=short"
        );
        return None;
    }
    monitored(System::new(), factor)
}

/// Starts a process and adds it to the scrape targets.
fn start(system: &mut System, alerts: &Alerts, name: &str) {
    system.start_until_ready(name);
    alerts.scrape_processes(system);
}

fn place(system: &System) -> String {
    system.place(order_of(&[("mug", 1)])).unwrap().order_id
}

/// Writes a record from outside the system.
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
