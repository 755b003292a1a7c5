//! Records with schemas that this binary does not contain.

use contracts::{Service, Topic};
use engine::log::Input;
use harness::kafka_fixture::metadata;
use harness::{KafkaFixture, NoEffects, Sent, eventually};
use inventory::StockRules;
use registry::Resolution;

use super::given::{adjust, answered, eager, fresh_id, happened_once, sku_in};

const NEWER: u32 = 99;

/// A command framed with a schema id of its own.
fn framed(stand: &KafkaFixture, sku: &str, schema_id: u32) -> Sent {
    let id = fresh_id();
    let message = contracts::Message::new(sku, adjust(1));
    let mut payload = stand.codec.encode_message(message, metadata(&id, sku));
    payload[..6].copy_from_slice(&registry::frame_header(schema_id));
    let partition = stand.cluster.partition_of(sku.as_bytes());
    let record = Input {
        partition,
        key: Some(sku.into()),
        payload: Some(payload),
        ..Input::default()
    };
    let offset = stand.write(Service::Inventory, Topic::Commands, &record);
    Sent {
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
    let stand = KafkaFixture::new(2);
    stand
        .schemas
        .learn(Service::Inventory, Topic::Commands, NEWER, resolution);
    let (paused, flowing) = (sku_in(&stand, 0), sku_in(&stand, 1));
    let worker = stand.run(StockRules::default(), NoEffects, eager());
    worker.ready();

    let mut sent = vec![stand.send(&paused, adjust(1))];
    let held_back = [
        framed(&stand, &paused, NEWER),
        stand.send(&paused, adjust(1)),
    ];
    eventually("the worker says why it pauses", || {
        worker
            .status
            .ready()
            .is_err_and(|why| why.contains(reason))
            .then_some(())
    });
    for _ in 0..20 {
        sent.push(stand.send(&flowing, adjust(1)));
        answered(&stand, &sent);
    }
    happened(&stand, &sent);
    assert_eq!(
        stand.committed(Service::Inventory, 0),
        Some(held_back[0].offset)
    );

    stand.schemas.learn(
        Service::Inventory,
        Topic::Commands,
        NEWER,
        Resolution::Known,
    );
    sent.extend(held_back);
    happened_once(&stand, &sent);
    worker.ready();
    assert!(stand.read(Service::Inventory, Topic::Dlq).is_empty());
    worker.stop();
}

/// Exactly these commands have outcomes.
fn happened(stand: &KafkaFixture, sent: &[Sent]) {
    let outcomes = stand.outcomes::<contracts::Inventory>();
    let mut heard: Vec<_> = outcomes
        .iter()
        .map(|outcome| &outcome.metadata.causation_id)
        .collect();
    let mut asked: Vec<_> = sent.iter().map(|sent| &sent.id).collect();
    heard.sort();
    asked.sort();
    assert_eq!(heard, asked);
}
