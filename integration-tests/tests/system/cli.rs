//! The commands of the binary against a running system, as people and scripts use them.

use std::process::Output;

use contracts::orders::v1::OrderStatus;
use harness::eventually;
use harness::system::System;
use serde_json::Value;
use uuid::Uuid;

/// Exit codes: refused or failed, bad usage, bad value.
const FAILURE: i32 = 1;
const BAD_USAGE: i32 = 2;
const BAD_VALUE: i32 = 64;

/// The output of a command with `--json`, one value for each line.
fn json(system: &System, arguments: &[&str]) -> Vec<Value> {
    let text = system.run(&[arguments, &["--json"]].concat());
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// The only output line of a command with `--json`.
fn one(system: &System, arguments: &[&str]) -> Value {
    let mut lines = json(system, arguments);
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

/// The one-line error of a command that fails with this code.
fn refused(system: &System, code: i32, arguments: &[&str]) -> String {
    let output: Output = system.try_run(arguments);
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(output.stdout.is_empty(), "{arguments:?} has answered");
    message
}

/// Places an order of two mugs.
fn place(system: &System, wait: &str) -> Value {
    let line = "mug:2:1250";
    let arguments = ["order", "place", "--customer", "ada", "--line", line];
    one(system, &[&arguments[..], &["--wait", wait]].concat())
}

fn order_id(placed: &Value) -> String {
    placed["orderId"].as_str().unwrap().to_owned()
}

fn cancel(id: &str) -> [&str; 5] {
    ["order", "cancel", id, "--customer", "ada"]
}

fn versions(events: &[Value]) -> Vec<u64> {
    let version = |event: &Value| event["metadata"]["aggregateVersion"].as_str()?.parse().ok();
    events
        .iter()
        .map(|event| version(event).unwrap_or_else(|| panic!("{event}")))
        .collect()
}

#[test]
fn an_order_is_placed_watched_listed_and_explained() {
    let mut system = System::new();
    system.start_until_ready("all");
    system.run(&["stock", "adjust", "mug", "10"]);

    let receipt = place(&system, "durable");
    assert_eq!(receipt["status"], "ORDER_STATUS_UNSPECIFIED");
    let created = place(&system, "created");
    assert_eq!(created["status"], "ORDER_STATUS_PENDING");
    let confirmed = place(&system, "confirmed");
    let version: u64 = confirmed["version"].as_str().unwrap().parse().unwrap();
    assert!(version >= 4, "{confirmed}");

    // The watch ends with the order; one that starts later returns the remaining changes.
    let id = order_id(&confirmed);
    system.order(&id, version).unwrap();
    let events = json(&system, &["order", "watch", &id]);
    let all = versions(&events);
    assert_eq!(all, (1..=all.len() as u64).collect::<Vec<_>>());
    assert!(events.last().unwrap().get("orderDelivered").is_some());
    let rest = json(&system, &["order", "watch", &id, "--after-version", "4"]);
    assert_eq!(versions(&rest), all[4..]);
    let text = system.run(&["order", "watch", &id]);
    assert_eq!(text.lines().count(), all.len(), "{text}");
    assert!(text.contains("placed by ada: 1 line, 25.00 EUR"), "{text}");

    let listed = |arguments: &[&str]| {
        let listing = [&["order", "list", "--customer", "ada"], arguments].concat();
        json(&system, &listing).len()
    };
    eventually("all three are listed", || (listed(&[]) == 3).then_some(()));
    assert_eq!(listed(&["--from", "2024-01-01"]), 3);
    assert_eq!(listed(&["--before", "2024-01-01T00:00:00Z"]), 0);
    let order = one(&system, &["order", "get", &id]);
    let placed_at = order["placedAt"].as_str().unwrap();
    assert_eq!(listed(&["--from", placed_at]), 1, "the last one");
    assert_eq!(listed(&["--before", placed_at]), 2);

    let explanation = one(&system, &["order", "explain", &id]);
    assert_explanation(&explanation);
    let text = system.run(&["order", "explain", &id]);
    for part in [
        "ReserveStock from orders, order v1",
        "handed to the carrier",
        "25.00 EUR charged",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let unknown = Uuid::now_v7().to_string();
    let message = refused(&system, FAILURE, &["order", "explain", &unknown]);
    assert!(message.contains(&unknown), "{message}");
    let message = refused(&system, FAILURE, &["order", "watch", &unknown]);
    assert!(message.contains("NOT_FOUND"), "{message}");
}

/// Asserts the explanation of a delivered order of two mugs.
fn assert_explanation(explanation: &Value) {
    let events = explanation["events"].as_array().unwrap();
    for service in ["orders", "inventory", "payments", "shipping"] {
        let reported = events.iter().filter(|event| event["service"] == service);
        assert!(
            reported.count() >= 2,
            "{service} has too little to tell: {explanation:#}"
        );
    }
    for event in events {
        let cause = &event["cause"];
        assert!(
            cause["command"].is_string(),
            "a cause is missing: {event:#}"
        );
        assert_ne!(cause["actor"], "", "{event:#}");
        assert!(event["since_ms"].as_i64().unwrap() >= 0, "{event:#}");
        assert_ne!(event["words"], "", "{event:#}");
        // The cause of an event precedes it.
        let because = &cause["because"];
        let is_listed = |other: &&Value| {
            ["service", "aggregate_id", "version"]
                .iter()
                .all(|field| other[*field] == because[*field])
        };
        let before = events.iter().take_while(|other| *other != event);
        assert!(
            because.is_null() || before.filter(is_listed).count() == 1,
            "{event:#}"
        );
    }
    assert_eq!(events[0]["event"], "order_created");
    assert_eq!(events[0]["cause"]["command"], "PlaceOrder");
    assert_eq!(events[0]["cause"]["actor"], "ada");

    let summary = &explanation["summary"];
    assert_eq!(summary["status"], "delivered");
    assert_eq!(
        (&summary["charged"], &summary["refunded"]),
        (&2_500.into(), &0.into())
    );
    assert_eq!(summary["stock"][0]["deducted"], 2);
    let steps: Vec<_> = summary["steps"].as_array().unwrap().iter().collect();
    assert_eq!(steps.len(), 4, "{summary:#}");
    assert!(steps.iter().all(|step| step["ms"].is_i64()), "{summary:#}");
}

#[test]
fn a_cancellation_is_accepted_or_refused_in_one_line() {
    let mut system = System::new();
    system.start_until_ready("all");
    system.run(&["stock", "adjust", "mug", "10"]);
    let delivered = order_id(&place(&system, "created"));
    system.wait_for_status(&delivered, OrderStatus::Delivered);

    system.run(&["sandbox", "faults", "--provider-outage", "on"]);
    let waiting = order_id(&place(&system, "created"));
    system.wait_for_status(&waiting, OrderStatus::AwaitingPayment);
    let answer = one(&system, &cancel(&waiting));
    assert_eq!(answer["status"], "ORDER_STATUS_CANCELLING");
    let message = system.run(&cancel(&waiting));
    assert!(message.contains("accepted, cancelling"), "{message}");
    assert!(message.contains("ordermesh order watch"), "{message}");

    system.run(&["sandbox", "faults", "--clear"]);
    let events = json(&system, &["order", "watch", &waiting]);
    assert!(events.last().unwrap().get("orderCancelled").is_some());
    let message = system.run(&cancel(&waiting));
    assert!(message.contains("  cancelled, version"), "{message}");

    let message = refused(&system, FAILURE, &cancel(&delivered));
    assert!(
        message.contains("too late to cancel") && message.contains("delivered"),
        "{message}"
    );
    let foreign = ["order", "cancel", &delivered, "--customer", "bob"];
    let message = refused(&system, FAILURE, &foreign);
    assert!(message.contains("bob has no order"), "{message}");
    system.audit_at_rest(None);
}

#[test]
fn a_watch_outlives_the_process_that_it_asks() {
    let mut system = System::new();
    system.start_until_ready("all");
    system.run(&["stock", "adjust", "mug", "10"]);
    system.run(&["sandbox", "faults", "--provider-outage", "on"]);
    let id = order_id(&place(&system, "created"));
    system.wait_for_status(&id, OrderStatus::AwaitingPayment);
    let mut watch = system.spawn("watch", &["order", "watch", &id, "--json"]);
    // Among the warnings about the process that is gone.
    let reported = |system: &System| -> Vec<Value> {
        let text = std::fs::read_to_string(system.path("watch.log")).unwrap_or_default();
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines
            .filter(|line: &Value| line.get("metadata").is_some())
            .collect()
    };
    eventually("the watch has begun", || {
        (reported(&system).len() >= 3).then_some(())
    });

    // The provider's faults end with its process.
    system.kill("all");
    system.start_until_ready("all");
    system.wait_for_status(&id, OrderStatus::Delivered);
    let status = eventually("the watch ends", || watch.try_wait().expect("a child"));
    assert!(status.success(), "{}", system.log_tail("watch"));
    let versions = versions(&reported(&system));
    assert_eq!(versions, (1..=6).collect::<Vec<_>>(), "each event once");
}

#[test]
fn stock_is_adjusted_once_for_each_id_and_never_below_what_is_reserved() {
    let mut system = System::new();
    system.start_until_ready("all");
    let id = Uuid::now_v7().to_string();
    for _ in 0..2 {
        let adjusted = one(&system, &["stock", "adjust", "mug", "10", "--id", &id]);
        assert_eq!(
            (&adjusted["onHand"], &adjusted["version"]),
            (&"10".into(), &"1".into())
        );
    }
    let message = refused(
        &system,
        FAILURE,
        &["stock", "adjust", "mug", "11", "--id", &id],
    );
    assert!(message.contains("mug is not adjusted by +11"), "{message}");
    assert!(message.contains("another delta"), "{message}");
    let message = refused(&system, FAILURE, &["stock", "adjust", "mug", "-11"]);
    assert!(message.contains("must not fall below"), "{message}");
    let text = system.run(&["stock", "adjust", "tea", "3"]);
    assert!(text.contains("tea  3 on hand, 0 reserved"), "{text}");

    let products = eventually("both are visible", || {
        let output = system.try_run(&["stock", "get", "mug", "tea", "--json"]);
        output.status.success().then_some(output.stdout)
    });
    let products: Vec<Value> = String::from_utf8(products)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(products.len(), 2);
    assert_eq!(
        (&products[0]["sku"], &products[0]["available"]),
        (&"mug".into(), &"10".into())
    );
    let message = refused(&system, FAILURE, &["stock", "get", "mug", "unicorn"]);
    assert!(message.contains("unicorn"), "{message}");

    for (code, arguments, named) in [
        (BAD_VALUE, &["stock", "adjust", "mug", "0"][..], "<DELTA>"),
        (
            BAD_VALUE,
            &["stock", "adjust", "mug", "1", "--id", "7"],
            "--id",
        ),
        (BAD_VALUE, &["order", "list", "--from", "soon"], "--from"),
        (
            BAD_VALUE,
            &[
                "order",
                "list",
                "--from",
                "2025-02-01",
                "--before",
                "2025-01-01",
            ],
            "--before",
        ),
        (BAD_VALUE, &["order", "place", "--wait", "ever"], "--wait"),
    ] {
        let message = refused(&system, code, arguments);
        assert!(message.contains(named), "{message}");
    }
    let usage = system.try_run(&["stock", "get"]);
    assert_eq!(usage.status.code(), Some(BAD_USAGE));
    let script = system.run(&["completions", "bash"]);
    assert!(
        script.contains("ordermesh") && script.contains("explain"),
        "{script}"
    );
}

#[test]
fn faults_are_set_one_by_one_and_the_ledgers_are_shown() {
    let mut system = System::new();
    system.start_until_ready("all");
    let faults = |arguments: &[&str]| one(&system, &[&["sandbox", "faults"], arguments].concat());
    let before = faults(&[]);
    assert_eq!(before["deliveryMs"], 50, "as the process was started");

    let set = faults(&["--decline", "5", "--seed", "7", "--provider-error", "10"]);
    assert_eq!(
        (&set["declinePercent"], &set["seed"]),
        (&5.into(), &"7".into())
    );
    let set = faults(&["--provider-slow", "20", "--provider-slow-ms", "500"]);
    assert_eq!(set["provider"]["errorPercent"], 10, "it stays");
    assert_eq!(set["provider"]["slowMs"], 500);
    assert_eq!(faults(&[]), set, "it is in force");
    let message = refused(
        &system,
        BAD_VALUE,
        &["sandbox", "faults", "--carrier-slow", "5"],
    );
    assert!(message.contains("--carrier-slow-ms"), "{message}");
    let message = refused(
        &system,
        BAD_VALUE,
        &["sandbox", "faults", "--carrier-hang", "101"],
    );
    assert!(message.contains("--carrier-hang"), "{message}");
    assert_eq!(faults(&[]), set, "nothing is half done");
    let cleared = faults(&["--clear"]);
    assert_eq!(
        (&cleared["declinePercent"], &cleared["seed"]),
        (&0.into(), &"7".into())
    );
    assert_eq!(cleared["provider"]["slowMs"].as_u64().unwrap_or(0), 0);
    let text = system.run(&["sandbox", "faults"]);
    assert!(
        text.contains("provider  off") && text.contains("seed 7"),
        "{text}"
    );

    system.run(&["stock", "adjust", "mug", "10"]);
    let ids = [(); 2].map(|()| order_id(&place(&system, "created")));
    for id in &ids {
        system.wait_for_status(id, OrderStatus::Delivered);
    }
    let payments = json(&system, &["sandbox", "ledger", "payments"]);
    assert_eq!(payments.len(), 2, "{payments:?}");
    let of_one = ["sandbox", "ledger", "payments", "--order", &ids[0]];
    let payment = one(&system, &of_one);
    assert_eq!(
        (&payment["kind"], &payment["amount"]["minorUnits"]),
        (&"charged".into(), &"2500".into())
    );
    let booking = one(
        &system,
        &["sandbox", "ledger", "bookings", "--order", &ids[1]],
    );
    assert_eq!(booking["kind"], "booked");
    let text = system.run(&of_one);
    assert!(
        text.starts_with("charged") && text.contains("25.00 EUR"),
        "{text}"
    );
}

#[test]
fn the_doctor_finds_what_is_missing() {
    let mut system = System::new();
    // The report of the doctor: its verdict and the parts with problems.
    let examined = |system: &System, arguments: &[&str]| {
        let arguments = [&["doctor", "--json"], arguments].concat();
        let output = system.try_run(&arguments);
        let reported: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
        assert_eq!(
            output.status.success(),
            reported["healthy"] == true,
            "{reported:#}"
        );
        let findings = reported["findings"].as_array().unwrap();
        assert_eq!(findings.len(), 8, "{reported:#}");
        let ill = findings
            .iter()
            .filter(|finding| finding["health"] == "failed");
        let ill: Vec<String> = ill
            .inspect(|finding| assert_ne!(finding["advice"], "", "{finding:#}"))
            .map(|finding| finding["part"].as_str().unwrap().to_owned())
            .collect();
        ill
    };
    let unreachable = "127.0.0.1:1";
    let missing = examined(&system, &["--admin", unreachable]);
    assert_eq!(
        missing,
        ["database", "gateway", "admin"],
        "only topics are there"
    );

    system.start_until_ready("all");
    let admin = system.admin("all").to_string();
    assert!(examined(&system, &["--admin", &admin]).is_empty());
    let text = system.run(&["doctor", "--admin", &admin]);
    assert_eq!(text.matches('✓').count(), 8, "{text}");
    // Health check of a container: it needs no other server.
    let process = ["doctor", "--process", "--kafka", unreachable, "--admin"];
    let text = system.run(&[&process[..], &[&admin]].concat());
    assert_eq!(text.matches('✓').count(), 1, "{text}");
    let gone = system.try_run(&[&process[..], &[unreachable]].concat());
    assert!(!gone.status.success(), "{gone:?}");

    let no_broker = ["--admin", &admin, "--kafka", unreachable];
    assert_eq!(
        examined(&system, &no_broker),
        ["broker", "topics", "broker's clock"]
    );
    let no_topics = ["--admin", &admin, "--prefix", "nobody-has-made-these."];
    let missing = examined(&system, &no_topics);
    assert_eq!(missing, ["topics", "registry", "broker's clock"]);
    let url = format!("http://{unreachable}/");
    let nothing = [
        "--admin",
        unreachable,
        "--api",
        unreachable,
        "--kafka",
        unreachable,
        "--registry",
        &url,
        "--database",
        "postgres://nobody@127.0.0.1:1/nothing",
    ];
    assert_eq!(
        examined(&system, &nothing).len(),
        8,
        "everything is missing"
    );
    let secret = "postgres://nobody:secret@127.0.0.1:1/nothing";
    let output = system.try_run(&["doctor", "--admin", &admin, "--database", secret]);
    let reported = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        reported.contains("127.0.0.1:1/nothing") && !reported.contains("secret"),
        "{reported}"
    );
}
