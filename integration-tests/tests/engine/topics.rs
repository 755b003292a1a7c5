//! The topics, as they were made and as somebody has changed them since.

use engine::Cluster;
use engine::topics::{self, Drift, Error};
use harness::{KafkaFixture, eventually};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;

#[test]
fn a_setting_that_somebody_has_changed_is_found() {
    let stand = KafkaFixture::new(1);
    let drifted = || stand.runtime.block_on(topics::drifted(&stand.cluster));
    assert_eq!(drifted().unwrap(), [], "as they were made");

    let topic = format!("{}orders.events", stand.cluster.prefix);
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", &stand.cluster.bootstrap)
        .create()
        .unwrap();
    let change = [AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("retention.ms", "1000")];
    let changed = admin.alter_configs(&change, &AdminOptions::new());
    stand.runtime.block_on(changed).unwrap();
    let found = eventually("the change is seen", || {
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
fn topics_that_nobody_has_made_are_missing() {
    let stand = KafkaFixture::new(1);
    let nowhere = Cluster {
        prefix: format!("{}nowhere-", stand.cluster.prefix),
        ..Cluster::clone(&stand.cluster)
    };
    let drifted = stand.runtime.block_on(topics::drifted(&nowhere));
    for found in [topics::check(&nowhere), drifted.map(drop)] {
        let Err(Error::Missing { topics }) = found else {
            panic!("{found:?}")
        };
        assert_eq!(topics.len(), 20);
    }
}
