use contracts::inventory::v1::StockReserved;
use contracts::orders::v1::{OrderCreated, OrderLineReserved, OrderStockReserved};

use super::*;

/// An event caused by the command `for-<id>`.
fn event(id: &str, aggregate_id: &str, version: u64, time_ms: i64, body: EventBody) -> Event {
    Event {
        id: id.into(),
        aggregate_id: aggregate_id.into(),
        version,
        time_ms,
        command_id: format!("for-{id}"),
        actor: "actor".into(),
        body,
    }
}

fn command(kind: &str, actor: &str, event_id: &str) -> Command {
    Command {
        kind: kind.into(),
        actor: actor.into(),
        event_id: event_id.into(),
    }
}

/// The events of an order of one mug until its stock is reserved, all at the same time.
fn given() -> (Vec<Event>, HashMap<String, Command>) {
    let created = OrderEvent::OrderCreated(OrderCreated {
        customer_id: "ada".into(),
        ..Default::default()
    });
    let line = OrderEvent::OrderLineReserved(OrderLineReserved { sku: "mug".into() });
    let stock = OrderEvent::OrderStockReserved(OrderStockReserved::default());
    let reserved = StockEvent::StockReserved(StockReserved {
        quantity: 2,
        ..Default::default()
    });
    let mut events = vec![
        event("e4", "o", 3, 100, EventBody::Order(stock)),
        event("e2", "mug", 12, 100, EventBody::Stock(reserved)),
        event("e3", "o", 2, 100, EventBody::Order(line)),
        event("e1", "o", 1, 100, EventBody::Order(created)),
    ];
    // One command causes both events of the order.
    events[0].command_id = "for-e3".into();
    let commands = HashMap::from([
        ("for-e1".into(), command("place_order", "ada", "")),
        ("for-e2".into(), command("reserve_stock", "orders", "e1")),
        (
            "for-e3".into(),
            command("record_stock_reserved", "inventory", "e2"),
        ),
    ]);
    (events, commands)
}

#[test]
fn a_cause_comes_before_its_effect_in_the_same_millisecond() {
    let (events, commands) = given();
    let steps = timeline(&events, &commands, "EUR");
    let ids: Vec<_> = steps.iter().map(|step| step.event_id.as_str()).collect();
    assert_eq!(ids, ["e1", "e2", "e3", "e4"]);
}

#[test]
fn a_step_names_its_cause() {
    let (events, commands) = given();
    let steps = timeline(&events, &commands, "EUR");
    let causes: Vec<_> = steps.iter().map(|step| step.cause.text()).collect();
    assert_eq!(
        causes,
        [
            "PlaceOrder from actor",
            "ReserveStock from actor, order v1",
            "RecordStockReserved from actor, mug v12",
            "RecordStockReserved from actor, mug v12",
        ]
    );
    assert_eq!(steps[1].text, "2 pieces reserved");
    assert_eq!(
        (
            steps[1].aggregate_version.service,
            steps[1].aggregate_version.short().as_str()
        ),
        ("inventory", "mug v12")
    );
}

#[test]
fn a_deleted_command_is_reported_as_no_longer_kept() {
    let (events, _) = given();
    let steps = timeline(&events, &HashMap::new(), "EUR");
    assert_eq!(
        steps[0].cause.text(),
        "a command from actor, no longer kept"
    );
    let of_order: Vec<_> = steps
        .iter()
        .filter(|step| step.aggregate_version.service == "orders")
        .map(|step| step.aggregate_version.version)
        .collect();
    assert_eq!(of_order, [1, 2, 3], "versions need no command");
}

#[test]
fn times_are_relative_to_the_placing() {
    let (mut events, commands) = given();
    for (event, time_ms) in events.iter_mut().zip([130, 110, 130, 100]) {
        event.time_ms = time_ms;
    }
    let steps = timeline(&events, &commands, "EUR");
    let since: Vec<_> = steps.iter().map(|step| step.since_ms).collect();
    assert_eq!(since, [0, 10, 30, 30]);
}

#[test]
fn a_cause_comes_before_its_effect_when_clocks_differ() {
    let (mut events, commands) = given();
    let reserved = events.iter_mut().find(|event| event.id == "e2");
    reserved.expect("it is there").time_ms = 40;
    let steps = timeline(&events, &commands, "EUR");
    let ids: Vec<_> = steps.iter().map(|step| step.event_id.as_str()).collect();
    assert_eq!(ids, ["e1", "e2", "e3", "e4"]);
}

#[test]
fn records_that_cause_each_other_are_still_listed() {
    let (events, mut commands) = given();
    commands.insert("for-e1".into(), command("place_order", "ada", "e2"));
    assert_eq!(timeline(&events, &commands, "EUR").len(), events.len());
}
