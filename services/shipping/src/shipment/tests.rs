//! Tests of the rule book of a shipment.

use contracts::shipping::v1::{
    CancelShipment, RecordBooked, RecordBookingRefused, RecordBookingVoided, RecordDelivered,
    ShipOrder,
};

use super::*;

mod properties;

const ID: &str = "0190b5a0-0000-7000-8000-000000000001";

const ALL: [Status; 7] = [
    Status::Unspecified,
    Status::Requested,
    Status::Dispatched,
    Status::Delivered,
    Status::Refused,
    Status::Cancelling,
    Status::Cancelled,
];

fn contact() -> Contact {
    Contact {
        email: "ada@example.com".into(),
        ..Default::default()
    }
}

fn ship() -> Command {
    Command::ShipOrder(ShipOrder {
        contact: Some(contact()),
        pieces: 3,
    })
}

fn cancel() -> Command {
    Command::CancelShipment(CancelShipment {})
}

fn booked() -> Command {
    Command::RecordBooked(RecordBooked {
        tracking_number: "T1".into(),
    })
}

fn refused() -> Command {
    Command::RecordBookingRefused(RecordBookingRefused {
        reason: "no such street".into(),
    })
}

fn voided() -> Command {
    Command::RecordBookingVoided(RecordBookingVoided {})
}

fn delivered() -> Command {
    Command::RecordDelivered(RecordDelivered {})
}

fn decide(shipment: &Shipment, command: &Command) -> Vec<Event> {
    let context = Context {
        aggregate_id: ID,
        version: 0,
        time_ms: 0,
        evicted_through_ms: 0,
    };
    match ShipmentRules.decide(shipment, command, &context) {
        Ok(events) => events,
        Err(rejection) => match rejection {},
    }
}

/// Decides and folds; returns the events.
fn handle(shipment: &mut Shipment, command: &Command) -> Vec<Event> {
    let events = decide(shipment, command);
    for event in &events {
        ShipmentRules::evolve(shipment, event);
    }
    events
}

/// A shipment in a status, after the fewest commands.
fn shipment_in(status: Status) -> Shipment {
    let commands = match status {
        Status::Unspecified => vec![],
        Status::Requested => vec![ship()],
        Status::Dispatched => vec![ship(), booked()],
        Status::Delivered => vec![ship(), booked(), delivered()],
        Status::Refused => vec![ship(), refused()],
        Status::Cancelling => vec![ship(), cancel()],
        Status::Cancelled => vec![ship(), cancel(), voided()],
    };
    let mut shipment = Shipment::default();
    for command in &commands {
        handle(&mut shipment, command);
    }
    assert_eq!(shipment.status(), status);
    shipment
}

fn effect(shipment: &Shipment) -> (String, Effect) {
    match ShipmentRules::outstanding(shipment, ID).as_slice() {
        [Outstanding::Effect { key, effect, .. }] => (key.clone(), effect.clone()),
        other => panic!("one effect was expected, not {other:?}"),
    }
}

/// Decides a command, folds its events and returns the commands that are sent to the order.
fn sent_to_order(shipment: &mut Shipment, command: &Command) -> Vec<OrderCommand> {
    let events = handle(shipment, command);
    events
        .iter()
        .flat_map(|event| ShipmentRules::react(shipment, event, ID))
        .map(|message| {
            assert_eq!(message.aggregate_id, ID);
            match message.command {
                contracts::Command::Order(command) => command,
                other => panic!("shipping sends commands to orders only, not {other:?}"),
            }
        })
        .collect()
}

fn answer_dispatched() -> OrderCommand {
    OrderCommand::RecordShipmentDispatched(RecordShipmentDispatched {
        tracking_number: "T1".into(),
    })
}

fn answer_refused() -> OrderCommand {
    OrderCommand::RecordShipmentRefused(RecordShipmentRefused {
        reason: "no such street".into(),
    })
}

fn answer_cancelled() -> OrderCommand {
    OrderCommand::RecordShipmentCancelled(RecordShipmentCancelled {})
}

