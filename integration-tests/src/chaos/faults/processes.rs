//! Processes that are killed, frozen, doubled, added, removed, restarted.

use crate::chaos::proxy::Step;
use crate::chaos::{ChaosRig, PROCESSORS};
use crate::eventually::eventually;

/// Transactions of a process that were not its own any more.
const FENCED: &str = "ordermesh_engine_failed_transactions_total{result=\"fenced\"";

/// Kills that a sale has at least. On a slow machine its orders may have their answers before; they are not final then.
const KILLS: usize = 3;
/// Orders between two strikes, at most.
const BETWEEN: std::ops::Range<u64> = 10..40;

/// Each service in turn, at random points; each processor between the flush of a transaction and its commit; the
/// projectors between an SQL commit and the next poll.
pub fn kills(ground: &mut ChaosRig) {
    for _ in 0..ground.form.of(1, 2) {
        let mut names = ground.names();
        ground.random.shuffle(&mut names);
        if ground.form.of(true, false) {
            // One process of each service.
            let mut seen = std::collections::BTreeSet::new();
            names.retain(|name| seen.insert(name.split('-').next().map(str::to_owned)));
        }
        for name in names {
            ground.load.goes_on(ground.random.u64(BETWEEN));
            ground.system.kill(&name);
            revive(ground, &format!("kill of {name}"), &[&name]);
        }
        let mut services = PROCESSORS;
        ground.random.shuffle(&mut services);
        for service in services.into_iter().take(ground.form.of(2, 4)) {
            before_its_commit(ground, service);
        }
        behind_an_sql_commit(ground);
    }
}

/// One process after the other, until every order of the load has its answer; some at least.
pub fn kills_until_over(ground: &mut ChaosRig) {
    let mut killed = 0;
    while killed < KILLS || !ground.load.is_over() {
        let names = ground.names();
        let name = &names[ground.random.usize(..names.len())];
        ground.system.kill(name);
        killed += 1;
        ground.start(name);
        ground.system.ready(name);
        let wanted = ground.load.acknowledged() + ground.random.u64(BETWEEN) * 4;
        eventually("more orders are acknowledged", || {
            (ground.load.acknowledged() >= wanted || ground.load.is_over()).then_some(())
        });
    }
    println!("{killed} kills");
}

fn before_its_commit(ground: &mut ChaosRig, service: &str) {
    let name = ground.one_of(service);
    let caught = ground.ends_transaction(&name);
    ground.system.kill(&name);
    caught.lose();
    revive(
        ground,
        &format!("kill of {name} between flush and commit"),
        &[&name],
    );
}

fn behind_an_sql_commit(ground: &mut ChaosRig) {
    let committed = ground.stack.postgres.catch(Step::HasCommitted).seen();
    // Whichever of the two it was.
    let names = ["query-1", "query-2"];
    for name in names {
        ground.system.kill(name);
    }
    committed.lose();
    revive(
        ground,
        "kill of the projectors behind an sql commit",
        &names,
    );
}

fn revive(ground: &mut ChaosRig, what: &str, names: &[&str]) {
    for name in names {
        ground.start(name);
    }
    ground.progress(what, ground.service_of(names[0]));
    for name in names {
        ground.system.ready(name);
    }
}

/// A transaction is open when its owner freezes. Others take its partitions over; when it thaws it is refused, says so,
/// and comes back to the group.
pub fn zombies(ground: &mut ChaosRig) {
    for service in PROCESSORS {
        // All of them in the long form.
        let chosen = ground.form.of("payments", service);
        if service != chosen {
            continue;
        }
        let name = ground.one_of(service);
        let other = ground.other(&name);
        let fenced = ground.figure(&name, FENCED);
        let caught = ground.ends_transaction(&name);
        ground.system.freeze(&name);
        caught.lose();
        ground.spread(&[&other], &[4]);
        ground.progress(&format!("freeze of {name}, its session over"), service);
        ground.load.goes_on(50);
        ground.system.thaw(&name);
        eventually("the zombie is fenced", || {
            (ground.figure(&name, FENCED) > fenced).then_some(())
        });
        let said = ground.system.said(&name, "transaction failed");
        assert!(said.contains("fenced"), "{said}");
        ground.spread(&[&name, &other], &[2, 2]);
        ground.system.ready(&name);
    }
}

/// The one that was there ends with a clear error; the other goes on, and is not disturbed again.
pub fn twins(ground: &mut ChaosRig) {
    for service in PROCESSORS {
        let chosen = ground.form.of("orders", service);
        if service != chosen {
            continue;
        }
        let name = ground.one_of(service);
        let twin = format!("{name}-twin");
        let says = "another process runs with this instance id";
        let said = ground.system.times_said(&name, says);
        let same = [("ORDERMESH_INSTANCE", name.clone())];
        ground.start_more(&twin, service, &same);
        let status = ground.system.ended(&name);
        assert!(!status.success(), "{name} ended with {status}");
        assert!(
            ground.system.times_said(&name, says) > said,
            "{}",
            ground.system.tail(&name)
        );
        ground.system.ready(&twin);
        ground.progress(&format!("a twin of {name}"), service);
        ground.load.goes_on(100);
        let recreated = "ordermesh_engine_producers_recreated_total";
        assert!(
            ground.figure(&twin, recreated) < 2.0,
            "one goes on undisturbed"
        );
        ground.system.kill(&twin);
        revive(
            ground,
            &format!("{name} in the place of its twin"),
            &[&name],
        );
    }
}

/// A worker more or less, all the time.
pub fn churn(ground: &mut ChaosRig) {
    let mut more: Vec<String> = Vec::new();
    for turn in 0..ground.form.of(6, 36) {
        if more.len() < 2 && (more.is_empty() || ground.random.bool()) {
            let service = PROCESSORS[ground.random.usize(..PROCESSORS.len())];
            let name = format!("{service}-more-{turn}");
            ground.start_more(&name, service, &[]);
            ground.system.ready(&name);
            more.push(name);
        } else {
            let name = more.swap_remove(ground.random.usize(..more.len()));
            if ground.random.bool() {
                ground.system.kill(&name);
            } else {
                let status = ground.system.terminate(&name);
                assert!(status.success(), "{name} ended with {status}");
            }
        }
        ground.lasts(ground.form.seconds(3, 5));
    }
    for name in more {
        assert!(ground.system.terminate(&name).success());
    }
    for service in PROCESSORS {
        let names = [1, 2].map(|number| format!("{service}-{number}"));
        ground.spread(&[&names[0], &names[1]], &[2, 2]);
    }
    ground.progress("workers joined and left", "all");
}

/// One process after the other ends in order and comes back; nobody has to ask more than twice.
pub fn restarts(ground: &mut ChaosRig) {
    ground.load.most_failures();
    for round in 1..=ground.form.of(1, 3) {
        for name in ground.names() {
            ground.load.goes_on(10);
            let status = ground.system.terminate(&name);
            assert!(
                status.success(),
                "{name} ended with {status}:\n{}",
                ground.system.tail(&name)
            );
            ground.start(&name);
            ground.system.ready(&name);
        }
        ground.progress(&format!("restart of everything, {round}"), "all");
    }
    let failures = ground.load.most_failures();
    assert!(
        failures.len() <= 1,
        "a call failed more than once: {failures:#?}"
    );
}
