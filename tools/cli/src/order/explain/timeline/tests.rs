use contracts::inventory::v1::StockReserved;
use contracts::orders::v1::{OrderCreated, OrderLineReserved, OrderStockReserved};

use super::*;

/// An event under its id, caused by the command `for-<id>`.
fn event(id: &str, aggregate_id: &str, version: u64, time_ms: i64, happened: Happened) -> Event {
    Event {
        id: id.into(),
        aggregate_id: aggregate_id.into(),
        version,
        time_ms,
        command_id: format!("for-{id}"),
        actor: "somebody".into(),
        happened,
    }
}

fn command(kind: &str, actor: &str, event_id: &str) -> Command {
    Command {
        kind: kind.into(),
        actor: actor.into(),
        event_id: event_id.into(),
    }
}

/// An order of one mug until its stock is reserved, with all times the same.
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
        event("e4", "o", 3, 100, Happened::Order(stock)),
        event("e2", "mug", 12, 100, Happened::Stock(reserved)),
        event("e3", "o", 2, 100, Happened::Order(line)),
        event("e1", "o", 1, 100, Happened::Order(created)),
    ];
    // Both events of the order come of one command.
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
fn what_led_to_an_event_stands_before_it_also_in_the_same_millisecond() {
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
            "PlaceOrder from somebody",
            "ReserveStock from somebody, order v1",
            "RecordStockReserved from somebody, mug v12",
            "RecordStockReserved from somebody, mug v12",
        ]
    );
    assert_eq!(steps[1].event_text, "2 pieces reserved");
    assert_eq!(
        (steps[1].place.service, steps[1].place.short().as_str()),
        ("inventory", "mug v12")
    );
}

#[test]
fn a_command_that_retention_has_deleted_is_told_as_such() {
    let (events, _) = given();
    let steps = timeline(&events, &HashMap::new(), "EUR");
    assert_eq!(
        steps[0].cause.text(),
        "a command from somebody, no longer kept"
    );
    let of_order: Vec<_> = steps
        .iter()
        .filter(|step| step.place.service == "orders")
        .map(|step| step.place.version)
        .collect();
    assert_eq!(of_order, [1, 2, 3], "versions need no command");
}

#[test]
fn times_count_from_the_placing() {
    let (mut events, commands) = given();
    for (event, time_ms) in events.iter_mut().zip([130, 110, 130, 100]) {
        event.time_ms = time_ms;
    }
    let steps = timeline(&events, &commands, "EUR");
    let since: Vec<_> = steps.iter().map(|step| step.since_ms).collect();
    assert_eq!(since, [0, 10, 30, 30]);
}

#[test]
fn a_clock_that_is_behind_does_not_turn_cause_and_effect_round() {
    let (mut events, commands) = given();
    let reserved = events.iter_mut().find(|event| event.id == "e2");
    reserved.expect("it is there").time_ms = 40;
    let steps = timeline(&events, &commands, "EUR");
    let ids: Vec<_> = steps.iter().map(|step| step.event_id.as_str()).collect();
    assert_eq!(ids, ["e1", "e2", "e3", "e4"]);
}

#[test]
fn records_that_lead_to_each_other_are_told_all_the_same() {
    let (events, mut commands) = given();
    commands.insert("for-e1".into(), command("place_order", "ada", "e2"));
    assert_eq!(timeline(&events, &commands, "EUR").len(), events.len());
}
