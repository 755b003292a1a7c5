//! Tests of the rule book of a payment.

use contracts::payments::v1::{
    CancelPayment, ChargePayment, RecordChargeDeclined, RecordChargeVoided, RecordCharged,
    RecordRefundRefused, RecordRefunded, SettlePayment,
};

use super::*;

mod properties;

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

/// The append time of every command.
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

/// A payment in a status, after the fewest commands.
fn payment_in(status: Status) -> Payment {
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

/// Key, effect, and its earliest start.
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

/// Decides a command, folds its events and returns the commands that are sent to the order.
fn sent_to_order(payment: &mut Payment, command: &Command) -> Vec<OrderCommand> {
    let events = handle(payment, command);
    events
        .iter()
        .flat_map(|event| PaymentRules::react(payment, event, ID))
        .map(|message| {
            assert_eq!(message.aggregate_id, ID);
            match message.command {
                contracts::Command::Order(command) => command,
                other => panic!("payments sends commands to orders only, not {other:?}"),
            }
        })
        .collect()
}

#[test]
fn a_charge_is_requested_once() {
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
fn a_charged_payment_notifies_the_order_and_is_settled() {
    let mut payment = payment_in(Status::Requested);
    let processed = RecordPaymentProcessed {
        provider_reference: "ch_1".into(),
    };
    assert_eq!(
        sent_to_order(&mut payment, &charged(1)),
        [OrderCommand::RecordPaymentProcessed(processed)]
    );
    assert!(!PaymentRules::finished(&payment));
    assert_eq!(sent_to_order(&mut payment, &settle()), []);
    assert!(PaymentRules::finished(&payment));
}

#[test]
fn a_declined_payment_notifies_the_order() {
    let mut payment = payment_in(Status::Requested);
    let declined_answer = RecordPaymentDeclined {
        reason: "no funds".into(),
    };
    assert_eq!(
        sent_to_order(&mut payment, &declined(1)),
        [OrderCommand::RecordPaymentDeclined(declined_answer)]
    );
}

#[test]
fn a_cancellation_without_a_charge_refunds_nothing() {
    for answer in [declined(1), voided(1)] {
        let mut payment = payment_in(Status::CancelRequested);
        let charge_key = format!("{ID}/charge/1");
        assert_eq!(
            effect(&payment),
            (format!("{ID}/void/1"), Effect::Void { charge_key })
        );
        assert_eq!(sent_to_order(&mut payment, &answer), [cancelled(0)]);
    }
}

#[test]
fn a_charge_that_precedes_its_cancellation_is_captured_and_refunded() {
    let mut payment = payment_in(Status::CancelRequested);
    let requested = PaymentRefundRequested {
        captured: true,
        provider_reference: "ch_1".into(),
    };
    assert_eq!(
        handle(&mut payment, &charged(1)),
        [Event::PaymentRefundRequested(requested)]
    );
    assert_eq!(sent_to_order(&mut payment, &refunded(1)), [cancelled(1299)]);
}

#[test]
fn a_processed_payment_is_refunded() {
    let mut payment = payment_in(Status::Processed);
    let requested = PaymentRefundRequested {
        captured: false,
        provider_reference: "ch_1".into(),
    };
    assert_eq!(
        handle(&mut payment, &cancel()),
        [Event::PaymentRefundRequested(requested)]
    );
    assert_eq!(sent_to_order(&mut payment, &refunded(1)), [cancelled(1299)]);
}

#[test]
fn a_refused_refund_is_flagged_and_retried_under_a_new_key() {
    let mut payment = payment_in(Status::Refunding);
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
    assert_eq!(sent_to_order(&mut payment, &refund_refused(1)), []);
    assert!(payment.flagged);
    assert_eq!(effect(&payment), refund(2));

    assert_eq!(
        handle(&mut payment, &refund_refused(1)),
        [],
        "a stale refusal is ignored"
    );
    assert_eq!(
        handle(&mut payment, &refunded(1)),
        [],
        "a stale success is ignored"
    );
    assert_eq!(sent_to_order(&mut payment, &refunded(2)), [cancelled(1299)]);
}

#[test]
fn the_wait_after_a_refused_refund_doubles_up_to_an_hour() {
    let mut payment = payment_in(Status::Refunding);
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

/// Refusals of an older version have no time; the next attempt begins at once.
#[test]
fn a_refusal_without_a_time_is_retried_at_once() {
    let mut payment = payment_in(Status::Refunding);
    let refused = Event::PaymentRefundRefused(PaymentRefundRefused::default());
    PaymentRules::evolve(&mut payment, &refused);
    assert_eq!(payment.refund_attempt, 2);
    assert_eq!(outstanding(&payment).2, 0);
}

#[test]
fn a_cancellation_of_a_finished_payment_is_answered_and_changes_nothing() {
    for (status, refunded) in [
        (Status::Unspecified, 0),
        (Status::Declined, 0),
        (Status::Voided, 0),
        (Status::Refunded, 1299),
        (Status::Settled, 0),
    ] {
        let mut payment = payment_in(status);
        let before = payment.clone();
        let settled = PaymentCancelSettled {
            status: status.into(),
        };
        assert_eq!(
            decide(&payment, &cancel()),
            [Event::PaymentCancelSettled(settled)]
        );
        assert_eq!(
            sent_to_order(&mut payment, &cancel()),
            [cancelled(refunded)]
        );
        assert_eq!(payment, before);
    }
}

/// Every command in every status. Combinations that the table of the module documentation lacks give no events.
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
    let mut transitions = Vec::new();
    for from in ALL {
        for (name, command) in &commands {
            let mut payment = payment_in(from);
            match handle(&mut payment, command).as_slice() {
                [] => assert_eq!(payment, payment_in(from)),
                [_] => transitions.push((from, *name, payment.status())),
                several => panic!("at most one event was expected, not {several:?}"),
            }
        }
    }
    assert_eq!(
        transitions,
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

#[test]
fn an_effect_is_outstanding_only_while_the_provider_is_awaited() {
    for status in ALL {
        let waits = matches!(
            status,
            Status::Requested | Status::CancelRequested | Status::Refunding
        );
        let outstanding = PaymentRules::outstanding(&payment_in(status), ID);
        assert_eq!(!outstanding.is_empty(), waits, "{status:?}");
    }
}

#[test]
fn the_id_of_a_payment_is_a_uuid_v7() {
    assert!(PaymentRules::is_id(ID));
    assert!(!PaymentRules::is_id("6ba7b810-9dad-41d1-80b4-00c04fd430c8"));
    assert!(!PaymentRules::is_id(""));
}
