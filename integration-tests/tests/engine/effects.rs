//! Effects across take-overs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use contracts::core::v1::Money;
use contracts::payments::v1::payment_command::Command;
use contracts::payments::v1::payment_event::Event;
use contracts::payments::v1::{
    CancelPayment, ChargePayment, RecordCharged, RecordRefundRefused, RecordRefunded,
};
use contracts::{Payments, Service};
use engine::effects::{Attempt, EffectHandler, Unknown};
use harness::{KafkaFixture, eventually};
use payments::{Effect, PaymentRules};

use super::given::{eager, fresh_id};

/// A provider that notes whom it was asked about, and answers or does not.
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

    /// Every try for this order.
    fn asked_about(&self, order_id: &str) -> Vec<Attempt> {
        let asked = self.asked.lock().unwrap();
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
    ) -> Result<Command, Unknown> {
        self.asked.lock().unwrap().push((key.to_owned(), attempt));
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
fn events(stand: &KafkaFixture, order_id: &str) -> Vec<&'static str> {
    let events = stand.events::<Payments>();
    let of_order = events
        .iter()
        .filter(|event| event.metadata.aggregate_id == order_id);
    of_order
        .map(|event| contracts::Body::kind(&event.body))
        .collect()
}

fn processed(stand: &KafkaFixture, order_id: &str) {
    eventually("the payment is processed", || {
        let events = stand.events::<Payments>();
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
    let stand = KafkaFixture::new(1);
    let (answered, unanswered) = (fresh_id(), fresh_id());
    let silent = Provider::new(false);
    let worker = stand.run(PaymentRules::default(), silent.clone(), eager());
    worker.ready();
    for order_id in [&answered, &unanswered] {
        stand.send(order_id, charge());
        eventually("the provider is asked", || {
            silent.asked_about(order_id).pop()
        });
        let [first] = silent.asked_about(order_id)[..] else {
            panic!("asked once")
        };
        assert!(!first.may_have_run, "nobody has tried it before");
    }
    worker.stop();

    // The answer came, but nobody was there to read it.
    stand.send(&answered, charged().1);
    let provider = Provider::new(true);
    let worker = stand.run(PaymentRules::default(), provider.clone(), eager());
    processed(&stand, &answered);
    processed(&stand, &unanswered);
    let fresh = fresh_id();
    stand.send(&fresh, charge());
    processed(&stand, &fresh);
    assert_eq!(provider.asked_about(&answered), [], "it had been answered");
    let [again] = provider.asked_about(&unanswered)[..] else {
        panic!("asked once more")
    };
    assert!(again.may_have_run, "a former owner may have tried it");
    worker.stop();

    // Replaying everything asks nothing again.
    for record in stand.read(Service::Payments, contracts::Topic::State) {
        let erased = engine::log::Input {
            payload: None,
            ..record
        };
        stand.write(Service::Payments, contracts::Topic::State, &erased);
    }
    let provider = Provider::new(true);
    let worker = stand.run(PaymentRules::default(), provider.clone(), eager());
    let last = fresh_id();
    stand.send(&last, charge());
    processed(&stand, &last);
    assert_eq!(
        provider.asked.lock().unwrap().len(),
        1,
        "only the new payment is asked for"
    );
    for order_id in [&answered, &unanswered, &fresh] {
        assert_eq!(
            events(&stand, order_id),
            ["payment_requested", "payment_processed"]
        );
    }
    worker.stop();
}

#[test]
fn the_oldest_effect_is_as_old_after_a_take_over_as_its_event() {
    let stand = KafkaFixture::new(1);
    let provider = Provider::new(false);
    let order_id = fresh_id();
    stand.send(&order_id, charge());
    for owners in 1..=2 {
        let worker = stand.run(PaymentRules::default(), provider.clone(), eager());
        eventually("the provider is asked", || {
            (provider.asked_about(&order_id).len() >= owners).then_some(())
        });
        let [requested] = &stand.events::<Payments>()[..] else {
            panic!("nothing but the request has happened")
        };
        let age_ms = unix_ms() - requested.metadata.time_ms;
        let shown = worker.figure(engine::metrics::names::EFFECTS_OLDEST_SECONDS.name);
        assert!(shown * 1_000.0 >= age_ms as f64, "{shown} s, {age_ms} ms");
        worker.stop();
    }
}

/// A provider that refuses the first refunds of every order, and notes when each was asked for.
#[derive(Clone)]
struct Refuser {
    refuses: u32,
    /// Unix milliseconds by key.
    asked: Arc<Mutex<HashMap<String, i64>>>,
}

impl EffectHandler<PaymentRules> for Refuser {
    fn target(&self, _effect: &Effect) -> &'static str {
        "provider"
    }

    async fn perform(
        &self,
        key: &str,
        effect: &Effect,
        _attempt: Attempt,
    ) -> Result<Command, Unknown> {
        self.asked
            .lock()
            .unwrap()
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

/// When each refused refund of the order is to be asked for again, Unix milliseconds.
fn retries(stand: &KafkaFixture, order_id: &str) -> Vec<i64> {
    let events = stand.events::<Payments>();
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
fn an_effect_that_begins_later_is_not_asked_for_before_also_by_another_owner() {
    let stand = KafkaFixture::new(1);
    let rules = PaymentRules {
        refund_wait_ms: 1_000,
    };
    let provider = Refuser {
        refuses: 2,
        asked: Arc::default(),
    };
    let worker = stand.run(rules, provider.clone(), eager());
    let order_id = fresh_id();
    stand.send(&order_id, charge());
    processed(&stand, &order_id);
    stand.send(&order_id, Command::CancelPayment(CancelPayment {}));
    eventually("the first refund is refused", || {
        retries(&stand, &order_id).pop()
    });
    worker.stop();

    let worker = stand.run(rules, provider.clone(), eager());
    eventually("the payment is refunded", || {
        (events(&stand, &order_id).last() == Some(&"payment_refunded")).then_some(())
    });
    worker.stop();
    let retries = retries(&stand, &order_id);
    assert_eq!(retries.len(), 2);
    let asked = provider.asked.lock().unwrap();
    for (attempt, retry_at_ms) in (2..).zip(retries) {
        let asked_ms = asked[&format!("{order_id}/refund/{attempt}")];
        assert!(
            asked_ms >= retry_at_ms,
            "{asked_ms} is before {retry_at_ms}"
        );
    }
}
