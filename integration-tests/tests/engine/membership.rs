//! A place in the group that is lost for good, and a broker that is away.

use std::sync::atomic::Ordering;
use std::time::Duration;

use engine::log::{Log as _, Signal};
use harness::fault_injecting_log::{FaultInjectingLog, Steering};
use harness::{KafkaFixture, NoEffects, RunningWorker, eventually};
use inventory::StockRules;

use super::given::{checkpointed, eager, happened_once, random, stock_work};

/// A worker on two partitions whose consumer is steered.
fn steered(stand: &KafkaFixture) -> (RunningWorker, Steering) {
    let group = Steering::default();
    let log = FaultInjectingLog::steered(stand.log::<StockRules>("one"), group.clone());
    let worker = stand.run_on(StockRules::default(), NoEffects, log, eager());
    worker.ready();
    (worker, group)
}

#[test]
fn a_consumer_that_never_finds_its_group_again_is_made_anew() {
    let (stand, mut random) = (KafkaFixture::new(2), random());
    let (worker, group) = steered(&stand);
    let mut sent = stand.send_all(stock_work(&mut random, 100));
    happened_once(&stand, &sent);

    // A broker that is away is no reason, however long; one that answers is, after some seconds.
    group.away.store(20, Ordering::SeqCst);
    group.lost.store(true, Ordering::SeqCst);
    sent.extend(stand.send_all(stock_work(&mut random, 100)));
    happened_once(&stand, &sent);
    assert_eq!(group.away.load(Ordering::SeqCst), 0);
    assert!(group.answers.load(Ordering::SeqCst) >= 3);
    assert!(group.asked.load(Ordering::SeqCst) > 0);
    assert_eq!(group.rejoined.load(Ordering::SeqCst), 1);
    let recreated = engine::metrics::names::CONSUMERS_RECREATED.name;
    assert!((worker.figure(recreated) - 1.0).abs() < f64::EPSILON);
    checkpointed(&stand);
    worker.stop();
}

#[test]
fn a_broker_that_is_away_is_told_of_also_by_those_who_have_nothing_to_do() {
    let stand = KafkaFixture::new(2);
    let (worker, group) = steered(&stand);
    group.silent.store(true, Ordering::SeqCst);
    let reason = eventually("it is not ready", || worker.status.ready().err());
    assert!(reason.contains("silent by plan"), "{reason}");
    group.silent.store(false, Ordering::SeqCst);
    worker.ready();
    worker.stop();
}

#[test]
fn a_member_without_partitions_has_its_place() {
    let stand = KafkaFixture::new(1);
    let mut logs = [
        stand.log::<StockRules>("one"),
        stand.log::<StockRules>("two"),
    ];
    let mut owned = [0, 0];
    eventually("one has the partition, and both have a place", || {
        for (log, owned) in logs.iter_mut().zip(&mut owned) {
            let polled = log.poll(1, Duration::from_millis(10), &mut Vec::new());
            for signal in polled.expect("Kafka runs") {
                match signal {
                    Signal::Assigned(partitions) => *owned += partitions.len(),
                    Signal::Revoked(partitions) => *owned -= partitions.len(),
                    Signal::Reached { .. } | Signal::Disconnected => {}
                }
            }
        }
        let placed = logs.iter_mut().all(|log| log.generation().is_some());
        (placed && owned[0] + owned[1] == 1).then_some(())
    });
}
