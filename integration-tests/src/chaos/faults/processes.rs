//! Faults of processes: killed, frozen, started twice, added, removed, restarted.

use crate::chaos::proxy::Step;
use crate::chaos::{ChaosRig, PROCESSORS};
use crate::eventually::eventually;

/// Transactions that were refused because the process had been fenced.
const FENCED: &str = "ordermesh_engine_failed_transactions_total{result=\"fenced\"";

/// Lower limit of kills during a sale. On a slow machine its orders may be acknowledged, though not final, before that.
const MIN_KILLS: usize = 3;
/// Orders between two kills.
const ORDERS_BETWEEN_KILLS: std::ops::Range<u64> = 10..40;

/// Kills each service in turn at random points, each processor between the flush of a transaction and its commit, and
/// the projectors between an SQL commit and the next poll.
pub fn kills(rig: &mut ChaosRig) {
    for _ in 0..rig.scale.select(1, 2) {
        let mut names = rig.names();
        rig.random.shuffle(&mut names);
        if rig.scale.select(true, false) {
            // One process of each service.
            let mut services = std::collections::BTreeSet::new();
            names.retain(|name| services.insert(name.split('-').next().map(str::to_owned)));
        }
        for name in names {
            rig.load
                .wait_for_orders(rig.random.u64(ORDERS_BETWEEN_KILLS));
            rig.system.kill(&name);
            restart_and_wait(rig, &format!("kill of {name}"), &[&name]);
        }
        let mut services = PROCESSORS;
        rig.random.shuffle(&mut services);
        for service in services.into_iter().take(rig.scale.select(2, 4)) {
            kill_before_commit(rig, service);
        }
        kill_after_sql_commit(rig);
    }
}

/// Kills one process after the other until every order of the load is answered, at least [`MIN_KILLS`].
pub fn kill_until_finished(rig: &mut ChaosRig) {
    let mut killed = 0;
    while killed < MIN_KILLS || !rig.load.is_finished() {
        let names = rig.names();
        let name = &names[rig.random.usize(..names.len())];
        rig.system.kill(name);
        killed += 1;
        rig.start(name);
        rig.system.wait_until_ready(name);
        let wanted = rig.load.acknowledged() + rig.random.u64(ORDERS_BETWEEN_KILLS) * 4;
        eventually("more orders are acknowledged", || {
            (rig.load.acknowledged() >= wanted || rig.load.is_finished()).then_some(())
        });
    }
    println!("{killed} kills");
}

fn kill_before_commit(rig: &mut ChaosRig, service: &str) {
    let name = rig.random_replica(service);
    let intercepted = rig.intercept_transaction_end(&name);
    rig.system.kill(&name);
    intercepted.discard();
    restart_and_wait(
        rig,
        &format!("kill of {name} between flush and commit"),
        &[&name],
    );
}

fn kill_after_sql_commit(rig: &mut ChaosRig) {
    let committed = rig.stack.postgres.intercept(Step::SqlCommitted).wait();
    // Either projector may be the one that has committed.
    let names = ["query-1", "query-2"];
    for name in names {
        rig.system.kill(name);
    }
    committed.discard();
    restart_and_wait(rig, "kill of the projectors behind an sql commit", &names);
}

fn restart_and_wait(rig: &mut ChaosRig, what: &str, names: &[&str]) {
    for name in names {
        rig.start(name);
    }
    rig.wait_for_progress(what, rig.service_of(names[0]));
    for name in names {
        rig.system.wait_until_ready(name);
    }
}

