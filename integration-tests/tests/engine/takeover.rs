//! After every kind of take-over, the states are the fold of the events.

use contracts::core::v1::Metadata;
use contracts::inventory::v1::stock_event::Event;
use contracts::inventory::v1::stock_outcome::Outcome;
use contracts::inventory::v1::{StockAdjusted, StockEvent};
use contracts::{Inventory, Record as _, Service, Topic};
use engine::headers;
use engine::log::Input;
use harness::{KafkaFixture, NoEffects, SentCommand, eventually};
use inventory::StockRules;
use registry::Resolution;

use super::inventory_helpers::{
    adjust, assert_processed_once, fold_events, frequent_checkpoints, fresh_id, no_checkpoints,
    random_stock_commands, seeded_rng, sku_in_partition, wait_for_checkpoints, wait_for_outcomes,
};

const FULL_REPLAYS: &str = "ordermesh_engine_full_replays_total";

/// Processes commands, the later half of which lies beyond the last checkpoint.
fn history(fixture: &KafkaFixture, random: &mut fastrand::Rng) -> Vec<SentCommand> {
    let worker = fixture.run(StockRules::default(), NoEffects, frequent_checkpoints());
    let mut sent = fixture.send_all(random_stock_commands(random, 200));
    wait_for_outcomes(fixture, &sent);
    wait_for_checkpoints(fixture);
    worker.stop();
    let worker = fixture.run(StockRules::default(), NoEffects, no_checkpoints());
    worker.wait_until_ready();
    // The first transaction after a take-over is a checkpoint as well.
    sent.extend(fixture.send_all(random_stock_commands(random, 1)));
    wait_for_outcomes(fixture, &sent);
    sent.extend(fixture.send_all(random_stock_commands(random, 100)));
    assert_processed_once(fixture, &sent);
    worker.stop();
    sent
}

/// Takes over, checks every state and processes more commands. Returns the number of full replays.
fn take_over(
    fixture: &KafkaFixture,
    random: &mut fastrand::Rng,
    sent: &mut Vec<SentCommand>,
) -> f64 {
    let worker = fixture.run(StockRules::default(), NoEffects, frequent_checkpoints());
    worker.wait_until_ready();
    wait_for_checkpoints(fixture);
    sent.extend(fixture.send_all(random_stock_commands(random, 50)));
    assert_processed_once(fixture, sent);
    wait_for_checkpoints(fixture);
    let replays = worker.metric(FULL_REPLAYS);
    worker.stop();
    replays
}

#[test]
fn restores_from_a_checkpoint_and_later_events() {
    let (fixture, mut random) = (KafkaFixture::new(2), seeded_rng());
    let mut sent = history(&fixture, &mut random);
    assert_eq!(take_over(&fixture, &mut random, &mut sent), 0.0);
}

#[test]
fn replays_every_event_when_a_state_is_damaged() {
    let (fixture, mut random) = (KafkaFixture::new(2), seeded_rng());
    let mut sent = history(&fixture, &mut random);
    for partition in 0..2 {
        let states = fixture.read(Service::Inventory, Topic::State);
        let state = states
            .into_iter()
            .find(|state| state.partition == partition)
            .unwrap();
        let damaged = Input {
            payload: Some(b"damaged".to_vec()),
            ..state
        };
        fixture.write(Service::Inventory, Topic::State, &damaged);
    }
    assert_eq!(take_over(&fixture, &mut random, &mut sent), 2.0);
}

#[test]
fn replays_every_event_when_there_is_no_checkpoint() {
    let (fixture, mut random) = (KafkaFixture::new(2), seeded_rng());
    let mut sent = history(&fixture, &mut random);
    fixture.tombstone_states(Service::Inventory);
    assert!(fixture.states::<Inventory>().is_empty());
    assert_eq!(take_over(&fixture, &mut random, &mut sent), 2.0);
}

#[test]
fn replays_every_event_when_a_checkpointed_version_is_missing() {
    let (fixture, mut random) = (KafkaFixture::new(2), seeded_rng());
    let mut sent = history(&fixture, &mut random);
    let folded = fold_events(&fixture);
    let (_, state) = fixture
        .states::<Inventory>()
        .into_iter()
        .find(|(id, state)| state.metadata.aggregate_version < folded[id].0)
        .expect("some events lie beyond the checkpoint");
    let missing = Input {
        payload: None,
        ..state.input
    };
    fixture.write(Service::Inventory, Topic::State, &missing);
    assert_eq!(take_over(&fixture, &mut random, &mut sent), 1.0);
}

