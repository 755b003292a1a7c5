//! Ends of transactions that are late, and transactions that are aborted.

use std::time::Duration;

use crate::chaos::{ChaosRig, PROCESSORS};
use crate::eventually::eventually;

const UNCLEAR: &str = "ordermesh_engine_failed_transactions_total{result=\"unclear\"";
const ABORTED: &str = "ordermesh_engine_failed_transactions_total{result=\"aborted\"";
const RECREATED: &str = "ordermesh_engine_producers_recreated_total";

/// The broker freezes while a transaction ends; then only the requests to end transactions are late, once by less and
/// once by more than a client waits. Whoever does not know how its transaction ended makes its producer anew.
pub fn unclear(ground: &mut ChaosRig) {
    for service in PROCESSORS {
        let chosen = ground.form.of("orders", service);
        if service != chosen {
            continue;
        }
        let name = ground.one_of(service);
        let before = seen(ground, &name);
        let caught = ground.ends_transaction(&name);
        ground.stack.freeze("kafka");
        caught.release();
        ground.lasts(Duration::from_secs(5));
        ground.stack.thaw("kafka");
        ground.progress("the broker was frozen while a transaction ended", "all");
        acted(ground, &[name], &[before]);
    }
    for (service, late) in [("payments", 4), ("inventory", 8)] {
        let names = [1, 2].map(|number| format!("{service}-{number}"));
        let before = names.each_ref().map(|name| seen(ground, name));
        let delayed = ground.stack.kafka[service].delayed();
        ground.stack.kafka[service].delay_ends(Duration::from_secs(late));
        acted(ground, &names, &before);
        ground.lasts(ground.form.seconds(0, 30));
        assert!(ground.stack.kafka[service].delayed() > delayed);
        ground.stack.kafka[service].heal();
        ground.progress(&format!("ends of transactions came {late} s late"), service);
    }
}

/// Transactions with an unclear end, and producers made anew.
fn seen(ground: &ChaosRig, name: &str) -> [f64; 2] {
    [UNCLEAR, RECREATED].map(|sample| ground.figure(name, sample))
}

/// Waits until one of these has both seen an unclear end and made its producer anew.
fn acted(ground: &ChaosRig, names: &[String], before: &[[f64; 2]]) {
    eventually("the rule for unclear ends acts", || {
        let acted = names.iter().zip(before).any(|(name, before)| {
            let now = seen(ground, name);
            now[0] > before[0] && now[1] > before[1]
        });
        acted.then_some(())
    });
}

/// Five of a hundred transactions cannot be committed, and are aborted with all that they have written.
pub fn aborts(ground: &mut ChaosRig) {
    let names = ground.processors();
    let before = ground.sum(&names, ABORTED);
    let refused = || PROCESSORS.map(|service| ground.stack.kafka[service].refused());
    let refused_before = refused();
    for service in PROCESSORS {
        ground.stack.kafka[service].refuse(5);
    }
    eventually("some transactions of each service are refused", || {
        let most = ground.form.of(3, 15);
        let mut refused = refused().into_iter().zip(refused_before);
        refused
            .all(|(now, before)| now >= before + most)
            .then_some(())
    });
    ground.stack.heal();
    ground.progress("transactions were aborted", "all");
    let aborted = ground.sum(&names, ABORTED) - before;
    assert!(aborted >= 4.0, "{aborted} transactions were aborted");
}
