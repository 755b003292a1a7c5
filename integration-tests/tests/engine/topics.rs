//! Checks of topics against their declared settings.

use engine::Cluster;
use engine::topics::{self, Drift, Error};
use harness::{KafkaFixture, eventually};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;

#[test]
fn a_changed_topic_setting_is_detected() {
    let fixture = KafkaFixture::new(1);
    let drifted = || fixture.runtime.block_on(topics::drifted(&fixture.cluster));
    assert_eq!(drifted().unwrap(), [], "as they were made");

    let topic = format!("{}orders.events", fixture.cluster.prefix);
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", &fixture.cluster.bootstrap)
        .create()
        .unwrap();
    let change = [AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("retention.ms", "1000")];
    let changed = admin.alter_configs(&change, &AdminOptions::new());
    fixture.runtime.block_on(changed).unwrap();
    let found = eventually("the change is detected", || {
        Some(drifted().unwrap()).filter(|drifted| !drifted.is_empty())
    });
    let expected = Drift {
        topic,
        setting: "retention.ms",
        found: "1000".into(),
        wanted: "-1",
    };
    assert_eq!(found, [expected]);
}

#[test]
fn nonexistent_topics_are_reported_as_missing() {
    let fixture = KafkaFixture::new(1);
    let nowhere = Cluster {
        prefix: format!("{}nowhere-", fixture.cluster.prefix),
        ..Cluster::clone(&fixture.cluster)
    };
    let drifted = fixture.runtime.block_on(topics::drifted(&nowhere));
    for found in [topics::check(&nowhere), drifted.map(drop)] {
        let Err(Error::Missing { topics }) = found else {
            panic!("{found:?}")
        };
        assert_eq!(topics.len(), 20);
    }
}
