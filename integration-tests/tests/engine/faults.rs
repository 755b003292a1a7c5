//! Transactions that fail lose and double nothing.

use harness::fault_injecting_log::{Fault, FaultInjectingLog, Plan};
use harness::{KafkaFixture, NoEffects};
use inventory::StockRules;

use super::given::{answered, checkpointed, eager, happened_once, random, stock_work};

/// Sends work in small portions and waits for each, so that it takes many transactions.
fn work_through(stand: &KafkaFixture, plan: &Plan) -> Vec<harness::Sent> {
    let mut random = random();
    let mut sent = Vec::new();
    while !plan.is_over() || sent.len() < 300 {
        sent.extend(stand.send_all(stock_work(&mut random, 10)));
        answered(stand, &sent);
        assert!(sent.len() < 2_000, "the plan does not come to its end");
    }
    sent
}

fn survives(plan: Plan) {
    let stand = KafkaFixture::new(2);
    let log = FaultInjectingLog::new(stand.log::<StockRules>("one"), plan.clone());
    let worker = stand.run_on(StockRules::default(), NoEffects, log, eager());
    worker.ready();
    let sent = work_through(&stand, &plan);
    happened_once(&stand, &sent);
    checkpointed(&stand);
    assert!(worker.figure("ordermesh_engine_failed_transactions_total") > 0.0);
    worker.stop();
}

#[test]
fn what_was_aborted_is_done_again() {
    survives(Plan::new([
        (2, Fault::Abort),
        (5, Fault::Abort),
        (6, Fault::Abort),
    ]));
}

#[test]
fn what_was_aborted_behind_written_records_is_done_again() {
    survives(Plan::new([
        (2, Fault::AbortBehindData),
        (5, Fault::AbortBehindData),
    ]));
}

#[test]
fn what_ended_unclear_and_was_lost_is_done_again() {
    survives(Plan::new([
        (2, Fault::UnclearAndLost),
        (5, Fault::UnclearAndLost),
    ]));
}

#[test]
fn what_ended_unclear_but_was_committed_is_not_done_again() {
    survives(Plan::new([
        (2, Fault::UnclearButCommitted),
        (5, Fault::UnclearButCommitted),
    ]));
}

/// A request to make a producer that comes a second time, late, fences the producer that was made meanwhile.
#[test]
fn who_is_fenced_by_nobody_goes_on() {
    survives(Plan::new([
        (2, Fault::FencedByNobody),
        (5, Fault::FencedByNobody),
    ]));
}

#[test]
fn a_run_of_faults_loses_nothing() {
    let faults = [
        Fault::Abort,
        Fault::UnclearButCommitted,
        Fault::AbortBehindData,
        Fault::UnclearAndLost,
    ];
    let mut random = random();
    let mut at = 0;
    survives(Plan::new((0..12).map(|_| {
        at += random.usize(1..6);
        (at, faults[random.usize(..faults.len())])
    })));
}
