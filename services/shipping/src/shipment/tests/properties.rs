//! Property tests: any sequence of commands follows the state machine, and the shipment agrees with the carrier.

use proptest::prelude::*;

use super::*;

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

/// A carrier that follows its contract.
#[derive(Default)]
struct CarrierModel {
    decision: Option<Command>,
}

impl CarrierModel {
    fn perform(&mut self, effect: &Effect, succeeds: bool) -> Command {
        match effect {
            Effect::Book { .. } => self
                .decision
                .get_or_insert(if succeeds { booked() } else { refused() })
                .clone(),
            Effect::Void { .. } => self.decision.get_or_insert(voided()).clone(),
            Effect::Track { .. } => delivered(),
        }
    }
}

proptest! {
    #[test]
    fn any_command_sequence_follows_the_state_machine(commands in prop::collection::vec(any_command(), 0..40)) {
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
            prop_assert!(dispatched + ended <= 1, "the carrier's decision counts once");
            if ShipmentRules::finished(&before) {
                prop_assert_eq!(&shipment, &before, "a finished shipment does not change");
            }
        }
    }

    /// Effects run late, twice or by a former owner. Once nothing is outstanding, carrier and shipment agree.
    #[test]
    fn the_final_shipment_matches_the_carrier(
        steps in prop::collection::vec((0..4_u8, any::<bool>()), 0..40),
    ) {
        let mut shipment = shipment_in(Status::Requested);
        let mut carrier = CarrierModel::default();
        let earlier_effect = Effect::Book { contact: contact(), pieces: 3 };
        for (step, succeeds) in steps {
            let due = match step {
                0 => { handle(&mut shipment, &cancel()); continue }
                1 => Some(earlier_effect.clone()),
                _ => ShipmentRules::outstanding(&shipment, ID).pop().map(|outstanding| match outstanding {
                    Outstanding::Effect { effect, .. } => effect,
                    Outstanding::Timer { .. } => unreachable!("a shipment has no timers"),
                }),
            };
            if let Some(effect) = due {
                let answer = carrier.perform(&effect, succeeds);
                handle(&mut shipment, &answer);
            }
        }
        while let Some(Outstanding::Effect { effect, .. }) = ShipmentRules::outstanding(&shipment, ID).pop() {
            let answer = carrier.perform(&effect, true);
            handle(&mut shipment, &answer);
        }
        let expected = match shipment.status() {
            Status::Delivered => booked(),
            Status::Refused => refused(),
            Status::Cancelled => voided(),
            other => panic!("{other:?} is not final"),
        };
        prop_assert_eq!(carrier.decision, Some(expected));
    }
}
