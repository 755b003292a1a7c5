//! Partitions whose records are not delivered although the worker is a member and the broker answers.

use contracts::{Service, Topic};
use engine::log::Input;
use engine::metrics::names::STANDING_PARTITIONS;
use harness::{KafkaFixture, NoEffects, eventually};
use inventory::StockRules;

use super::inventory_helpers::{
    assert_processed_once, frequent_checkpoints, random_stock_commands, seeded_rng,
};

#[test]
fn commands_blocked_by_an_open_transaction_are_reported_and_resume_when_it_ends() {
    let (fixture, mut random) = (KafkaFixture::new(1), seeded_rng());
    let worker = fixture.run(StockRules::default(), NoEffects, frequent_checkpoints());
    worker.wait_until_ready();
    let mut sent = fixture.send_all(random_stock_commands(&mut random, 20));
    assert_processed_once(&fixture, &sent);

    let open = fixture.begin();
    let commands = fixture.cluster.topic(Service::Inventory, Topic::Commands);
    let held = Input {
        key: Some(b"never seen".to_vec()),
        ..Input::default()
    };
    open.write(&commands, &held);
    sent.extend(fixture.send_all(random_stock_commands(&mut random, 20)));
    let reason = eventually("the blocked partition is reported", || {
        let reason = worker.status.ready().err()?;
        reason.contains("stalled at").then_some(reason)
    });
    assert!(
        reason.starts_with("partition 0: stalled at offset "),
        "{reason}"
    );
    assert!(
        reason.contains("a transaction that has not ended"),
        "{reason}"
    );
    eventually("the metric is updated", || {
        (worker.metric(STANDING_PARTITIONS.name) > 0.5).then_some(())
    });

    open.abort();
    worker.wait_until_ready();
    assert_processed_once(&fixture, &sent);
    eventually("the metric is updated", || {
        (worker.metric(STANDING_PARTITIONS.name) < 0.5).then_some(())
    });
    worker.stop();
}