/// Freezes a processor with an open transaction. Another takes over its partitions. When it thaws, its transaction is
/// refused; it logs that and rejoins the group.
pub fn zombies(rig: &mut ChaosRig) {
    for service in PROCESSORS {
        // The long scale covers all services.
        let chosen = rig.scale.select("payments", service);
        if service != chosen {
            continue;
        }
        let name = rig.random_replica(service);
        let other = rig.other_replica(&name);
        let fenced = rig.metric(&name, FENCED);
        let intercepted = rig.intercept_transaction_end(&name);
        rig.system.freeze(&name);
        intercepted.discard();
        rig.wait_for_assignment(&[&other], &[4]);
        rig.wait_for_progress(&format!("freeze of {name}, its session over"), service);
        rig.load.wait_for_orders(50);
        rig.system.thaw(&name);
        eventually("the zombie is fenced", || {
            (rig.metric(&name, FENCED) > fenced).then_some(())
        });
        let logged = rig.system.last_log_line(&name, "transaction failed");
        assert!(logged.contains("fenced"), "{logged}");
        rig.wait_for_assignment(&[&name, &other], &[2, 2]);
        rig.system.wait_until_ready(&name);
    }
}

/// Starts a second process with the same instance id. The first ends with a clear error; the second continues
/// undisturbed.
pub fn twins(rig: &mut ChaosRig) {
    for service in PROCESSORS {
        let chosen = rig.scale.select("orders", service);
        if service != chosen {
            continue;
        }
        let name = rig.random_replica(service);
        let twin = format!("{name}-twin");
        let message = "another process runs with this instance id";
        let logged = rig.system.count_log_lines(&name, message);
        let same = [("ORDERMESH_INSTANCE", name.clone())];
        rig.start_extra(&twin, service, &same);
        let status = rig.system.wait_for_exit(&name);
        assert!(!status.success(), "{name} ended with {status}");
        assert!(
            rig.system.count_log_lines(&name, message) > logged,
            "{}",
            rig.system.log_tail(&name)
        );
        rig.system.wait_until_ready(&twin);
        rig.wait_for_progress(&format!("a twin of {name}"), service);
        rig.load.wait_for_orders(100);
        let recreated = "ordermesh_engine_producers_recreated_total";
        assert!(
            rig.metric(&twin, recreated) < 2.0,
            "the other process continues undisturbed"
        );
        rig.system.kill(&twin);
        restart_and_wait(rig, &format!("{name} in the place of its twin"), &[&name]);
    }
}

/// Adds and removes workers continuously.
pub fn churn(rig: &mut ChaosRig) {
    let mut more: Vec<String> = Vec::new();
    for turn in 0..rig.scale.select(6, 36) {
        if more.len() < 2 && (more.is_empty() || rig.random.bool()) {
            let service = PROCESSORS[rig.random.usize(..PROCESSORS.len())];
            let name = format!("{service}-more-{turn}");
            rig.start_extra(&name, service, &[]);
            rig.system.wait_until_ready(&name);
            more.push(name);
        } else {
            let name = more.swap_remove(rig.random.usize(..more.len()));
            if rig.random.bool() {
                rig.system.kill(&name);
            } else {
                let status = rig.system.terminate(&name);
                assert!(status.success(), "{name} ended with {status}");
            }
        }
        rig.hold_fault(rig.scale.seconds(3, 5));
    }
    for name in more {
        assert!(rig.system.terminate(&name).success());
    }
    for service in PROCESSORS {
        let names = [1, 2].map(|number| format!("{service}-{number}"));
        rig.wait_for_assignment(&[&names[0], &names[1]], &[2, 2]);
    }
    rig.wait_for_progress("workers joined and left", "all");
}

/// Restarts one process after the other gracefully. No call needs more than one retry.
pub fn restarts(rig: &mut ChaosRig) {
    rig.load.take_most_failures();
    for round in 1..=rig.scale.select(1, 3) {
        for name in rig.names() {
            rig.load.wait_for_orders(10);
            let status = rig.system.terminate(&name);
            assert!(
                status.success(),
                "{name} ended with {status}:\n{}",
                rig.system.log_tail(&name)
            );
            rig.start(&name);
            rig.system.wait_until_ready(&name);
        }
        rig.wait_for_progress(&format!("restart of everything, {round}"), "all");
    }
    let failures = rig.load.take_most_failures();
    assert!(
        failures.len() <= 1,
        "a call failed more than once: {failures:#?}"
    );
}
