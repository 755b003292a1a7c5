//! Alerts of PostgreSQL and of the projection.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use contracts::orders::v1::OrderStatus;

use super::{monitored_long, place};

#[test]
fn a_stalled_projection_raises_an_alert() {
    let Some((system, alerts)) = monitored_long(20) else {
        return;
    };
    let mut session = Command::new("psql")
        .args(["-q", "-X", "-v", "ON_ERROR_STOP=1"])
        .arg(system.variable("ORDERMESH_DATABASE"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = session.stdin.take().unwrap();
    // Reads succeed, writes do not.
    let lock = "BEGIN; LOCK TABLE read_v1.orders IN EXCLUSIVE MODE;\n\\echo locked";
    writeln!(input, "{lock}").unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(session.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "locked\n");
    let placed = place(&system);
    let orders = [("service", "orders")];
    alerts.wait_until_firing("ProjectionStalled", &orders);
    drop(input);
    assert!(session.wait().unwrap().success());
    system.wait_for_status(&placed, OrderStatus::Delivered);
    alerts.wait_until_resolved("ProjectionStalled", &orders);
}
