//! However a partition is taken over, its states are the fold of its events.

use contracts::core::v1::Metadata;
use contracts::inventory::v1::stock_event::Event;
use contracts::inventory::v1::stock_outcome::Outcome;
use contracts::inventory::v1::{StockAdjusted, StockEvent};
use contracts::{Inventory, Record as _, Service, Topic};
use engine::headers;
use engine::log::Input;
use harness::{KafkaFixture, NoEffects, Sent, eventually};
use inventory::StockRules;
use registry::Resolution;

use super::given::{
    adjust, answered, checkpointed, eager, folded, fresh_id, happened_once, lazy, random, sku_in,
    stock_work,
};

const FULL_REPLAYS: &str = "ordermesh_engine_full_replays_total";

/// Work of which the later half lies beyond the last checkpoint.
fn history(stand: &KafkaFixture, random: &mut fastrand::Rng) -> Vec<Sent> {
    let worker = stand.run(StockRules::default(), NoEffects, eager());
    let mut sent = stand.send_all(stock_work(random, 200));
    answered(stand, &sent);
    checkpointed(stand);
    worker.stop();
    let worker = stand.run(StockRules::default(), NoEffects, lazy());
    worker.ready();
    // The first transaction after a take-over is a checkpoint as well.
    sent.extend(stand.send_all(stock_work(random, 1)));
    answered(stand, &sent);
    sent.extend(stand.send_all(stock_work(random, 100)));
    happened_once(stand, &sent);
    worker.stop();
    sent
}

/// Takes over, checks every state, goes on working, and says how many full replays that took.
fn take_over(stand: &KafkaFixture, random: &mut fastrand::Rng, sent: &mut Vec<Sent>) -> f64 {
    let worker = stand.run(StockRules::default(), NoEffects, eager());
    worker.ready();
    checkpointed(stand);
    sent.extend(stand.send_all(stock_work(random, 50)));
    happened_once(stand, sent);
    checkpointed(stand);
    let replays = worker.figure(FULL_REPLAYS);
    worker.stop();
    replays
}

#[test]
fn from_a_checkpoint_and_the_events_behind_it() {
    let (stand, mut random) = (KafkaFixture::new(2), random());
    let mut sent = history(&stand, &mut random);
    assert_eq!(take_over(&stand, &mut random, &mut sent), 0.0);
}

#[test]
fn from_every_event_when_a_state_is_damaged() {
    let (stand, mut random) = (KafkaFixture::new(2), random());
    let mut sent = history(&stand, &mut random);
    for partition in 0..2 {
        let states = stand.read(Service::Inventory, Topic::State);
        let state = states
            .into_iter()
            .find(|state| state.partition == partition)
            .unwrap();
        let damaged = Input {
            payload: Some(b"damaged".to_vec()),
            ..state
        };
        stand.write(Service::Inventory, Topic::State, &damaged);
    }
    assert_eq!(take_over(&stand, &mut random, &mut sent), 2.0);
}

#[test]
fn from_every_event_when_there_is_no_checkpoint() {
    let (stand, mut random) = (KafkaFixture::new(2), random());
    let mut sent = history(&stand, &mut random);
    stand.erase_states(Service::Inventory);
    assert!(stand.states::<Inventory>().is_empty());
    assert_eq!(take_over(&stand, &mut random, &mut sent), 2.0);
}

#[test]
fn from_every_event_when_a_checkpointed_version_is_missing() {
    let (stand, mut random) = (KafkaFixture::new(2), random());
    let mut sent = history(&stand, &mut random);
    let folded = folded(&stand);
    let (_, state) = stand
        .states::<Inventory>()
        .into_iter()
        .find(|(id, state)| state.metadata.aggregate_version < folded[id].0)
        .expect("some events lie beyond the checkpoint");
    let missing = Input {
        payload: None,
        ..state.input
    };
    stand.write(Service::Inventory, Topic::State, &missing);
    assert_eq!(take_over(&stand, &mut random, &mut sent), 1.0);
}

