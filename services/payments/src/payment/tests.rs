use std::collections::HashSet;

use contracts::payments::v1::{
    CancelPayment, ChargePayment, RecordChargeDeclined, RecordChargeVoided, RecordCharged,
    RecordRefundRefused, RecordRefunded, SettlePayment,
};
use proptest::prelude::*;

use super::*;

const ID: &str = "0190b5a0-0000-7000-8000-000000000001";

const ALL: [Status; 9] = [
    Status::Unspecified,
    Status::Requested,
    Status::Processed,
    Status::Declined,
    Status::CancelRequested,
    Status::Voided,
    Status::Refunding,
    Status::Refunded,
    Status::Settled,
];

fn euros(minor_units: i64) -> Money {
    Money {
        minor_units,
        currency: "EUR".into(),
    }
}

fn charge() -> Command {
    Command::ChargePayment(ChargePayment {
        amount: Some(euros(1299)),
        customer_id: "ada".into(),
    })
}

fn cancel() -> Command {
    Command::CancelPayment(CancelPayment {})
}

fn settle() -> Command {
    Command::SettlePayment(SettlePayment {})
}

fn charged(attempt: u32) -> Command {
    Command::RecordCharged(RecordCharged {
        attempt,
        provider_reference: "ch_1".into(),
    })
}

fn declined(attempt: u32) -> Command {
    Command::RecordChargeDeclined(RecordChargeDeclined {
        attempt,
        reason: "no funds".into(),
    })
}

fn voided(attempt: u32) -> Command {
    Command::RecordChargeVoided(RecordChargeVoided { attempt })
}

fn refunded(attempt: u32) -> Command {
    Command::RecordRefunded(RecordRefunded {
        attempt,
        provider_reference: "re_1".into(),
    })
}

fn refund_refused(attempt: u32) -> Command {
    Command::RecordRefundRefused(RecordRefundRefused {
        attempt,
        reason: "closed".into(),
    })
}

/// The partition's time when a command is decided.
const NOW_MS: i64 = 1_000_000;

const RULES: PaymentRules = PaymentRules {
    refund_wait_ms: 500,
};

fn decide(payment: &Payment, command: &Command) -> Vec<Event> {
    let context = Context {
        aggregate_id: ID,
        version: 0,
        time_ms: NOW_MS,
        evicted_through_ms: 0,
    };
    match RULES.decide(payment, command, &context) {
        Ok(events) => events,
        Err(rejection) => match rejection {},
    }
}

/// Decides and folds; returns the events.
fn handle(payment: &mut Payment, command: &Command) -> Vec<Event> {
    let events = decide(payment, command);
    for event in &events {
        PaymentRules::evolve(payment, event);
    }
    events
}

fn given(commands: &[Command]) -> Payment {
    let mut payment = Payment::default();
    for command in commands {
        handle(&mut payment, command);
    }
    payment
}

/// The shortest way into a status.
fn reach(status: Status) -> Payment {
    let commands = match status {
        Status::Unspecified => vec![],
        Status::Requested => vec![charge()],
        Status::Processed => vec![charge(), charged(1)],
        Status::Declined => vec![charge(), declined(1)],
        Status::CancelRequested => vec![charge(), cancel()],
        Status::Voided => vec![charge(), cancel(), voided(1)],
        Status::Refunding => vec![charge(), charged(1), cancel()],
        Status::Refunded => vec![charge(), charged(1), cancel(), refunded(1)],
        Status::Settled => vec![charge(), charged(1), settle()],
    };
    let payment = given(&commands);
    assert_eq!(payment.status(), status);
    payment
}

fn effect(payment: &Payment) -> (String, Effect) {
    let (key, effect, _) = outstanding(payment);
    (key, effect)
}

/// Key, effect, and when it begins.
fn outstanding(payment: &Payment) -> (String, Effect, i64) {
    match PaymentRules::outstanding(payment, ID).as_slice() {
        [
            Outstanding::Effect {
                key,
                effect,
                not_before_ms,
            },
        ] => (key.clone(), effect.clone(), *not_before_ms),
        other => panic!("one effect was expected, not {other:?}"),
    }
}

