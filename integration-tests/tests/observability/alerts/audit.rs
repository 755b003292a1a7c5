//! Alerts of the auditor: findings, and audits that do not complete.

use std::process::Command;

use contracts::orders::v1::OrderStatus;
use harness::system::System;

use super::{monitored_long, place, start};

#[test]
fn a_changed_read_model_and_an_audit_that_never_completes_raise_alerts() {
    let Some((mut system, alerts)) = monitored_long(120) else {
        return;
    };
    system.set("ORDERMESH_AUDIT_EVERY_MS", "500");
    start(&mut system, &alerts, "auditor");
    let placed = place(&system);
    system.wait_for_status(&placed, OrderStatus::Delivered);
    let violated = [("invariant", "I8")];
    change(&system, "+ 1");
    alerts.wait_until_firing("AuditViolated", &violated);
    change(&system, "- 1");
    alerts.wait_until_resolved("AuditViolated", &violated);

    assert!(system.terminate("sandbox").success());
    alerts.wait_until_firing("AuditStale", &[]);
    start(&mut system, &alerts, "sandbox");
    alerts.wait_until_resolved("AuditStale", &[]);
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
