//! Faults of transactions: late ends and aborts.

use std::time::Duration;

use crate::chaos::{ChaosRig, PROCESSORS};
use crate::eventually::eventually;

const UNCLEAR: &str = "ordermesh_engine_failed_transactions_total{result=\"unclear\"";
const ABORTED: &str = "ordermesh_engine_failed_transactions_total{result=\"aborted\"";
const RECREATED: &str = "ordermesh_engine_producers_recreated_total";

/// Freezes the broker while a transaction ends. Then delays only the requests to end transactions, once by less and
/// once by more than the client's time-out. A worker that does not know the result of its transaction recreates its
/// producer.
pub fn unclear(rig: &mut ChaosRig) {
    for service in PROCESSORS {
        let chosen = rig.scale.select("orders", service);
        if service != chosen {
            continue;
        }
        let name = rig.random_replica(service);
        let before = unclear_ends(rig, &name);
        let intercepted = rig.intercept_transaction_end(&name);
        rig.stack.freeze("kafka");
        intercepted.release();
        rig.hold_fault(Duration::from_secs(5));
        rig.stack.thaw("kafka");
        rig.wait_for_progress("the broker was frozen while a transaction ended", "all");
        wait_for_recreation(rig, &[name], &[before]);
    }
    for (service, late) in [("payments", 4), ("inventory", 8)] {
        let names = [1, 2].map(|number| format!("{service}-{number}"));
        let before = names.each_ref().map(|name| unclear_ends(rig, name));
        let delayed = rig.stack.kafka[service].delayed_transaction_ends();
        rig.stack.kafka[service].delay_transaction_ends(Duration::from_secs(late));
        wait_for_recreation(rig, &names, &before);
        rig.hold_fault(rig.scale.seconds(0, 30));
        assert!(rig.stack.kafka[service].delayed_transaction_ends() > delayed);
        rig.stack.kafka[service].heal();
        rig.wait_for_progress(&format!("transaction ends were {late} s late"), service);
    }
}

/// Counters of a process: transactions with an unclear end, and recreated producers.
fn unclear_ends(rig: &ChaosRig, name: &str) -> [f64; 2] {
    [UNCLEAR, RECREATED].map(|sample| rig.metric(name, sample))
}

/// Waits until one process has had an unclear end and has recreated its producer.
fn wait_for_recreation(rig: &ChaosRig, names: &[String], before: &[[f64; 2]]) {
    eventually(
        "a worker recreates its producer after an unclear end",
        || {
            let acted = names.iter().zip(before).any(|(name, before)| {
                let now = unclear_ends(rig, name);
                now[0] > before[0] && now[1] > before[1]
            });
            acted.then_some(())
        },
    );
}

/// Five of a hundred transactions cannot be committed and are aborted with everything they have written.
pub fn aborts(rig: &mut ChaosRig) {
    let names = rig.processors();
    let before = rig.sum(&names, ABORTED);
    let refused = || PROCESSORS.map(|service| rig.stack.kafka[service].refused());
    let refused_before = refused();
    for service in PROCESSORS {
        rig.stack.kafka[service].refuse_offset_adds(5);
    }
    eventually("some transactions of each service are refused", || {
        let most = rig.scale.select(3, 15);
        let mut refused = refused().into_iter().zip(refused_before);
        refused
            .all(|(now, before)| now >= before + most)
            .then_some(())
    });
    rig.stack.heal();
    rig.wait_for_progress("transactions were aborted", "all");
    let aborted = rig.sum(&names, ABORTED) - before;
    assert!(aborted >= 4.0, "{aborted} transactions were aborted");
}
