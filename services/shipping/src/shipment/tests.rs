use contracts::shipping::v1::{
    CancelShipment, RecordBooked, RecordBookingRefused, RecordBookingVoided, RecordDelivered,
    ShipOrder,
};
use proptest::prelude::*;

use super::*;

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

/// The shortest way into a status.
fn reach(status: Status) -> Shipment {
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

/// The commands that a handled command sends to orders.
fn told(shipment: &mut Shipment, command: &Command) -> Vec<OrderCommand> {
    let events = handle(shipment, command);
    events
        .iter()
        .flat_map(|event| ShipmentRules::react(shipment, event, ID))
        .map(|message| {
            assert_eq!(message.aggregate_id, ID);
            match message.command {
                contracts::Command::Order(command) => command,
                other => panic!("shipping talks to orders only, not {other:?}"),
            }
        })
        .collect()
}

fn told_dispatched() -> OrderCommand {
    OrderCommand::RecordShipmentDispatched(RecordShipmentDispatched {
        tracking_number: "T1".into(),
    })
}

fn told_refused() -> OrderCommand {
    OrderCommand::RecordShipmentRefused(RecordShipmentRefused {
        reason: "no such street".into(),
    })
}

fn told_cancelled() -> OrderCommand {
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

    assert_eq!(told(&mut shipment, &booked()), [told_dispatched()]);
    assert_eq!(
        effect(&shipment),
        (format!("{ID}/track/1"), Effect::Track { booking_key })
    );
    assert!(!ShipmentRules::finished(&shipment));

    let told_delivered = OrderCommand::RecordShipmentDelivered(RecordShipmentDelivered {});
    assert_eq!(told(&mut shipment, &delivered()), [told_delivered]);
    assert!(ShipmentRules::finished(&shipment));
}

#[test]
fn a_refused_parcel_tells_the_order() {
    assert_eq!(
        told(&mut reach(Status::Requested), &refused()),
        [told_refused()]
    );
}

#[test]
fn a_cancellation_ends_by_the_carriers_verdict() {
    let booking_key = format!("{ID}/book/1");
    assert_eq!(
        effect(&reach(Status::Cancelling)),
        (format!("{ID}/void/1"), Effect::Void { booking_key })
    );
    for (verdict, answer) in [
        (voided(), told_cancelled()),
        (refused(), told_refused()),
        (booked(), told_dispatched()),
    ] {
        assert_eq!(told(&mut reach(Status::Cancelling), &verdict), [answer]);
    }
}

#[test]
fn a_cancellation_that_comes_too_late_is_answered_and_changes_nothing() {
    for (status, answer) in [
        (Status::Dispatched, told_dispatched()),
        (Status::Delivered, told_dispatched()),
        (Status::Unspecified, told_cancelled()),
        (Status::Refused, told_cancelled()),
        (Status::Cancelled, told_cancelled()),
    ] {
        let mut shipment = reach(status);
        assert_eq!(told(&mut shipment, &cancel()), [answer], "{status:?}");
        assert_eq!(shipment, reach(status));
    }
}

/// Every command in every status: what is not in the table of the module's documentation gives no events.
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
    let mut moves = Vec::new();
    for from in ALL {
        for (name, command) in &commands {
            let mut shipment = reach(from);
            match handle(&mut shipment, command).as_slice() {
                [] => assert_eq!(shipment, reach(from)),
                [_] => moves.push((from, *name, shipment.status())),
                several => panic!("at most one event was expected, not {several:?}"),
            }
        }
    }
    assert_eq!(
        moves,
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

/// Something is outstanding exactly where the shipment waits for the carrier.
#[test]
fn effects_stand_only_where_the_carrier_is_awaited() {
    for status in ALL {
        let waits = matches!(
            status,
            Status::Requested | Status::Cancelling | Status::Dispatched
        );
        let outstanding = ShipmentRules::outstanding(&reach(status), ID);
        assert_eq!(!outstanding.is_empty(), waits, "{status:?}");
    }
}

#[test]
fn only_a_uuid_v7_names_a_shipment() {
    assert!(ShipmentRules::is_id(ID));
    assert!(!ShipmentRules::is_id(
        "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
    ));
    assert!(!ShipmentRules::is_id(""));
}

fn any_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        Just(ship()),
        Just(cancel()),
        Just(booked()),
        Just(refused()),
        Just(voided()),
        Just(delivered()),
    ]
}

