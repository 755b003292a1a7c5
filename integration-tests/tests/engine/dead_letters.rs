//! Records that can never be processed become dead letters once, and block nothing.

use contracts::{Inventory, Service, Topic};
use engine::headers;
use engine::log::Input;
use harness::kafka_fixture::metadata;
use harness::{KafkaFixture, NoEffects, eventually};
use inventory::StockRules;

use super::inventory_helpers::{
    adjust, frequent_checkpoints, fresh_id, sku_in_partition, wait_for_outcomes,
};

struct BadRecord {
    what: &'static str,
    class: &'static str,
    record: Input,
}

fn bad_records(fixture: &KafkaFixture) -> Vec<BadRecord> {
    let sku = sku_in_partition(fixture, 0);
    let good = {
        let message = contracts::Message::new(&sku, adjust(1));
        fixture
            .codec
            .encode_message(message, metadata(&fresh_id(), &sku))
    };
    let foreign = sku_in_partition(fixture, 1);
    let of_foreign = {
        let message = contracts::Message::new(&foreign, adjust(1));
        fixture
            .codec
            .encode_message(message, metadata(&fresh_id(), &foreign))
    };
    let unknown_id = [&registry::frame_header(4_000_000_000)[..], &good[6..]].concat();
    let of_other_topic = fixture.schemas.writer_id(Service::Inventory, Topic::Events);
    let other_topic = [&registry::frame_header(of_other_topic)[..], &good[6..]].concat();
    let invalid = {
        let message = contracts::Message::new(&sku, adjust(2_000_000_000));
        fixture
            .codec
            .encode_message(message, metadata(&fresh_id(), &sku))
    };
    let noise = {
        let mut random = fastrand::Rng::with_seed(7);
        // Close to Kafka's size limit: with additional headers it would not fit.
        std::iter::repeat_with(|| random.u8(1..))
            .take(1_040_000)
            .collect::<Vec<_>>()
    };
    let bad = |what, class, key: Option<&[u8]>, payload: Option<&[u8]>| BadRecord {
        what,
        class,
        record: Input {
            key: key.map(<[u8]>::to_vec),
            payload: payload.map(<[u8]>::to_vec),
            headers: vec![("sender".into(), b"a stranger".to_vec())],
            ..Input::default()
        },
    };
    let key = Some(sku.as_bytes());
    vec![
        bad("garbage", "unframed", key, Some(b"garbage")),
        bad("an empty payload", "unframed", key, Some(b"")),
        bad("no payload", "unframed", key, None),
        bad("a cut frame", "unframed", key, Some(&good[..5])),
        bad("a frame without a body", "empty", key, Some(&good[..6])),
        bad("a cut body", "undecodable", key, Some(&good[..20])),
        bad(
            "an unknown schema",
            "unknown-schema",
            key,
            Some(&unknown_id),
        ),
        bad(
            "the schema of another topic",
            "unknown-schema",
            key,
            Some(&other_topic),
        ),
        bad("a broken field rule", "invalid", key, Some(&invalid)),
        bad("no key", "wrong-key", None, Some(&good)),
        bad(
            "a key that is no text",
            "wrong-key",
            Some(&[0xff, 0xfe]),
            Some(&good),
        ),
        bad(
            "another key",
            "wrong-key",
            Some(foreign.as_bytes()),
            Some(&good),
        ),
        bad(
            "the wrong partition",
            "wrong-key",
            Some(foreign.as_bytes()),
            Some(&of_foreign),
        ),
        bad("as much noise as fits", "unframed", key, Some(&noise)),
    ]
}

#[test]
fn every_kind_of_bad_record_is_a_dead_letter_once() {
    let fixture = KafkaFixture::new(2);
    let worker = fixture.run(StockRules::default(), NoEffects, frequent_checkpoints());
    worker.wait_until_ready();
    let sku = sku_in_partition(&fixture, 0);
    let mut good = vec![fixture.send(&sku, adjust(1))];
    let mut written = Vec::new();
    for bad in bad_records(&fixture) {
        let offset = fixture.write(Service::Inventory, Topic::Commands, &bad.record);
        good.push(fixture.send(&sku, adjust(1)));
        written.push((offset, bad));
    }
    // The valid records around them are processed, so the invalid ones have been passed.
    wait_for_outcomes(&fixture, &good);
    worker.stop();

    // A restart writes no duplicates.
    let worker = fixture.run(StockRules::default(), NoEffects, frequent_checkpoints());
    worker.wait_until_ready();
    good.push(fixture.send(&sku, adjust(1)));
    wait_for_outcomes(&fixture, &good);
    let states = eventually("the state is checkpointed", || {
        let states = fixture.states::<Inventory>();
        (states[&sku].metadata.aggregate_version == good.len() as u64).then_some(states)
    });
    assert_eq!(states[&sku].body.on_hand, good.len() as u64);
    worker.stop();

    let dead = fixture.read(Service::Inventory, Topic::Dlq);
    assert_eq!(dead.len(), written.len(), "each once");
    for (letter, (offset, bad)) in dead.iter().zip(&written) {
        let what = bad.what;
        let text = |name| String::from_utf8_lossy(letter.header(name).unwrap_or_default());
        assert_eq!(letter.partition, 0, "{what}");
        assert_eq!(letter.key, bad.record.key, "{what}");
        let payload = bad.record.payload.clone().unwrap_or_default();
        let kept = letter.payload.clone().unwrap_or_default();
        assert!(payload.starts_with(&kept), "{what}");
        if kept.len() < payload.len() {
            assert!(payload.len() > 900_000, "{what} is cut");
            assert_eq!(text(headers::DEAD_CUT_FROM), payload.len().to_string());
        }
        assert_eq!(
            letter.payload.is_none(),
            bad.record.payload.is_none(),
            "{what}"
        );
        assert_eq!(text("sender"), "a stranger", "{what}");
        let topic = fixture.cluster.topic(Service::Inventory, Topic::Commands);
        assert_eq!(text(headers::DEAD_SOURCE_TOPIC), topic, "{what}");
        assert_eq!(text(headers::DEAD_SOURCE_PARTITION), "0", "{what}");
        assert_eq!(
            text(headers::DEAD_SOURCE_OFFSET),
            offset.to_string(),
            "{what}"
        );
        assert_eq!(text(headers::DEAD_ERROR_CLASS), bad.class, "{what}");
        assert!(!text(headers::DEAD_ERROR_MESSAGE).is_empty(), "{what}");
        assert!(
            text(headers::DEAD_TIME).parse::<i64>().unwrap() > 0,
            "{what}"
        );
    }
}

#[test]
fn a_log_full_of_bad_records_is_not_drained() {
    let fixture = KafkaFixture::new(1);
    let open = fixture.begin();
    let commands = fixture.cluster.topic(Service::Inventory, Topic::Commands);
    for _ in 0..200 {
        let record = Input {
            payload: Some(b"garbage".to_vec()),
            ..Input::default()
        };
        open.write(&commands, &record);
    }
    open.commit();
    let worker = fixture.run(StockRules::default(), NoEffects, frequent_checkpoints());
    let error = worker.wait_for_failure().to_string();
    assert!(error.contains("dead letters"), "{error}");
    assert!(fixture.read(Service::Inventory, Topic::Dlq).is_empty());
    assert_eq!(fixture.committed(Service::Inventory, 0), None);
}
