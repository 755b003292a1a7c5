//! Partitions that stand still although the worker has its place and the broker answers.

use contracts::{Service, Topic};
use engine::log::Input;
use engine::metrics::names::STANDING_PARTITIONS;
use harness::{KafkaFixture, NoEffects, eventually};
use inventory::StockRules;

use super::given::{eager, happened_once, random, stock_work};

#[test]
fn commands_behind_an_open_transaction_are_named_and_go_on_when_it_ends() {
    let (stand, mut random) = (KafkaFixture::new(1), random());
    let worker = stand.run(StockRules::default(), NoEffects, eager());
    worker.ready();
    let mut sent = stand.send_all(stock_work(&mut random, 20));
    happened_once(&stand, &sent);

    let open = stand.begin();
    let commands = stand.cluster.topic(Service::Inventory, Topic::Commands);
    let held = Input {
        key: Some(b"never seen".to_vec()),
        ..Input::default()
    };
    open.write(&commands, &held);
    sent.extend(stand.send_all(stock_work(&mut random, 20)));
    let reason = eventually("the partition is named", || {
        let reason = worker.status.ready().err()?;
        reason.contains("stands still").then_some(reason)
    });
    assert!(
        reason.starts_with("partition 0: stands still at offset "),
        "{reason}"
    );
    assert!(
        reason.contains("a transaction that has not ended"),
        "{reason}"
    );
    eventually("the metric says so", || {
        (worker.figure(STANDING_PARTITIONS.name) > 0.5).then_some(())
    });

    open.abort();
    worker.ready();
    happened_once(&stand, &sent);
    eventually("the metric says so", || {
        (worker.figure(STANDING_PARTITIONS.name) < 0.5).then_some(())
    });
    worker.stop();
}
