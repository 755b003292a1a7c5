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

/// What a command prints with `--json`, line by line.
fn json(system: &System, arguments: &[&str]) -> Vec<Value> {
    let text = system.run(&[arguments, &["--json"]].concat());
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// The only line that a command prints with `--json`.
fn one(system: &System, arguments: &[&str]) -> Value {
    let mut lines = json(system, arguments);
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

/// The one line in which a command says why it does not do it.
fn refused(system: &System, code: i32, arguments: &[&str]) -> String {
    let output: Output = system.try_run(arguments);
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(output.stdout.is_empty(), "{arguments:?} has answered");
    said
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
    system.up("all");
    system.run(&["stock", "adjust", "mug", "10"]);

    let receipt = place(&system, "durable");
    assert_eq!(receipt["status"], "ORDER_STATUS_UNSPECIFIED");
    let created = place(&system, "created");
    assert_eq!(created["status"], "ORDER_STATUS_PENDING");
    let confirmed = place(&system, "confirmed");
    let version: u64 = confirmed["version"].as_str().unwrap().parse().unwrap();
    assert!(version >= 4, "{confirmed}");

    // The watch ends with the order; one that begins later tells the rest.
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

    let life = one(&system, &["order", "explain", &id]);
    explained(&life);
    let text = system.run(&["order", "explain", &id]);
    for part in [
        "ReserveStock from orders, order v1",
        "handed to the carrier",
        "25.00 EUR charged",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let nobody = Uuid::now_v7().to_string();
    let said = refused(&system, FAILURE, &["order", "explain", &nobody]);
    assert!(said.contains(&nobody), "{said}");
    let said = refused(&system, FAILURE, &["order", "watch", &nobody]);
    assert!(said.contains("NOT_FOUND"), "{said}");
}

/// The life of an order of two mugs that was delivered.
fn explained(life: &Value) {
    let events = life["events"].as_array().unwrap();
    for service in ["orders", "inventory", "payments", "shipping"] {
        let told = events.iter().filter(|event| event["service"] == service);
        assert!(
            told.count() >= 2,
            "{service} has too little to tell: {life:#}"
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
        // What led to an event stands before it.
        let because = &cause["because"];
        let is_told = |other: &&Value| {
            ["service", "aggregate_id", "version"]
                .iter()
                .all(|field| other[*field] == because[*field])
        };
        let before = events.iter().take_while(|other| *other != event);
        assert!(
            because.is_null() || before.filter(is_told).count() == 1,
            "{event:#}"
        );
    }
    assert_eq!(events[0]["event"], "order_created");
    assert_eq!(events[0]["cause"]["command"], "PlaceOrder");
    assert_eq!(events[0]["cause"]["actor"], "ada");

    let summary = &life["summary"];
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
    system.up("all");
    system.run(&["stock", "adjust", "mug", "10"]);
    let delivered = order_id(&place(&system, "created"));
    system.reaches(&delivered, OrderStatus::Delivered);

    system.run(&["sandbox", "faults", "--provider-outage", "on"]);
    let waiting = order_id(&place(&system, "created"));
    system.reaches(&waiting, OrderStatus::AwaitingPayment);
    let answer = one(&system, &cancel(&waiting));
    assert_eq!(answer["status"], "ORDER_STATUS_CANCELLING");
    let said = system.run(&cancel(&waiting));
    assert!(said.contains("accepted, cancelling"), "{said}");
    assert!(said.contains("ordermesh order watch"), "{said}");

    system.run(&["sandbox", "faults", "--clear"]);
    let events = json(&system, &["order", "watch", &waiting]);
    assert!(events.last().unwrap().get("orderCancelled").is_some());
    let said = system.run(&cancel(&waiting));
    assert!(said.contains("  cancelled, version"), "{said}");

    let said = refused(&system, FAILURE, &cancel(&delivered));
    assert!(
        said.contains("too late to cancel") && said.contains("delivered"),
        "{said}"
    );
    let foreign = ["order", "cancel", &delivered, "--customer", "bob"];
    let said = refused(&system, FAILURE, &foreign);
    assert!(said.contains("bob has no order"), "{said}");
    system.check(None);
}

#[test]
fn a_watch_outlives_the_process_that_it_asks() {
    let mut system = System::new();
    system.up("all");
    system.run(&["stock", "adjust", "mug", "10"]);
    system.run(&["sandbox", "faults", "--provider-outage", "on"]);
    let id = order_id(&place(&system, "created"));
    system.reaches(&id, OrderStatus::AwaitingPayment);
    let mut watch = system.spawn("watch", &["order", "watch", &id, "--json"]);
    // Among its complaints about the process that is gone.
    let told = |system: &System| -> Vec<Value> {
        let text = std::fs::read_to_string(system.path("watch.log")).unwrap_or_default();
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines
            .filter(|line: &Value| line.get("metadata").is_some())
            .collect()
    };
    eventually("the watch has begun", || {
        (told(&system).len() >= 3).then_some(())
    });

    // The provider's trouble goes with the process.
    system.kill("all");
    system.up("all");
    system.reaches(&id, OrderStatus::Delivered);
    let status = eventually("the watch ends", || watch.try_wait().expect("a child"));
    assert!(status.success(), "{}", system.tail("watch"));
    let versions = versions(&told(&system));
    assert_eq!(versions, (1..=6).collect::<Vec<_>>(), "each event once");
}

#[test]
fn stock_is_adjusted_once_for_each_id_and_never_below_what_is_reserved() {
    let mut system = System::new();
    system.up("all");
    let id = Uuid::now_v7().to_string();
    for _ in 0..2 {
        let adjusted = one(&system, &["stock", "adjust", "mug", "10", "--id", &id]);
        assert_eq!(
            (&adjusted["onHand"], &adjusted["version"]),
            (&"10".into(), &"1".into())
        );
    }
    let said = refused(
        &system,
        FAILURE,
        &["stock", "adjust", "mug", "11", "--id", &id],
    );
    assert!(said.contains("mug is not adjusted by +11"), "{said}");
    assert!(said.contains("another delta"), "{said}");
    let said = refused(&system, FAILURE, &["stock", "adjust", "mug", "-11"]);
    assert!(said.contains("must not fall below"), "{said}");
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
    let said = refused(&system, FAILURE, &["stock", "get", "mug", "unicorn"]);
    assert!(said.contains("unicorn"), "{said}");

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
        let said = refused(&system, code, arguments);
        assert!(said.contains(named), "{said}");
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
    system.up("all");
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
    let said = refused(
        &system,
        BAD_VALUE,
        &["sandbox", "faults", "--carrier-slow", "5"],
    );
    assert!(said.contains("--carrier-slow-ms"), "{said}");
    let said = refused(
        &system,
        BAD_VALUE,
        &["sandbox", "faults", "--carrier-hang", "101"],
    );
    assert!(said.contains("--carrier-hang"), "{said}");
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
        system.reaches(id, OrderStatus::Delivered);
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
    // What a doctor says: its verdict, and the parts that it finds something about.
    let examined = |system: &System, arguments: &[&str]| {
        let arguments = [&["doctor", "--json"], arguments].concat();
        let output = system.try_run(&arguments);
        let told: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
        assert_eq!(output.status.success(), told["healthy"] == true, "{told:#}");
        let findings = told["findings"].as_array().unwrap();
        assert_eq!(findings.len(), 8, "{told:#}");
        let ill = findings
            .iter()
            .filter(|finding| finding["health"] == "failed");
        let ill: Vec<String> = ill
            .inspect(|finding| assert_ne!(finding["advice"], "", "{finding:#}"))
            .map(|finding| finding["part"].as_str().unwrap().to_owned())
            .collect();
        ill
    };
    let nobody = "127.0.0.1:1";
    let missing = examined(&system, &["--admin", nobody]);
    assert_eq!(
        missing,
        ["database", "gateway", "admin"],
        "only topics are there"
    );

    system.up("all");
    let admin = system.admin("all").to_string();
    assert!(examined(&system, &["--admin", &admin]).is_empty());
    let text = system.run(&["doctor", "--admin", &admin]);
    assert_eq!(text.matches('✓').count(), 8, "{text}");
    // A container's health: nothing else has to be there for it.
    let process = ["doctor", "--process", "--kafka", nobody, "--admin"];
    let text = system.run(&[&process[..], &[&admin]].concat());
    assert_eq!(text.matches('✓').count(), 1, "{text}");
    let gone = system.try_run(&[&process[..], &[nobody]].concat());
    assert!(!gone.status.success(), "{gone:?}");

    let no_broker = ["--admin", &admin, "--kafka", nobody];
    assert_eq!(
        examined(&system, &no_broker),
        ["broker", "topics", "broker's clock"]
    );
    let no_topics = ["--admin", &admin, "--prefix", "nobody-has-made-these."];
    let missing = examined(&system, &no_topics);
    assert_eq!(missing, ["topics", "registry", "broker's clock"]);
    let url = format!("http://{nobody}/");
    let nothing = [
        "--admin",
        nobody,
        "--api",
        nobody,
        "--kafka",
        nobody,
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
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        told.contains("127.0.0.1:1/nothing") && !told.contains("secret"),
        "{told}"
    );
}
