//! Faults of PostgreSQL and of the schema registry.

use std::io::{Write as _, stderr};
use std::process::Command;

use crate::chaos::{ChaosRig, REPLICATED};
use crate::eventually::eventually;

const FAILURES: &str = "ordermesh_query_database_failures_total";

/// Kills, freezes and fills up the database. Orders are accepted meanwhile; the read model catches up.
pub fn database(rig: &mut ChaosRig) {
    rig.stack.control(["kill9", "postgres"]);
    rig.load.wait_for_orders(60);
    rig.stack.control(["start", "postgres"]);
    rig.wait_for_progress("kill of the database, since it is back", "query");

    rig.stack.freeze("postgres");
    rig.load.wait_for_orders(60);
    rig.hold_fault(rig.scale.seconds(3, 25));
    rig.stack.thaw("postgres");
    rig.wait_for_progress("freeze of the database", "query");

    full_disk(rig);
}

fn full_disk(rig: &mut ChaosRig) {
    let Some(disk) = rig.stack.disk.clone() else {
        let _ = writeln!(
            stderr(),
            "the full disk is skipped: no file system can be mounted here"
        );
        return;
    };
    let failures = |rig: &ChaosRig| -> f64 {
        ["query-1", "query-2"]
            .iter()
            .map(|name| rig.metric(name, FAILURES))
            .sum()
    };
    let before = failures(rig);
    let ballast = disk.join("ballast");
    // `dd` ends when the disk is full.
    let filled = Command::new("dd")
        .args(["if=/dev/zero", "bs=1M", "status=none"])
        .arg(format!("of={}", ballast.display()))
        .output()
        .expect("dd can be run");
    assert!(!filled.status.success(), "the disk becomes full");
    eventually("the database cannot write any more", || {
        (failures(rig) > before).then_some(())
    });
    rig.load.wait_for_orders(60);
    std::fs::remove_file(&ballast).expect("the file was created here");
    rig.wait_for_progress("the database's disk was full", "query");
}

/// Stops the registry. Running processes continue. A process that starts meanwhile waits, logs the reason, and
/// continues when the registry is back.
pub fn registry(rig: &mut ChaosRig) {
    rig.stack.control(["kill9", "registry"]);
    rig.load.wait_for_orders(60);
    let service = REPLICATED[rig.random.usize(1..=4)];
    let name = format!("{service}-cold");
    let killed = rig.random_replica("shipping");
    let waits_logged = |rig: &ChaosRig, name| rig.system.count_log_lines(name, "registry");
    let logged_before = [&name, &killed].map(|name| waits_logged(rig, name));
    rig.start_extra(&name, service, &[]);
    rig.system.kill(&killed);
    rig.start(&killed);
    for (name, before) in [&name, &killed].into_iter().zip(logged_before) {
        eventually(
            &format!("{name} logs that it waits for the registry"),
            || (waits_logged(rig, name) > before).then_some(()),
        );
    }
    rig.hold_fault(rig.scale.seconds(5, 50));
    rig.load.wait_for_orders(60);
    for name in [&name, &killed] {
        assert!(!rig.system.is_ready(name), "{name} cannot be ready");
    }
    rig.stack.control(["start", "registry"]);
    rig.system.wait_until_ready(&name);
    rig.system.wait_until_ready(&killed);
    rig.wait_for_progress("the registry was away", "all");
    assert!(rig.system.terminate(&name).success());
}
