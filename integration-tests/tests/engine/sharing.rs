//! Several workers of one service.

use engine::worker::Error;
use harness::{KafkaFixture, NoEffects, eventually};
use inventory::StockRules;

use super::inventory_helpers::{
    assert_processed_once, frequent_checkpoints, random_stock_commands, seeded_rng,
    wait_for_checkpoints,
};

#[test]
fn two_workers_share_the_partitions_under_load() {
    let (fixture, mut random) = (KafkaFixture::new(4), seeded_rng());
    let one = fixture.run_as(
        "one",
        StockRules::default(),
        NoEffects,
        frequent_checkpoints(),
    );
    one.wait_until_ready();
    let mut sent = Vec::new();
    let mut load = |portions: usize| {
        for _ in 0..portions {
            sent.extend(fixture.send_all(random_stock_commands(&mut random, 20)));
        }
    };
    load(20);
    let two = fixture.run_as(
        "two",
        StockRules::default(),
        NoEffects,
        frequent_checkpoints(),
    );
    eventually("both have two partitions", || {
        load(1);
        let (one, two) = (one.status.restored(), two.status.restored());
        let all: std::collections::BTreeSet<_> = one.iter().chain(&two).copied().collect();
        (one.len() == 2 && two.len() == 2 && all.len() == 4).then_some(())
    });
    load(20);
    assert_processed_once(&fixture, &sent);
    wait_for_checkpoints(&fixture);
    one.stop();
    two.stop();
}

#[test]
fn a_worker_ends_when_another_starts_with_its_instance_name() {
    let (fixture, mut random) = (KafkaFixture::new(2), seeded_rng());
    let one = fixture.run_as(
        "same",
        StockRules::default(),
        NoEffects,
        frequent_checkpoints(),
    );
    one.wait_until_ready();
    let mut sent = fixture.send_all(random_stock_commands(&mut random, 50));
    let two = fixture.run_as(
        "same",
        StockRules::default(),
        NoEffects,
        frequent_checkpoints(),
    );
    sent.extend(fixture.send_all(random_stock_commands(&mut random, 50)));
    let error = one.wait_for_failure();
    assert!(matches!(error, Error::Fenced(_)), "{error}");
    two.wait_until_ready();
    sent.extend(fixture.send_all(random_stock_commands(&mut random, 50)));
    assert_processed_once(&fixture, &sent);
    wait_for_checkpoints(&fixture);
    two.stop();
}
