//! Effects across take-overs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use contracts::core::v1::Money;
use contracts::payments::v1::payment_command::Command;
use contracts::payments::v1::payment_event::Event;
use contracts::payments::v1::{
    CancelPayment, ChargePayment, RecordCharged, RecordRefundRefused, RecordRefunded,
};
use contracts::{Payments, Service};
use engine::effects::{Attempt, EffectHandler, Indeterminate};
use harness::{KafkaFixture, eventually};
use parking_lot::Mutex;
use payments::{Effect, PaymentRules};

use super::inventory_helpers::{frequent_checkpoints, fresh_id};

/// A provider that records its calls, and answers or hangs.
#[derive(Clone)]
struct Provider {
    answers: bool,
    asked: Arc<Mutex<Vec<(String, Attempt)>>>,
}

impl Provider {
    fn new(answers: bool) -> Self {
        Self {
            answers,
            asked: Arc::default(),
        }
    }

    /// All attempts for this order.
    fn attempts_for(&self, order_id: &str) -> Vec<Attempt> {
        let asked = self.asked.lock();
        asked
            .iter()
            .filter(|(key, _)| key.contains(order_id))
            .map(|(_, attempt)| *attempt)
            .collect()
    }
}

impl EffectHandler<PaymentRules> for Provider {
    fn target(&self, _effect: &Effect) -> &'static str {
        "provider"
    }

    async fn perform(
        &self,
        key: &str,
        _effect: &Effect,
        attempt: Attempt,
    ) -> Result<Command, Indeterminate> {
        self.asked.lock().push((key.to_owned(), attempt));
        if !self.answers {
            std::future::pending::<()>().await;
        }
        Ok(charged().0)
    }
}

fn charged() -> (Command, contracts::Command) {
    let record = RecordCharged {
        attempt: 1,
        provider_reference: "reference".into(),
    };
    let command = Command::RecordCharged(record);
    (command.clone(), command.into())
}

fn charge() -> contracts::Command {
    let amount = Money {
        minor_units: 100,
        currency: "EUR".into(),
    };
    let charge = ChargePayment {
        amount: Some(amount),
        customer_id: "customer".into(),
    };
    Command::ChargePayment(charge).into()
}

/// The kinds of an order's events.
fn events(fixture: &KafkaFixture, order_id: &str) -> Vec<&'static str> {
    let events = fixture.events::<Payments>();
    let of_order = events
        .iter()
        .filter(|event| event.metadata.aggregate_id == order_id);
    of_order
        .map(|event| contracts::Body::kind(&event.body))
        .collect()
}

fn wait_until_processed(fixture: &KafkaFixture, order_id: &str) {
    eventually("the payment is processed", || {
        let events = fixture.events::<Payments>();
        let mut of_order = events
            .iter()
            .filter(|event| event.metadata.aggregate_id == order_id);
        of_order
            .any(|event| matches!(event.body, Event::PaymentProcessed(_)))
            .then_some(())
    });
}

#[test]
fn an_answer_in_the_log_is_read_before_its_effect_is_repeated() {
    let fixture = KafkaFixture::new(1);
    let (answered, unanswered) = (fresh_id(), fresh_id());
    let silent = Provider::new(false);
    let worker = fixture.run(
        PaymentRules::default(),
        silent.clone(),
        frequent_checkpoints(),
    );
    worker.wait_until_ready();
    for order_id in [&answered, &unanswered] {
        fixture.send(order_id, charge());
        eventually("the provider is asked", || {
            silent.attempts_for(order_id).pop()
        });
        let [first] = silent.attempts_for(order_id)[..] else {
            panic!("asked once")
        };
        assert!(!first.may_have_run, "there was no earlier attempt");
    }
    worker.stop();

    // The answer is in the log, but no worker has read it.
    fixture.send(&answered, charged().1);
    let provider = Provider::new(true);
    let worker = fixture.run(
        PaymentRules::default(),
        provider.clone(),
        frequent_checkpoints(),
    );
    wait_until_processed(&fixture, &answered);
    wait_until_processed(&fixture, &unanswered);
    let fresh = fresh_id();
    fixture.send(&fresh, charge());
    wait_until_processed(&fixture, &fresh);
    assert_eq!(provider.attempts_for(&answered), [], "it had been answered");
    let [repeated] = provider.attempts_for(&unanswered)[..] else {
        panic!("asked once more")
    };
    assert!(
        repeated.may_have_run,
        "a former owner may have performed it"
    );
    worker.stop();

    // A full replay performs no effect repeated.
    for record in fixture.read(Service::Payments, contracts::Topic::State) {
        let erased = engine::log::Input {
            payload: None,
            ..record
        };
        fixture.write(Service::Payments, contracts::Topic::State, &erased);
    }
    let provider = Provider::new(true);
    let worker = fixture.run(
        PaymentRules::default(),
        provider.clone(),
        frequent_checkpoints(),
    );
    let last = fresh_id();
    fixture.send(&last, charge());
    wait_until_processed(&fixture, &last);
    assert_eq!(
        provider.asked.lock().len(),
        1,
        "only the new payment is asked for"
    );
    for order_id in [&answered, &unanswered, &fresh] {
        assert_eq!(
            events(&fixture, order_id),
            ["payment_requested", "payment_processed"]
        );
    }
    worker.stop();
}