/// The command that a handled command sends to orders.
fn told(payment: &mut Payment, command: &Command) -> Vec<OrderCommand> {
    let events = handle(payment, command);
    events
        .iter()
        .flat_map(|event| PaymentRules::react(payment, event, ID))
        .map(|message| {
            assert_eq!(message.aggregate_id, ID);
            match message.command {
                contracts::Command::Order(command) => command,
                other => panic!("payments talks to orders only, not {other:?}"),
            }
        })
        .collect()
}

#[test]
fn a_charge_is_asked_for_once() {
    let mut payment = Payment::default();
    let requested = PaymentRequested {
        amount: Some(euros(1299)),
        customer_id: "ada".into(),
    };
    assert_eq!(
        handle(&mut payment, &charge()),
        [Event::PaymentRequested(requested)]
    );
    assert_eq!(
        effect(&payment),
        (
            format!("{ID}/charge/1"),
            Effect::Charge {
                amount: euros(1299),
                customer_id: "ada".into()
            }
        )
    );
    assert_eq!(handle(&mut payment, &charge()), []);
}

#[test]
fn a_charged_payment_tells_the_order_and_is_settled() {
    let mut payment = reach(Status::Requested);
    let processed = RecordPaymentProcessed {
        provider_reference: "ch_1".into(),
    };
    assert_eq!(
        told(&mut payment, &charged(1)),
        [OrderCommand::RecordPaymentProcessed(processed)]
    );
    assert!(!PaymentRules::finished(&payment));
    assert_eq!(told(&mut payment, &settle()), []);
    assert!(PaymentRules::finished(&payment));
}

#[test]
fn a_declined_payment_tells_the_order() {
    let mut payment = reach(Status::Requested);
    let declined_answer = RecordPaymentDeclined {
        reason: "no funds".into(),
    };
    assert_eq!(
        told(&mut payment, &declined(1)),
        [OrderCommand::RecordPaymentDeclined(declined_answer)]
    );
}

#[test]
fn a_cancellation_without_a_charge_gives_nothing_back() {
    for answer in [declined(1), voided(1)] {
        let mut payment = reach(Status::CancelRequested);
        let charge_key = format!("{ID}/charge/1");
        assert_eq!(
            effect(&payment),
            (format!("{ID}/void/1"), Effect::Void { charge_key })
        );
        assert_eq!(told(&mut payment, &answer), [cancelled(0)]);
    }
}

#[test]
fn a_charge_that_won_over_its_cancellation_is_captured_and_refunded() {
    let mut payment = reach(Status::CancelRequested);
    let requested = PaymentRefundRequested {
        captured: true,
        provider_reference: "ch_1".into(),
    };
    assert_eq!(
        handle(&mut payment, &charged(1)),
        [Event::PaymentRefundRequested(requested)]
    );
    assert_eq!(told(&mut payment, &refunded(1)), [cancelled(1299)]);
}

#[test]
fn a_processed_payment_is_refunded() {
    let mut payment = reach(Status::Processed);
    let requested = PaymentRefundRequested {
        captured: false,
        provider_reference: "ch_1".into(),
    };
    assert_eq!(
        handle(&mut payment, &cancel()),
        [Event::PaymentRefundRequested(requested)]
    );
    assert_eq!(told(&mut payment, &refunded(1)), [cancelled(1299)]);
}

#[test]
fn a_refused_refund_is_tried_under_a_new_key_and_flagged() {
    let mut payment = reach(Status::Refunding);
    let refund = |attempt| {
        let charge_key = format!("{ID}/charge/1");
        (
            format!("{ID}/refund/{attempt}"),
            Effect::Refund {
                attempt,
                charge_key,
                amount: euros(1299),
            },
        )
    };
    assert_eq!(effect(&payment), refund(1));
    assert_eq!(told(&mut payment, &refund_refused(1)), []);
    assert!(payment.flagged);
    assert_eq!(effect(&payment), refund(2));

    assert_eq!(
        handle(&mut payment, &refund_refused(1)),
        [],
        "a stale no counts once"
    );
    assert_eq!(
        handle(&mut payment, &refunded(1)),
        [],
        "a stale yes does not count"
    );
    assert_eq!(told(&mut payment, &refunded(2)), [cancelled(1299)]);
}

