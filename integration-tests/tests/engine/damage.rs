//! Damaged logs: a worker that detects the damage stops with a clear error and writes nothing.

use contracts::{Service, Topic};
use engine::Cluster;
use engine::topics::{self, Error};
use harness::{KafkaFixture, NoEffects};
use inventory::StockRules;

use super::inventory_helpers::{
    adjust, frequent_checkpoints, no_checkpoints, wait_for_checkpoints, wait_for_outcomes,
};

/// Processes twenty commands with an event each, and stops the worker.
fn process_commands(fixture: &KafkaFixture, checkpoint: bool) {
    let settings = if checkpoint {
        frequent_checkpoints()
    } else {
        no_checkpoints()
    };
    let worker = fixture.run(StockRules::default(), NoEffects, settings);
    let sent = fixture.send_all((0..20).map(|_| ("sku".to_owned(), adjust(1))));
    wait_for_outcomes(fixture, &sent);
    if checkpoint {
        wait_for_checkpoints(fixture);
    }
    worker.stop();
}

/// Asserts that a worker stops for this reason and writes nothing.
fn assert_stops(fixture: &KafkaFixture, because: &str) {
    let written = || Topic::ALL.map(|topic| fixture.read(Service::Inventory, topic).len());
    let before = written();
    let worker = fixture.run(StockRules::default(), NoEffects, frequent_checkpoints());
    let error = worker.wait_for_failure().to_string();
    assert!(error.contains(because), "{error}");
    assert_eq!(written(), before, "nothing was done");
}

#[test]
fn truncated_events_without_a_checkpoint_stop_the_worker() {
    let fixture = KafkaFixture::new(1);
    process_commands(&fixture, false);
    for record in fixture.read(Service::Inventory, Topic::State) {
        let tombstone = engine::log::Input {
            payload: None,
            ..record
        };
        fixture.write(Service::Inventory, Topic::State, &tombstone);
    }
    fixture.delete_records_before(Service::Inventory, Topic::Events, 0, 5);
    assert_stops(&fixture, "its first events are gone");
}

#[test]
fn a_recreated_events_topic_stops_the_worker() {
    let fixture = KafkaFixture::new(1);
    process_commands(&fixture, true);
    fixture.recreate_topic(Service::Inventory, Topic::Events);
    assert_stops(&fixture, "the topic was truncated or recreated");
}

#[test]
fn a_recreated_commands_topic_stops_the_worker() {
    let fixture = KafkaFixture::new(1);
    process_commands(&fixture, true);
    fixture.recreate_topic(Service::Inventory, Topic::Commands);
    assert_stops(&fixture, "committed offset is missing");
    // The broker deletes offsets with their topic, whatever the length of the new one.
    fixture.send_all((0..30).map(|_| ("sku".to_owned(), adjust(1))));
    assert_stops(&fixture, "committed offset is missing");
}

#[test]
fn recreating_the_commands_topic_stops_a_running_worker() {
    let fixture = KafkaFixture::new(1);
    let worker = fixture.run(StockRules::default(), NoEffects, frequent_checkpoints());
    let sent = fixture.send_all((0..20).map(|_| ("sku".to_owned(), adjust(1))));
    wait_for_outcomes(&fixture, &sent);
    let written = || fixture.read(Service::Inventory, Topic::Events).len();
    let before = written();
    fixture.recreate_topic(Service::Inventory, Topic::Commands);
    let error = worker.wait_for_failure().to_string();
    assert!(error.contains("recreated"), "{error}");
    assert_eq!(written(), before, "nothing was done");
}

#[test]
fn another_number_of_partitions() {
    let fixture = KafkaFixture::new(2);
    let configured = Cluster {
        partitions: 3,
        ..(*fixture.cluster).clone()
    };
    let error = topics::check(&configured).unwrap_err();
    assert!(
        matches!(
            error,
            Error::PartitionCount {
                found: 2,
                wanted: 3,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("fixed for life"), "{error}");
}
