//! Records with schemas that this binary does not contain.

use contracts::{Service, Topic};
use engine::log::Input;
use harness::kafka_fixture::metadata;
use harness::{KafkaFixture, NoEffects, SentCommand, eventually};
use inventory::StockRules;
use registry::Resolution;

use super::inventory_helpers::{
    adjust, assert_processed_once, frequent_checkpoints, fresh_id, sku_in_partition,
    wait_for_outcomes,
};

const UNKNOWN_SCHEMA_ID: u32 = 99;

/// Sends a command framed with this schema id.
fn framed(fixture: &KafkaFixture, sku: &str, schema_id: u32) -> SentCommand {
    let id = fresh_id();
    let message = contracts::Message::new(sku, adjust(1));
    let mut payload = fixture.codec.encode_message(message, metadata(&id, sku));
    payload[..6].copy_from_slice(&registry::frame_header(schema_id));
    let partition = fixture.cluster.partition_of(sku.as_bytes());
    let record = Input {
        partition,
        key: Some(sku.into()),
        payload: Some(payload),
        ..Input::default()
    };
    let offset = fixture.write(Service::Inventory, Topic::Commands, &record);
    SentCommand {
        id,
        partition,
        offset,
    }
}

#[test]
fn a_newer_schema_pauses_its_partition_until_it_is_known() {
    pauses_until_known(Resolution::Newer, "it must be upgraded");
}

#[test]
fn an_unresolved_schema_pauses_its_partition_until_it_is_known() {
    pauses_until_known(Resolution::Pending, "waiting for the registry");
}

fn pauses_until_known(resolution: Resolution, reason: &str) {
    let fixture = KafkaFixture::new(2);
    fixture.schemas.learn(
        Service::Inventory,
        Topic::Commands,
        UNKNOWN_SCHEMA_ID,
        resolution,
    );
    let (paused, flowing) = (sku_in_partition(&fixture, 0), sku_in_partition(&fixture, 1));
    let worker = fixture.run(StockRules::default(), NoEffects, frequent_checkpoints());
    worker.wait_until_ready();

    let mut sent = vec![fixture.send(&paused, adjust(1))];
    let held_back = [
        framed(&fixture, &paused, UNKNOWN_SCHEMA_ID),
        fixture.send(&paused, adjust(1)),
    ];
    eventually("the worker reports why it pauses", || {
        worker
            .status
            .ready()
            .is_err_and(|why| why.contains(reason))
            .then_some(())
    });
    for _ in 0..20 {
        sent.push(fixture.send(&flowing, adjust(1)));
        wait_for_outcomes(&fixture, &sent);
    }
    assert_only_outcomes(&fixture, &sent);
    let observed = worker.status.observable_state();
    let [blocked, other] = [0, 1].map(|partition| &observed.partitions[&partition]);
    assert_eq!((blocked.phase, other.phase), ("blocked", "running"));
    assert!(
        blocked
            .reason
            .as_ref()
            .is_some_and(|why| why.contains(reason))
    );
    assert_eq!(other.reason, None);
    let position = blocked.restored.map(|restored| restored.position);
    assert_eq!(position, Some(held_back[0].offset));
    assert_eq!(
        fixture.committed(Service::Inventory, 0),
        Some(held_back[0].offset)
    );

    fixture.schemas.learn(
        Service::Inventory,
        Topic::Commands,
        UNKNOWN_SCHEMA_ID,
        Resolution::Known,
    );
    sent.extend(held_back);
    assert_processed_once(&fixture, &sent);
    worker.wait_until_ready();
    assert_eq!(
        worker.status.observable_state().partitions[&0].phase,
        "running"
    );
    assert!(fixture.read(Service::Inventory, Topic::Dlq).is_empty());
    worker.stop();
}

/// Asserts that exactly these commands have outcomes.
fn assert_only_outcomes(fixture: &KafkaFixture, sent: &[SentCommand]) {
    let outcomes = fixture.outcomes::<contracts::Inventory>();
    let mut answered: Vec<_> = outcomes
        .iter()
        .map(|outcome| &outcome.metadata.causation_id)
        .collect();
    let mut asked: Vec<_> = sent.iter().map(|sent| &sent.id).collect();
    answered.sort();
    asked.sort();
    assert_eq!(answered, asked);
}
