//! Committed offsets: what happens when they are lost or moved, and that they follow markers.

use contracts::core::v1::Metadata;
use contracts::inventory::v1::{StockAdjusted, StockEvent, stock_event};
use contracts::{Record as _, Service, Topic};
use engine::headers;
use engine::log::Input;
use harness::{KafkaFixture, NoEffects, eventually};
use inventory::StockRules;

use super::given::{adjust, answered, eager, fresh_id, happened_once, lazy, sku_in};

#[test]
fn a_worker_stops_when_the_offset_is_missing_although_events_exist() {
    let stand = KafkaFixture::new(1);
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
            stand
                .codec
                .encode(Service::Inventory, Topic::Events, &event),
        ),
        headers: vec![(headers::SOURCE_OFFSET.into(), b"0".to_vec())],
        ..Input::default()
    };
    stand.write(Service::Inventory, Topic::Events, &record);
    stand.send("sku", adjust(1));
    stops(&stand, "missing");
}

#[test]
fn a_worker_stops_when_the_offset_was_moved_back_behind_the_checkpoint() {
    let stand = KafkaFixture::new(1);
    processed(&stand, true);
    stand.move_offset(Service::Inventory, 0, 5);
    stops(&stand, "somebody reset the group");
}

#[test]
fn a_worker_stops_when_the_offset_was_moved_back_behind_an_event() {
    let stand = KafkaFixture::new(1);
    processed(&stand, false);
    stand.move_offset(Service::Inventory, 0, 19);
    stops(&stand, "somebody reset the group");
}

#[test]
fn a_worker_stops_when_the_offset_was_moved_beyond_the_commands() {
    let stand = KafkaFixture::new(1);
    processed(&stand, true);
    stand.move_offset(Service::Inventory, 0, 1_000);
    stops(&stand, "outside the commands");
}

#[test]
fn a_worker_goes_on_when_retention_has_deleted_what_was_processed() {
    let stand = KafkaFixture::new(1);
    processed(&stand, true);
    stand.delete_before(Service::Inventory, Topic::Commands, 0, 20);
    let worker = stand.run(StockRules::default(), NoEffects, lazy());
    let sent = stand.send("sku", adjust(1));
    assert_eq!(sent.offset, 20);
    eventually("the command has its outcome", || {
        let outcomes = stand.outcomes::<contracts::Inventory>();
        let mut heard = outcomes
            .iter()
            .map(|outcome| &outcome.metadata.causation_id);
        heard.any(|id| *id == sent.id).then_some(())
    });
    worker.stop();
}

#[test]
fn a_worker_stops_when_retention_has_deleted_what_was_not_processed() {
    let stand = KafkaFixture::new(1);
    processed(&stand, true);
    stand.send_all((0..5).map(|_| ("sku".to_owned(), adjust(1))));
    stand.delete_before(Service::Inventory, Topic::Commands, 0, 23);
    stops(&stand, "outside the commands");
}

/// Twenty commands with an event each.
fn processed(stand: &KafkaFixture, checkpoint: bool) {
    let settings = if checkpoint { eager() } else { lazy() };
    let worker = stand.run(StockRules::default(), NoEffects, settings);
    let sent = stand.send_all((0..20).map(|_| ("sku".to_owned(), adjust(1))));
    answered(stand, &sent);
    eventually("the checkpoint is there", || {
        (!checkpoint || !stand.states::<contracts::Inventory>().is_empty()).then_some(())
    });
    worker.stop();
    assert_eq!(stand.committed(Service::Inventory, 0), Some(20));
}

fn stops(stand: &KafkaFixture, because: &str) {
    let outcomes = stand.read(Service::Inventory, Topic::Outcomes);
    let worker = stand.run(StockRules::default(), NoEffects, lazy());
    let error = worker.failed().to_string();
    assert!(error.contains(because), "{error}");
    assert_eq!(
        stand.read(Service::Inventory, Topic::Outcomes),
        outcomes,
        "nothing was done"
    );
}

#[test]
fn the_position_of_a_quiet_partition_is_committed_past_markers() {
    let stand = KafkaFixture::new(2);
    let commands = stand.cluster.topic(Service::Inventory, Topic::Commands);
    let aborted = |partition| {
        let open = stand.begin();
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
        let end = stand.end(Service::Inventory, Topic::Commands, partition);
        eventually("the position is committed", || {
            (stand.committed(Service::Inventory, partition) == Some(end)).then_some(())
        });
    };
    // Before the worker comes, while it runs, and behind a command.
    aborted(0);
    let worker = stand.run(StockRules::default(), NoEffects, lazy());
    committed(0);
    aborted(0);
    committed(0);
    let sent = stand.send(&sku_in(&stand, 1), adjust(1));
    aborted(1);
    committed(1);
    happened_once(&stand, &[sent]);
    worker.stop();
}