/// An event as the owner of a partition would write it next.
fn event(stand: &KafkaFixture, sku: &str, version: u64, delta: i64, schema_id: u32) -> Input {
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
    let mut payload = stand
        .codec
        .encode(Service::Inventory, Topic::Events, &event);
    payload[..6].copy_from_slice(&registry::frame_header(schema_id));
    Input {
        partition: stand.cluster.partition_of(sku.as_bytes()),
        key: Some(sku.into()),
        payload: Some(payload),
        headers: vec![(headers::SOURCE_OFFSET.into(), b"0".to_vec())],
        ..Input::default()
    }
}

/// Lets a worker adjust the item by 1, and returns the pieces on hand after it.
fn on_hand(stand: &KafkaFixture, sku: &str) -> u64 {
    let sent = stand.send(sku, adjust(1));
    let outcome = eventually("the adjustment has its outcome", || {
        let outcomes = stand.outcomes::<Inventory>();
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
fn not_before_a_transaction_below_the_high_watermark_has_ended() {
    let stand = KafkaFixture::new(2);
    let schema_id = stand.schemas.writer_id(Service::Inventory, Topic::Events);
    let sku = sku_in(&stand, 1);
    let worker = stand.run(StockRules::default(), NoEffects, lazy());
    assert_eq!(on_hand(&stand, &sku), 1);
    worker.stop();

    // A former owner's transaction that is decided, but whose marker has not reached the events yet.
    let open = stand.begin();
    let events = stand.cluster.topic(Service::Inventory, Topic::Events);
    open.write(&events, &event(&stand, &sku, 2, 10, schema_id));

    let figures = prometheus::Registry::new();
    let log = stand.log::<StockRules>("one");
    let codec = stand.codec.clone();
    let mut worker = stand.worker(
        StockRules::default(),
        NoEffects,
        log,
        codec,
        lazy(),
        &figures,
    );
    let status = worker.status();
    eventually("the other partition is taken over", || {
        worker.step().unwrap();
        status.running().contains(&0).then_some(())
    });
    for _ in 0..100 {
        worker.step().unwrap();
        assert_eq!(
            status.running(),
            [0],
            "a transaction is open below the high watermark"
        );
    }
    assert!(
        status.ready().unwrap_err().contains("restoring"),
        "{:?}",
        status.ready()
    );
    open.commit();
    eventually("the partition is taken over", || {
        worker.step().unwrap();
        status.ready().ok()
    });
    assert_eq!(status.running(), [0, 1]);
    drop(worker);

    let worker = stand.run(StockRules::default(), NoEffects, lazy());
    assert_eq!(on_hand(&stand, &sku), 12, "the late event counts");
    worker.stop();
}

#[test]
fn not_before_this_version_can_read_every_event() {
    let stand = KafkaFixture::new(2);
    let sku = sku_in(&stand, 0);
    let worker = stand.run(StockRules::default(), NoEffects, lazy());
    assert_eq!(on_hand(&stand, &sku), 1);
    worker.stop();

    let newer = 77;
    stand
        .schemas
        .learn(Service::Inventory, Topic::Events, newer, Resolution::Newer);
    let known = stand.schemas.writer_id(Service::Inventory, Topic::Events);
    for (version, id) in [(2, newer), (3, known)] {
        stand.write(
            Service::Inventory,
            Topic::Events,
            &event(&stand, &sku, version, 10, id),
        );
    }
    let worker = stand.run(StockRules::default(), NoEffects, lazy());
    eventually("the other partition is taken over", || {
        (worker.status.running() == [1]).then_some(())
    });
    let other = sku_in(&stand, 1);
    for pieces in 1..30 {
        assert_eq!(on_hand(&stand, &other), pieces);
        assert_eq!(worker.status.running(), [1]);
    }
    stand
        .schemas
        .learn(Service::Inventory, Topic::Events, newer, Resolution::Known);
    worker.ready();
    assert_eq!(
        on_hand(&stand, &sku),
        22,
        "nothing was passed over while it waited"
    );
    worker.stop();
}
