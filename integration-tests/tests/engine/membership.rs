//! Lost group membership, and a broker that is away.

use std::sync::atomic::Ordering;
use std::time::Duration;

use engine::log::{Log as _, Signal};
use harness::fault_injecting_log::{ConsumerControl, FaultInjectingLog};
use harness::{KafkaFixture, NoEffects, RunningWorker, eventually};
use inventory::StockRules;

use super::inventory_helpers::{
    assert_processed_once, frequent_checkpoints, random_stock_commands, seeded_rng,
    wait_for_checkpoints,
};

/// A worker on two partitions whose consumer is controlled.
fn controlled(fixture: &KafkaFixture) -> (RunningWorker, ConsumerControl) {
    let consumer = ConsumerControl::default();
    let log = FaultInjectingLog::controlled(fixture.log::<StockRules>("one"), consumer.clone());
    let worker = fixture.run_on(
        StockRules::default(),
        NoEffects,
        log,
        frequent_checkpoints(),
    );
    worker.wait_until_ready();
    (worker, consumer)
}

#[test]
fn a_consumer_that_cannot_rejoin_its_group_is_recreated() {
    let (fixture, mut random) = (KafkaFixture::new(2), seeded_rng());
    let (worker, consumer) = controlled(&fixture);
    let mut sent = fixture.send_all(random_stock_commands(&mut random, 100));
    assert_processed_once(&fixture, &sent);

    // The worker recreates its consumer only after the broker has answered for some seconds, however long the outage.
    consumer.failing_probes.store(20, Ordering::SeqCst);
    consumer.membership_lost.store(true, Ordering::SeqCst);
    sent.extend(fixture.send_all(random_stock_commands(&mut random, 100)));
    assert_processed_once(&fixture, &sent);
    assert_eq!(consumer.failing_probes.load(Ordering::SeqCst), 0);
    assert!(consumer.answered_probes.load(Ordering::SeqCst) >= 3);
    assert!(consumer.coordinator_lookups.load(Ordering::SeqCst) > 0);
    assert_eq!(consumer.recreations.load(Ordering::SeqCst), 1);
    let recreated = engine::metrics::names::CONSUMERS_RECREATED.name;
    assert!((worker.metric(recreated) - 1.0).abs() < f64::EPSILON);
    wait_for_checkpoints(&fixture);
    worker.stop();
}

#[test]
fn an_idle_worker_reports_a_broker_outage() {
    let fixture = KafkaFixture::new(2);
    let (worker, consumer) = controlled(&fixture);
    consumer.unresponsive.store(true, Ordering::SeqCst);
    let reason = eventually("it is not ready", || worker.status.ready().err());
    assert!(reason.contains("silent by plan"), "{reason}");
    consumer.unresponsive.store(false, Ordering::SeqCst);
    worker.wait_until_ready();
    worker.stop();
}

#[test]
fn a_member_without_partitions_keeps_its_membership() {
    let fixture = KafkaFixture::new(1);
    let mut logs = [
        fixture.log::<StockRules>("one"),
        fixture.log::<StockRules>("two"),
    ];
    let mut owned = [0, 0];
    eventually("one owns the partition, and both are members", || {
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
