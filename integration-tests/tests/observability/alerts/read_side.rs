//! PostgreSQL and the projection.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use contracts::orders::v1::OrderStatus;

use super::{place, watched_at_length};

#[test]
fn a_projection_that_stands_still_is_told_of() {
    let Some((system, alerts)) = watched_at_length(20) else {
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
    // Reading goes on, writing does not.
    let lock = "BEGIN; LOCK TABLE read_v1.orders IN EXCLUSIVE MODE;\n\\echo locked";
    writeln!(input, "{lock}").unwrap();
    let mut said = String::new();
    let mut output = BufReader::new(session.stdout.take().unwrap());
    output.read_line(&mut said).unwrap();
    assert_eq!(said, "locked\n");
    let placed = place(&system);
    let orders = [("service", "orders")];
    alerts.arrives("ProjectionStalled", &orders);
    drop(input);
    assert!(session.wait().unwrap().success());
    system.reaches(&placed, OrderStatus::Delivered);
    alerts.clears("ProjectionStalled", &orders);
}
