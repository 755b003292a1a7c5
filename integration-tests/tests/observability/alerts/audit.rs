//! What the auditor finds, and whether it still looks.

use std::process::Command;

use contracts::orders::v1::OrderStatus;
use harness::system::System;

use super::{place, start, watched_at_length};

#[test]
fn a_read_model_that_somebody_has_changed_and_an_auditor_that_completes_nothing_are_told_of() {
    let Some((mut system, alerts)) = watched_at_length(120) else {
        return;
    };
    system.set("ORDERMESH_AUDIT_EVERY_MS", "500");
    start(&mut system, &alerts, "auditor");
    let placed = place(&system);
    system.reaches(&placed, OrderStatus::Delivered);
    let violated = [("invariant", "I8")];
    change(&system, "+ 1");
    alerts.arrives("AuditViolated", &violated);
    change(&system, "- 1");
    alerts.clears("AuditViolated", &violated);

    assert!(system.terminate("sandbox").success());
    alerts.arrives("AuditStale", &[]);
    start(&mut system, &alerts, "sandbox");
    alerts.clears("AuditStale", &[]);
}

fn change(system: &System, by: &str) {
    let done = Command::new("psql")
        .args(["-q", "-X", "-v", "ON_ERROR_STOP=1", "-c"])
        .arg(format!("UPDATE read_v1.stock SET received = received {by}"))
        .arg(system.variable("ORDERMESH_DATABASE"))
        .status()
        .unwrap();
    assert!(done.success());
}
