//! Failed transactions lose and duplicate nothing.

use harness::fault_injecting_log::{Fault, FaultInjectingLog, Plan};
use harness::{KafkaFixture, NoEffects};
use inventory::StockRules;

use super::inventory_helpers::{
    assert_processed_once, frequent_checkpoints, random_stock_commands, seeded_rng,
    wait_for_checkpoints, wait_for_outcomes,
};

/// Sends commands in small batches and waits for each, so that they take many transactions.
fn process_in_batches(fixture: &KafkaFixture, plan: &Plan) -> Vec<harness::SentCommand> {
    let mut random = seeded_rng();
    let mut sent = Vec::new();
    while !plan.is_over() || sent.len() < 300 {
        sent.extend(fixture.send_all(random_stock_commands(&mut random, 10)));
        wait_for_outcomes(fixture, &sent);
        assert!(sent.len() < 2_000, "the plan does not end");
    }
    sent
}

fn assert_survives(plan: Plan) {
    let fixture = KafkaFixture::new(2);
    let log = FaultInjectingLog::new(fixture.log::<StockRules>("one"), plan.clone());
    let worker = fixture.run_on(
        StockRules::default(),
        NoEffects,
        log,
        frequent_checkpoints(),
    );
    worker.wait_until_ready();
    let sent = process_in_batches(&fixture, &plan);
    assert_processed_once(&fixture, &sent);
    wait_for_checkpoints(&fixture);
    assert!(worker.metric("ordermesh_engine_failed_transactions_total") > 0.0);
    worker.stop();
}

#[test]
fn aborted_transactions_are_retried() {
    assert_survives(Plan::new([
        (2, Fault::Abort),
        (5, Fault::Abort),
        (6, Fault::Abort),
    ]));
}

#[test]
fn transactions_aborted_after_writes_are_retried() {
    assert_survives(Plan::new([
        (2, Fault::AbortAfterWrite),
        (5, Fault::AbortAfterWrite),
    ]));
}

#[test]
fn unclear_lost_transactions_are_retried() {
    assert_survives(Plan::new([
        (2, Fault::UnclearAndLost),
        (5, Fault::UnclearAndLost),
    ]));
}

#[test]
fn unclear_committed_transactions_are_not_repeated() {
    assert_survives(Plan::new([
        (2, Fault::UnclearButCommitted),
        (5, Fault::UnclearButCommitted),
    ]));
}

/// A producer request that is delivered late a second time fences the producer that was created meanwhile.
#[test]
fn a_worker_fenced_without_a_successor_continues() {
    assert_survives(Plan::new([
        (2, Fault::FencedWithoutSuccessor),
        (5, Fault::FencedWithoutSuccessor),
    ]));
}

#[test]
fn consecutive_faults_lose_nothing() {
    let faults = [
        Fault::Abort,
        Fault::UnclearButCommitted,
        Fault::AbortAfterWrite,
        Fault::UnclearAndLost,
    ];
    let mut random = seeded_rng();
    let mut at = 0;
    assert_survives(Plan::new((0..12).map(|_| {
        at += random.usize(1..6);
        (at, faults[random.usize(..faults.len())])
    })));
}
