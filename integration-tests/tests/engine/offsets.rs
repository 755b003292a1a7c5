//! Committed offsets: missing or moved offsets stop the worker, and the offset follows markers.

use contracts::core::v1::Metadata;
use contracts::inventory::v1::{StockAdjusted, StockEvent, stock_event};
use contracts::{Record as _, Service, Topic};
use engine::headers;
use engine::log::Input;
use harness::{KafkaFixture, NoEffects, eventually};
use inventory::StockRules;

use super::inventory_helpers::{
    adjust, assert_processed_once, frequent_checkpoints, fresh_id, no_checkpoints,
    sku_in_partition, wait_for_outcomes,
};

#[test]
fn a_worker_stops_when_the_offset_is_missing_although_events_exist() {
    let fixture = KafkaFixture::new(1);
    let metadata = Metadata {
        id: fresh_id(),
        aggregate_id: "sku".into(),
        aggregate_version: 1,
        ..Metadata::default()
    };
    let adjusted = StockAdjusted {
        adjustment_id: fresh_id(),
        delta: 1,
    };
    let event = StockEvent::new_record(metadata, stock_event::Event::StockAdjusted(adjusted));
    let record = Input {
        key: Some(b"sku".to_vec()),
        payload: Some(
            fixture
                .codec
                .encode(Service::Inventory, Topic::Events, &event),
        ),
        headers: vec![(headers::SOURCE_OFFSET.into(), b"0".to_vec())],
        ..Input::default()
    };
    fixture.write(Service::Inventory, Topic::Events, &record);
    fixture.send("sku", adjust(1));
    assert_stops(&fixture, "missing");
}

#[test]
fn a_worker_stops_when_the_offset_was_moved_back_behind_the_checkpoint() {
    let fixture = KafkaFixture::new(1);
    process_commands(&fixture, true);
    fixture.reset_committed_offset(Service::Inventory, 0, 5);
    assert_stops(&fixture, "the group was reset");
}

#[test]
fn a_worker_stops_when_the_offset_was_moved_back_behind_an_event() {
    let fixture = KafkaFixture::new(1);
    process_commands(&fixture, false);
    fixture.reset_committed_offset(Service::Inventory, 0, 19);
    assert_stops(&fixture, "the group was reset");
}

#[test]
fn a_worker_stops_when_the_offset_was_moved_beyond_the_commands() {
    let fixture = KafkaFixture::new(1);
    process_commands(&fixture, true);
    fixture.reset_committed_offset(Service::Inventory, 0, 1_000);
    assert_stops(&fixture, "outside the commands");
}

#[test]
fn a_worker_continues_when_retention_has_deleted_what_was_processed() {
    let fixture = KafkaFixture::new(1);
    process_commands(&fixture, true);
    fixture.delete_records_before(Service::Inventory, Topic::Commands, 0, 20);
    let worker = fixture.run(StockRules::default(), NoEffects, no_checkpoints());
    let sent = fixture.send("sku", adjust(1));
    assert_eq!(sent.offset, 20);
    eventually("the command has its outcome", || {
        let outcomes = fixture.outcomes::<contracts::Inventory>();
        let mut answered = outcomes
            .iter()
            .map(|outcome| &outcome.metadata.causation_id);
        answered.any(|id| *id == sent.id).then_some(())
    });
    worker.stop();
}

#[test]
fn a_worker_stops_when_retention_has_deleted_what_was_not_processed() {
    let fixture = KafkaFixture::new(1);
    process_commands(&fixture, true);
    fixture.send_all((0..5).map(|_| ("sku".to_owned(), adjust(1))));
    fixture.delete_records_before(Service::Inventory, Topic::Commands, 0, 23);
    assert_stops(&fixture, "outside the commands");
}

/// Processes twenty commands with an event each.
fn process_commands(fixture: &KafkaFixture, checkpoint: bool) {
    let settings = if checkpoint {
        frequent_checkpoints()
    } else {
        no_checkpoints()
    };
    let worker = fixture.run(StockRules::default(), NoEffects, settings);
    let sent = fixture.send_all((0..20).map(|_| ("sku".to_owned(), adjust(1))));
    wait_for_outcomes(fixture, &sent);
    eventually("the checkpoint is there", || {
        (!checkpoint || !fixture.states::<contracts::Inventory>().is_empty()).then_some(())
    });
    worker.stop();
    assert_eq!(fixture.committed(Service::Inventory, 0), Some(20));
}

fn assert_stops(fixture: &KafkaFixture, because: &str) {
    let outcomes = fixture.read(Service::Inventory, Topic::Outcomes);
    let worker = fixture.run(StockRules::default(), NoEffects, no_checkpoints());
    let error = worker.wait_for_failure().to_string();
    assert!(error.contains(because), "{error}");
    assert_eq!(
        fixture.read(Service::Inventory, Topic::Outcomes),
        outcomes,
        "nothing was done"
    );
}

#[test]
fn the_position_of_a_quiet_partition_is_committed_past_markers() {
    let fixture = KafkaFixture::new(2);
    let commands = fixture.cluster.topic(Service::Inventory, Topic::Commands);
    let aborted = |partition| {
        let open = fixture.begin();
        open.write(
            &commands,
            &Input {
                partition,
                payload: Some(b"aborted".to_vec()),
                ..Input::default()
            },
        );
        open.abort();
    };
    let committed = |partition: i32| {
        let end = fixture.end(Service::Inventory, Topic::Commands, partition);
        eventually("the position is committed", || {
            (fixture.committed(Service::Inventory, partition) == Some(end)).then_some(())
        });
    };
    // Before the worker starts, while it runs, and after a command.
    aborted(0);
    let worker = fixture.run(StockRules::default(), NoEffects, no_checkpoints());
    committed(0);
    aborted(0);
    committed(0);
    let sent = fixture.send(&sku_in_partition(&fixture, 1), adjust(1));
    aborted(1);
    committed(1);
    assert_processed_once(&fixture, &[sent]);
    worker.stop();
}