#[test]
fn a_parcel_is_booked_tracked_and_delivered() {
    let mut shipment = Shipment::default();
    let requested = ShipmentRequested {
        contact: Some(contact()),
        pieces: 3,
    };
    assert_eq!(
        handle(&mut shipment, &ship()),
        [Event::ShipmentRequested(requested)]
    );
    assert_eq!(handle(&mut shipment, &ship()), []);
    let booking_key = format!("{ID}/book/1");
    assert_eq!(
        effect(&shipment),
        (
            booking_key.clone(),
            Effect::Book {
                contact: contact(),
                pieces: 3
            }
        )
    );

    assert_eq!(
        sent_to_order(&mut shipment, &booked()),
        [answer_dispatched()]
    );
    assert_eq!(
        effect(&shipment),
        (format!("{ID}/track/1"), Effect::Track { booking_key })
    );
    assert!(!ShipmentRules::finished(&shipment));

    let answer_delivered = OrderCommand::RecordShipmentDelivered(RecordShipmentDelivered {});
    assert_eq!(
        sent_to_order(&mut shipment, &delivered()),
        [answer_delivered]
    );
    assert!(ShipmentRules::finished(&shipment));
}

#[test]
fn a_refused_parcel_notifies_the_order() {
    assert_eq!(
        sent_to_order(&mut shipment_in(Status::Requested), &refused()),
        [answer_refused()]
    );
}

#[test]
fn the_carrier_decides_a_cancellation() {
    let booking_key = format!("{ID}/book/1");
    assert_eq!(
        effect(&shipment_in(Status::Cancelling)),
        (format!("{ID}/void/1"), Effect::Void { booking_key })
    );
    for (decision, answer) in [
        (voided(), answer_cancelled()),
        (refused(), answer_refused()),
        (booked(), answer_dispatched()),
    ] {
        assert_eq!(
            sent_to_order(&mut shipment_in(Status::Cancelling), &decision),
            [answer]
        );
    }
}

#[test]
fn a_late_cancellation_is_answered_and_changes_nothing() {
    for (status, answer) in [
        (Status::Dispatched, answer_dispatched()),
        (Status::Delivered, answer_dispatched()),
        (Status::Unspecified, answer_cancelled()),
        (Status::Refused, answer_cancelled()),
        (Status::Cancelled, answer_cancelled()),
    ] {
        let mut shipment = shipment_in(status);
        assert_eq!(
            sent_to_order(&mut shipment, &cancel()),
            [answer],
            "{status:?}"
        );
        assert_eq!(shipment, shipment_in(status));
    }
}

/// Every command in every status. Combinations that the table of the module documentation lacks give no events.
#[test]
fn every_command_in_every_status() {
    let commands = [
        ("ship", ship()),
        ("cancel", cancel()),
        ("booked", booked()),
        ("refused", refused()),
        ("voided", voided()),
        ("delivered", delivered()),
    ];
    let mut transitions = Vec::new();
    for from in ALL {
        for (name, command) in &commands {
            let mut shipment = shipment_in(from);
            match handle(&mut shipment, command).as_slice() {
                [] => assert_eq!(shipment, shipment_in(from)),
                [_] => transitions.push((from, *name, shipment.status())),
                several => panic!("at most one event was expected, not {several:?}"),
            }
        }
    }
    assert_eq!(
        transitions,
        [
            (Status::Unspecified, "ship", Status::Requested),
            (Status::Unspecified, "cancel", Status::Unspecified),
            (Status::Requested, "cancel", Status::Cancelling),
            (Status::Requested, "booked", Status::Dispatched),
            (Status::Requested, "refused", Status::Refused),
            (Status::Dispatched, "cancel", Status::Dispatched),
            (Status::Dispatched, "delivered", Status::Delivered),
            (Status::Delivered, "cancel", Status::Delivered),
            (Status::Refused, "cancel", Status::Refused),
            (Status::Cancelling, "booked", Status::Dispatched),
            (Status::Cancelling, "refused", Status::Refused),
            (Status::Cancelling, "voided", Status::Cancelled),
            (Status::Cancelled, "cancel", Status::Cancelled),
        ]
    );
}

#[test]
fn an_effect_is_outstanding_only_while_the_carrier_is_awaited() {
    for status in ALL {
        let waits = matches!(
            status,
            Status::Requested | Status::Cancelling | Status::Dispatched
        );
        let outstanding = ShipmentRules::outstanding(&shipment_in(status), ID);
        assert_eq!(!outstanding.is_empty(), waits, "{status:?}");
    }
}

#[test]
fn the_id_of_a_shipment_is_a_uuid_v7() {
    assert!(ShipmentRules::is_id(ID));
    assert!(!ShipmentRules::is_id(
        "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
    ));
    assert!(!ShipmentRules::is_id(""));
}
