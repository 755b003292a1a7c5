//! Several workers of one service.

use engine::worker::Error;
use harness::{KafkaFixture, NoEffects, eventually};
use inventory::StockRules;

use super::given::{checkpointed, eager, happened_once, random, stock_work};

#[test]
fn two_workers_share_the_partitions_under_load() {
    let (stand, mut random) = (KafkaFixture::new(4), random());
    let one = stand.run_as("one", StockRules::default(), NoEffects, eager());
    one.ready();
    let mut sent = Vec::new();
    let mut load = |portions: usize| {
        for _ in 0..portions {
            sent.extend(stand.send_all(stock_work(&mut random, 20)));
        }
    };
    load(20);
    let two = stand.run_as("two", StockRules::default(), NoEffects, eager());
    eventually("both have two partitions", || {
        load(1);
        let (one, two) = (one.status.running(), two.status.running());
        let all: std::collections::BTreeSet<_> = one.iter().chain(&two).copied().collect();
        (one.len() == 2 && two.len() == 2 && all.len() == 4).then_some(())
    });
    load(20);
    happened_once(&stand, &sent);
    checkpointed(&stand);
    one.stop();
    two.stop();
}

#[test]
fn a_worker_ends_when_another_comes_under_its_name() {
    let (stand, mut random) = (KafkaFixture::new(2), random());
    let one = stand.run_as("same", StockRules::default(), NoEffects, eager());
    one.ready();
    let mut sent = stand.send_all(stock_work(&mut random, 50));
    let two = stand.run_as("same", StockRules::default(), NoEffects, eager());
    sent.extend(stand.send_all(stock_work(&mut random, 50)));
    let error = one.failed();
    assert!(matches!(error, Error::Fenced(_)), "{error}");
    two.ready();
    sent.extend(stand.send_all(stock_work(&mut random, 50)));
    happened_once(&stand, &sent);
    checkpointed(&stand);
    two.stop();
}