#[test]
fn the_age_of_the_oldest_effect_survives_a_take_over() {
    let fixture = KafkaFixture::new(1);
    let provider = Provider::new(false);
    let order_id = fresh_id();
    fixture.send(&order_id, charge());
    for owners in 1..=2 {
        let worker = fixture.run(
            PaymentRules::default(),
            provider.clone(),
            frequent_checkpoints(),
        );
        eventually("the provider is asked", || {
            (provider.attempts_for(&order_id).len() >= owners).then_some(())
        });
        let [requested] = &fixture.events::<Payments>()[..] else {
            panic!("nothing but the request has happened")
        };
        let age_ms = unix_ms() - requested.metadata.time_ms;
        let shown = worker.metric(engine::metrics::names::EFFECTS_OLDEST_SECONDS.name);
        assert!(shown * 1_000.0 >= age_ms as f64, "{shown} s, {age_ms} ms");
        worker.stop();
    }
}

/// A provider that refuses the first refunds of every order and records when each was requested.
#[derive(Clone)]
struct RefusingProvider {
    refuses: u32,
    /// Unix milliseconds by key.
    asked: Arc<Mutex<HashMap<String, i64>>>,
}

impl EffectHandler<PaymentRules> for RefusingProvider {
    fn target(&self, _effect: &Effect) -> &'static str {
        "provider"
    }

    async fn perform(
        &self,
        key: &str,
        effect: &Effect,
        _attempt: Attempt,
    ) -> Result<Command, Indeterminate> {
        self.asked
            .lock()
            .entry(key.to_owned())
            .or_insert_with(unix_ms);
        Ok(match effect {
            Effect::Refund { attempt, .. } if *attempt <= self.refuses => {
                Command::RecordRefundRefused(RecordRefundRefused {
                    attempt: *attempt,
                    reason: "not today".into(),
                })
            }
            Effect::Refund { attempt, .. } => Command::RecordRefunded(RecordRefunded {
                attempt: *attempt,
                provider_reference: "reference".into(),
            }),
            Effect::Charge { .. } | Effect::Void { .. } => charged().0,
        })
    }
}

fn unix_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since_epoch.as_millis().try_into().unwrap()
}

/// When each refused refund of the order is due again, Unix milliseconds.
fn retries(fixture: &KafkaFixture, order_id: &str) -> Vec<i64> {
    let events = fixture.events::<Payments>();
    let of_order = events
        .iter()
        .filter(|event| event.metadata.aggregate_id == order_id);
    of_order
        .filter_map(|event| match &event.body {
            Event::PaymentRefundRefused(refused) => Some(refused.retry_at_ms),
            _ => None,
        })
        .collect()
}

#[test]
fn a_delayed_effect_is_not_performed_early_by_another_owner() {
    let fixture = KafkaFixture::new(1);
    let rules = PaymentRules {
        refund_wait_ms: 1_000,
    };
    let provider = RefusingProvider {
        refuses: 2,
        asked: Arc::default(),
    };
    let worker = fixture.run(rules, provider.clone(), frequent_checkpoints());
    let order_id = fresh_id();
    fixture.send(&order_id, charge());
    wait_until_processed(&fixture, &order_id);
    fixture.send(&order_id, Command::CancelPayment(CancelPayment {}));
    eventually("the first refund is refused", || {
        retries(&fixture, &order_id).pop()
    });
    worker.stop();

    let worker = fixture.run(rules, provider.clone(), frequent_checkpoints());
    eventually("the payment is refunded", || {
        (events(&fixture, &order_id).last() == Some(&"payment_refunded")).then_some(())
    });
    worker.stop();
    let retries = retries(&fixture, &order_id);
    assert_eq!(retries.len(), 2);
    let asked = provider.asked.lock();
    for (attempt, retry_at_ms) in (2..).zip(retries) {
        let asked_ms = asked[&format!("{order_id}/refund/{attempt}")];
        assert!(
            asked_ms >= retry_at_ms,
            "{asked_ms} is before {retry_at_ms}"
        );
    }
}