#[test]
fn a_refused_refund_rests_longer_each_time_and_at_most_an_hour() {
    let mut payment = reach(Status::Refunding);
    assert_eq!(outstanding(&payment).2, 0, "the first begins at once");
    for (attempt, wait_ms) in [(1, 500), (2, 1_000), (3, 2_000), (4, 4_000)] {
        let refused = PaymentRefundRefused {
            reason: "closed".into(),
            retry_at_ms: NOW_MS + wait_ms,
        };
        assert_eq!(
            handle(&mut payment, &refund_refused(attempt)),
            [Event::PaymentRefundRefused(refused)]
        );
        assert_eq!(outstanding(&payment).2, NOW_MS + wait_ms);
    }
    for attempt in 5..100 {
        handle(&mut payment, &refund_refused(attempt));
        let wait_ms = outstanding(&payment).2 - NOW_MS;
        assert!((8_000..=REFUND_WAIT_MAX_MS).contains(&wait_ms), "{wait_ms}");
    }
    assert_eq!(outstanding(&payment).2, NOW_MS + REFUND_WAIT_MAX_MS);
}

/// A refusal that an older version has written knows no time: its next attempt begins at once.
#[test]
fn a_refusal_without_a_time_is_followed_at_once() {
    let mut payment = reach(Status::Refunding);
    let refused = Event::PaymentRefundRefused(PaymentRefundRefused::default());
    PaymentRules::evolve(&mut payment, &refused);
    assert_eq!(payment.refund_attempt, 2);
    assert_eq!(outstanding(&payment).2, 0);
}

#[test]
fn a_cancellation_of_a_payment_that_is_over_is_answered_and_changes_nothing() {
    for (status, refunded) in [
        (Status::Unspecified, 0),
        (Status::Declined, 0),
        (Status::Voided, 0),
        (Status::Refunded, 1299),
        (Status::Settled, 0),
    ] {
        let mut payment = reach(status);
        let before = payment.clone();
        let settled = PaymentCancelSettled {
            status: status.into(),
        };
        assert_eq!(
            decide(&payment, &cancel()),
            [Event::PaymentCancelSettled(settled)]
        );
        assert_eq!(told(&mut payment, &cancel()), [cancelled(refunded)]);
        assert_eq!(payment, before);
    }
}

/// Every command in every status: what is not in the table of the module's documentation gives no events.
#[test]
fn every_command_in_every_status() {
    let commands = [
        ("charge", charge()),
        ("cancel", cancel()),
        ("settle", settle()),
        ("charged", charged(1)),
        ("declined", declined(1)),
        ("voided", voided(1)),
        ("refunded", refunded(1)),
        ("refund_refused", refund_refused(1)),
    ];
    let mut moves = Vec::new();
    for from in ALL {
        for (name, command) in &commands {
            let mut payment = reach(from);
            match handle(&mut payment, command).as_slice() {
                [] => assert_eq!(payment, reach(from)),
                [_] => moves.push((from, *name, payment.status())),
                several => panic!("at most one event was expected, not {several:?}"),
            }
        }
    }
    assert_eq!(
        moves,
        [
            (Status::Unspecified, "charge", Status::Requested),
            (Status::Unspecified, "cancel", Status::Unspecified),
            (Status::Requested, "cancel", Status::CancelRequested),
            (Status::Requested, "charged", Status::Processed),
            (Status::Requested, "declined", Status::Declined),
            (Status::Processed, "cancel", Status::Refunding),
            (Status::Processed, "settle", Status::Settled),
            (Status::Declined, "cancel", Status::Declined),
            (Status::CancelRequested, "charged", Status::Refunding),
            (Status::CancelRequested, "declined", Status::Declined),
            (Status::CancelRequested, "voided", Status::Voided),
            (Status::Voided, "cancel", Status::Voided),
            (Status::Refunding, "refunded", Status::Refunded),
            (Status::Refunding, "refund_refused", Status::Refunding),
            (Status::Refunded, "cancel", Status::Refunded),
            (Status::Settled, "cancel", Status::Settled),
        ]
    );
}

