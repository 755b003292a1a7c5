//! Property tests: any sequence of commands follows the state machine, and the payment agrees with the provider.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn any_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        Just(charge()),
        Just(cancel()),
        Just(settle()),
        (1..3_u32).prop_map(charged),
        (1..3_u32).prop_map(declined),
        (1..3_u32).prop_map(voided),
        (1..4_u32).prop_map(refunded),
        (1..4_u32).prop_map(refund_refused),
    ]
}

/// The transitions of the state machine. A refused refund keeps its status.
fn allowed(from: Status, to: Status) -> bool {
    matches!(
        (from, to),
        (Status::Unspecified, Status::Requested)
            | (
                Status::Requested,
                Status::Processed | Status::Declined | Status::CancelRequested
            )
            | (
                Status::CancelRequested,
                Status::Voided | Status::Declined | Status::Refunding
            )
            | (Status::Processed, Status::Settled | Status::Refunding)
            | (Status::Refunding, Status::Refunding | Status::Refunded)
    )
}

/// A provider that follows its contract.
#[derive(Default)]
struct ProviderModel {
    charge: Option<Command>,
    refunds: HashSet<String>,
}

impl ProviderModel {
    fn perform(&mut self, key: String, effect: &Effect, succeeds: bool) -> Command {
        match effect {
            Effect::Charge { .. } => self
                .charge
                .get_or_insert(if succeeds { charged(1) } else { declined(1) })
                .clone(),
            Effect::Void { .. } => self.charge.get_or_insert(voided(1)).clone(),
            Effect::Refund { attempt, .. } if succeeds || self.refunds.contains(&key) => {
                self.refunds.insert(key);
                refunded(*attempt)
            }
            Effect::Refund { attempt, .. } => refund_refused(*attempt),
        }
    }
}

proptest! {
    #[test]
    fn any_command_sequence_follows_the_state_machine(commands in prop::collection::vec(any_command(), 0..40)) {
        let mut payment = Payment::default();
        let (mut captures, mut refunds) = (0, 0);
        for command in commands {
            let before = payment.clone();
            for event in decide(&before, &command) {
                PaymentRules::evolve(&mut payment, &event);
                match &event {
                    Event::PaymentCancelSettled(_) => {
                        prop_assert_eq!(&payment, &before);
                        continue;
                    }
                    Event::PaymentProcessed(_) => captures += 1,
                    Event::PaymentRefundRequested(requested) => captures += u32::from(requested.captured),
                    Event::PaymentRefunded(_) => refunds += 1,
                    _ => {}
                }
                prop_assert!(
                    allowed(before.status(), payment.status()),
                    "{:?} -> {:?}", before.status(), payment.status()
                );
                prop_assert!(payment != before, "a decided event changes the state");
            }
            for outstanding in PaymentRules::outstanding(&payment, ID) {
                let Outstanding::Effect { not_before_ms, .. } = outstanding else {
                    return Err(TestCaseError::fail("a payment has no timers"));
                };
                // Only a refused refund is delayed.
                let is_delayed = payment.status() == Status::Refunding && payment.refund_attempt > 1;
                prop_assert_eq!(not_before_ms > NOW_MS, is_delayed);
                prop_assert_eq!(not_before_ms == 0, !is_delayed);
            }
            prop_assert!(captures <= 1);
            prop_assert!(refunds <= captures);
            if PaymentRules::finished(&before) {
                prop_assert_eq!(&payment, &before, "a finished payment does not change");
            }
        }
    }

    /// Effects run late, twice or by a former owner. Once nothing is outstanding, provider and payment agree.
    #[test]
    fn the_final_payment_matches_the_provider(
        steps in prop::collection::vec((0..5_u8, any::<bool>()), 0..40),
    ) {
        let mut payment = given(&[charge()]);
        let mut provider = ProviderModel::default();
        let mut earlier_effects = Vec::new();
        for (step, succeeds) in steps {
            earlier_effects.extend(PaymentRules::outstanding(&payment, ID));
            let due = match step {
                0 => { handle(&mut payment, &cancel()); continue }
                1 => { handle(&mut payment, &settle()); continue }
                2 => earlier_effects.first().cloned(),
                _ => PaymentRules::outstanding(&payment, ID).pop(),
            };
            if let Some(Outstanding::Effect { key, effect, .. }) = due {
                let answer = provider.perform(key, &effect, succeeds);
                handle(&mut payment, &answer);
            }
        }
        while let Some(Outstanding::Effect { key, effect, .. }) = PaymentRules::outstanding(&payment, ID).pop() {
            let answer = provider.perform(key, &effect, true);
            handle(&mut payment, &answer);
        }
        let charged_at_provider = provider.charge == Some(charged(1));
        let refunded_at_provider = !provider.refunds.is_empty();
        prop_assert!(provider.refunds.len() <= 1);
        let expected: &[(bool, bool)] = match payment.status() {
            Status::Processed | Status::Settled => &[(true, false)],
            Status::Refunded => &[(true, true)],
            _ => &[(false, false)],
        };
        prop_assert_eq!(&[(charged_at_provider, refunded_at_provider)], expected);
    }
}