fn allowed(from: Status, to: Status) -> bool {
    matches!(
        (from, to),
        (Status::Unspecified, Status::Requested)
            | (
                Status::Requested,
                Status::Dispatched | Status::Refused | Status::Cancelling
            )
            | (
                Status::Cancelling,
                Status::Cancelled | Status::Dispatched | Status::Refused
            )
            | (Status::Dispatched, Status::Delivered)
    )
}

/// A carrier that keeps the promises of its contract.
#[derive(Default)]
struct Ledger {
    verdict: Option<Command>,
}

impl Ledger {
    fn perform(&mut self, effect: &Effect, says_yes: bool) -> Command {
        match effect {
            Effect::Book { .. } => self
                .verdict
                .get_or_insert(if says_yes { booked() } else { refused() })
                .clone(),
            Effect::Void { .. } => self.verdict.get_or_insert(voided()).clone(),
            Effect::Track { .. } => delivered(),
        }
    }
}

proptest! {
    #[test]
    fn any_commands_keep_the_state_machine(commands in prop::collection::vec(any_command(), 0..40)) {
        let mut shipment = Shipment::default();
        let (mut dispatched, mut ended) = (0, 0);
        for command in commands {
            let before = shipment.clone();
            for event in decide(&before, &command) {
                ShipmentRules::evolve(&mut shipment, &event);
                match &event {
                    Event::ShipmentCancelRefused(_) | Event::ShipmentCancelSettled(_) => {
                        prop_assert_eq!(&shipment, &before);
                        continue;
                    }
                    Event::ShipmentDispatched(_) => dispatched += 1,
                    Event::ShipmentRefused(_) | Event::ShipmentCancelled(_) => ended += 1,
                    _ => {}
                }
                prop_assert!(
                    allowed(before.status(), shipment.status()),
                    "{:?} -> {:?}", before.status(), shipment.status()
                );
            }
            prop_assert!(dispatched + ended <= 1, "the carrier's verdict counts once");
            if ShipmentRules::finished(&before) {
                prop_assert_eq!(&shipment, &before, "the end is the end");
            }
        }
    }

    /// Effects run late, twice, or by a former owner; at rest the carrier's ledger equals the shipment.
    #[test]
    fn at_rest_the_ledger_equals_the_shipment(
        steps in prop::collection::vec((0..4_u8, any::<bool>()), 0..40),
    ) {
        let mut shipment = reach(Status::Requested);
        let mut ledger = Ledger::default();
        let former_owner = Effect::Book { contact: contact(), pieces: 3 };
        for (step, says_yes) in steps {
            let due = match step {
                0 => { handle(&mut shipment, &cancel()); continue }
                1 => Some(former_owner.clone()),
                _ => ShipmentRules::outstanding(&shipment, ID).pop().map(|outstanding| match outstanding {
                    Outstanding::Effect { effect, .. } => effect,
                    Outstanding::Timer { .. } => unreachable!("a shipment has no timers"),
                }),
            };
            if let Some(effect) = due {
                let answer = ledger.perform(&effect, says_yes);
                handle(&mut shipment, &answer);
            }
        }
        while let Some(Outstanding::Effect { effect, .. }) = ShipmentRules::outstanding(&shipment, ID).pop() {
            let answer = ledger.perform(&effect, true);
            handle(&mut shipment, &answer);
        }
        let expected = match shipment.status() {
            Status::Delivered => booked(),
            Status::Refused => refused(),
            Status::Cancelled => voided(),
            other => panic!("{other:?} is no rest"),
        };
        prop_assert_eq!(ledger.verdict, Some(expected));
    }
}
