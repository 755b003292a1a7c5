//! PostgreSQL and the schema registry.

use std::io::{Write as _, stderr};
use std::process::Command;

use crate::chaos::{ChaosRig, REPLICATED};
use crate::eventually::eventually;

const FAILURES: &str = "ordermesh_query_database_failures_total";

/// Orders are taken all the while; the read model catches up.
pub fn database(ground: &mut ChaosRig) {
    ground.stack.control(["kill9", "postgres"]);
    ground.load.goes_on(60);
    ground.stack.control(["start", "postgres"]);
    ground.progress("kill of the database, since it is back", "query");

    ground.stack.freeze("postgres");
    ground.load.goes_on(60);
    ground.lasts(ground.form.seconds(3, 25));
    ground.stack.thaw("postgres");
    ground.progress("freeze of the database", "query");

    full_disk(ground);
}

fn full_disk(ground: &mut ChaosRig) {
    let Some(disk) = ground.stack.disk.clone() else {
        let _ = writeln!(
            stderr(),
            "the full disk is left out: no file system can be mounted here"
        );
        return;
    };
    let failures = |ground: &ChaosRig| -> f64 {
        ["query-1", "query-2"]
            .iter()
            .map(|name| ground.figure(name, FAILURES))
            .sum()
    };
    let before = failures(ground);
    let ballast = disk.join("ballast");
    // Ends when nothing is left.
    let filled = Command::new("dd")
        .args(["if=/dev/zero", "bs=1M", "status=none"])
        .arg(format!("of={}", ballast.display()))
        .output()
        .expect("dd can be run");
    assert!(!filled.status.success(), "the disk has an end");
    eventually("the database cannot write any more", || {
        (failures(ground) > before).then_some(())
    });
    ground.load.goes_on(60);
    std::fs::remove_file(&ballast).expect("it is ours");
    ground.progress("the database's disk was full", "query");
}

/// Whoever runs goes on; whoever starts meanwhile waits, says for what, and goes on when the registry is back.
pub fn registry(ground: &mut ChaosRig) {
    ground.stack.control(["kill9", "registry"]);
    ground.load.goes_on(60);
    let service = REPLICATED[ground.random.usize(1..=4)];
    let name = format!("{service}-cold");
    let killed = ground.one_of("shipping");
    let said = |ground: &ChaosRig, name| ground.system.times_said(name, "registry");
    let said_before = [&name, &killed].map(|name| said(ground, name));
    ground.start_more(&name, service, &[]);
    ground.system.kill(&killed);
    ground.start(&killed);
    for (name, before) in [&name, &killed].into_iter().zip(said_before) {
        eventually(&format!("{name} says what it waits for"), || {
            (said(ground, name) > before).then_some(())
        });
    }
    ground.lasts(ground.form.seconds(5, 50));
    ground.load.goes_on(60);
    for name in [&name, &killed] {
        assert!(!ground.system.is_ready(name), "{name} cannot be ready");
    }
    ground.stack.control(["start", "registry"]);
    ground.system.ready(&name);
    ground.system.ready(&killed);
    ground.progress("the registry was away", "all");
    assert!(ground.system.terminate(&name).success());
}