/// Something is outstanding exactly where the payment waits for the provider.
#[test]
fn effects_stand_only_where_the_provider_is_awaited() {
    for status in ALL {
        let waits = matches!(
            status,
            Status::Requested | Status::CancelRequested | Status::Refunding
        );
        let outstanding = PaymentRules::outstanding(&reach(status), ID);
        assert_eq!(!outstanding.is_empty(), waits, "{status:?}");
    }
}

#[test]
fn only_a_uuid_v7_names_a_payment() {
    assert!(PaymentRules::is_id(ID));
    assert!(!PaymentRules::is_id("6ba7b810-9dad-41d1-80b4-00c04fd430c8"));
    assert!(!PaymentRules::is_id(""));
}

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

/// The transitions of the state machine; a refund that is refused stays where it is.
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

/// A provider that keeps the promises of its contract.
#[derive(Default)]
struct Ledger {
    charge: Option<Command>,
    refunds: HashSet<String>,
}

impl Ledger {
    fn perform(&mut self, key: String, effect: &Effect, says_yes: bool) -> Command {
        match effect {
            Effect::Charge { .. } => self
                .charge
                .get_or_insert(if says_yes { charged(1) } else { declined(1) })
                .clone(),
            Effect::Void { .. } => self.charge.get_or_insert(voided(1)).clone(),
            Effect::Refund { attempt, .. } if says_yes || self.refunds.contains(&key) => {
                self.refunds.insert(key);
                refunded(*attempt)
            }
            Effect::Refund { attempt, .. } => refund_refused(*attempt),
        }
    }
}

proptest! {
    #[test]
    fn any_commands_keep_the_state_machine(commands in prop::collection::vec(any_command(), 0..40)) {
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
                prop_assert!(payment != before, "an event that was decided is folded");
            }
            for outstanding in PaymentRules::outstanding(&payment, ID) {
                let Outstanding::Effect { not_before_ms, .. } = outstanding else {
                    return Err(TestCaseError::fail("a payment has no timers"));
                };
                // Only a refund that was refused rests.
                let rests = payment.status() == Status::Refunding && payment.refund_attempt > 1;
                prop_assert_eq!(not_before_ms > NOW_MS, rests);
                prop_assert_eq!(not_before_ms == 0, !rests);
            }
            prop_assert!(captures <= 1);
            prop_assert!(refunds <= captures);
            if PaymentRules::finished(&before) {
                prop_assert_eq!(&payment, &before, "the end is the end");
            }
        }
    }

    /// Effects run late, twice, or by a former owner; at rest the provider's ledger equals the payment.
    #[test]
    fn at_rest_the_ledger_equals_the_payment(
        steps in prop::collection::vec((0..5_u8, any::<bool>()), 0..40),
    ) {
        let mut payment = given(&[charge()]);
        let mut ledger = Ledger::default();
        let mut former_owner = Vec::new();
        for (step, says_yes) in steps {
            former_owner.extend(PaymentRules::outstanding(&payment, ID));
            let due = match step {
                0 => { handle(&mut payment, &cancel()); continue }
                1 => { handle(&mut payment, &settle()); continue }
                2 => former_owner.first().cloned(),
                _ => PaymentRules::outstanding(&payment, ID).pop(),
            };
            if let Some(Outstanding::Effect { key, effect, .. }) = due {
                let answer = ledger.perform(key, &effect, says_yes);
                handle(&mut payment, &answer);
            }
        }
        while let Some(Outstanding::Effect { key, effect, .. }) = PaymentRules::outstanding(&payment, ID).pop() {
            let answer = ledger.perform(key, &effect, true);
            handle(&mut payment, &answer);
        }
        let taken = ledger.charge == Some(charged(1));
        let given_back = !ledger.refunds.is_empty();
        prop_assert!(ledger.refunds.len() <= 1);
        let expected: &[(bool, bool)] = match payment.status() {
            Status::Processed | Status::Settled => &[(true, false)],
            Status::Refunded => &[(true, true)],
            _ => &[(false, false)],
        };
        prop_assert_eq!(&[(taken, given_back)], expected);
    }
}