/// An event as the owner of the partition would write it next.
fn event(fixture: &KafkaFixture, sku: &str, version: u64, delta: i64, schema_id: u32) -> Input {
    let metadata = Metadata {
        id: fresh_id(),
        aggregate_id: sku.into(),
        aggregate_version: version,
        ..Metadata::default()
    };
    let adjusted = StockAdjusted {
        adjustment_id: fresh_id(),
        delta,
    };
    let event = StockEvent::new_record(metadata, Event::StockAdjusted(adjusted));
    let mut payload = fixture
        .codec
        .encode(Service::Inventory, Topic::Events, &event);
    payload[..6].copy_from_slice(&registry::frame_header(schema_id));
    Input {
        partition: fixture.cluster.partition_of(sku.as_bytes()),
        key: Some(sku.into()),
        payload: Some(payload),
        headers: vec![(headers::SOURCE_OFFSET.into(), b"0".to_vec())],
        ..Input::default()
    }
}

/// Adjusts the item by 1 through a worker. Returns the pieces on hand after it.
fn on_hand(fixture: &KafkaFixture, sku: &str) -> u64 {
    let sent = fixture.send(sku, adjust(1));
    let outcome = eventually("the adjustment has its outcome", || {
        let outcomes = fixture.outcomes::<Inventory>();
        outcomes
            .into_iter()
            .find(|outcome| outcome.metadata.causation_id == sent.id)
    });
    match outcome.body {
        Outcome::Accepted(accepted) => accepted.on_hand,
        other => panic!("not accepted: {other:?}"),
    }
}

#[test]
fn waits_for_open_transactions_below_the_high_watermark() {
    let fixture = KafkaFixture::new(2);
    let schema_id = fixture.schemas.writer_id(Service::Inventory, Topic::Events);
    let sku = sku_in_partition(&fixture, 1);
    let worker = fixture.run(StockRules::default(), NoEffects, no_checkpoints());
    assert_eq!(on_hand(&fixture, &sku), 1);
    worker.stop();

    // A former owner's transaction that is committed, but whose marker is not yet written to the events.
    let open = fixture.begin();
    let events = fixture.cluster.topic(Service::Inventory, Topic::Events);
    open.write(&events, &event(&fixture, &sku, 2, 10, schema_id));

    let registry = prometheus::Registry::new();
    let log = fixture.log::<StockRules>("one");
    let codec = fixture.codec.clone();
    let mut worker = fixture.worker(
        StockRules::default(),
        NoEffects,
        log,
        codec,
        no_checkpoints(),
        &registry,
    );
    let status = worker.status();
    eventually("the other partition is taken over", || {
        worker.step().unwrap();
        status.restored().contains(&0).then_some(())
    });
    for _ in 0..100 {
        worker.step().unwrap();
        assert_eq!(
            status.restored(),
            [0],
            "a transaction is open below the high watermark"
        );
    }
    assert!(
        status.ready().unwrap_err().contains("restoring"),
        "{:?}",
        status.ready()
    );
    let observed = status.observable_state();
    assert_eq!(observed.phase, "running");
    assert_eq!(observed.partitions[&0].phase, "running");
    assert_eq!(observed.partitions[&1].phase, "restoring");
    open.commit();
    eventually("the partition is taken over", || {
        worker.step().unwrap();
        status.ready().ok()
    });
    assert_eq!(status.restored(), [0, 1]);
    drop(worker);

    let worker = fixture.run(StockRules::default(), NoEffects, no_checkpoints());
    assert_eq!(on_hand(&fixture, &sku), 12, "the late event counts");
    worker.stop();
}

#[test]
fn waits_until_every_event_can_be_decoded() {
    let fixture = KafkaFixture::new(2);
    let sku = sku_in_partition(&fixture, 0);
    let worker = fixture.run(StockRules::default(), NoEffects, no_checkpoints());
    assert_eq!(on_hand(&fixture, &sku), 1);
    worker.stop();

    let newer = 77;
    fixture
        .schemas
        .learn(Service::Inventory, Topic::Events, newer, Resolution::Newer);
    let known = fixture.schemas.writer_id(Service::Inventory, Topic::Events);
    for (version, id) in [(2, newer), (3, known)] {
        fixture.write(
            Service::Inventory,
            Topic::Events,
            &event(&fixture, &sku, version, 10, id),
        );
    }
    let worker = fixture.run(StockRules::default(), NoEffects, no_checkpoints());
    eventually("the other partition is taken over", || {
        (worker.status.restored() == [1]).then_some(())
    });
    let other = sku_in_partition(&fixture, 1);
    for pieces in 1..30 {
        assert_eq!(on_hand(&fixture, &other), pieces);
        assert_eq!(worker.status.restored(), [1]);
    }
    fixture
        .schemas
        .learn(Service::Inventory, Topic::Events, newer, Resolution::Known);
    worker.wait_until_ready();
    assert_eq!(
        on_hand(&fixture, &sku),
        22,
        "nothing was passed over while it waited"
    );
    worker.stop();
}
