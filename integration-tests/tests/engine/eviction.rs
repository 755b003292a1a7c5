//! What has left memory does not come back.

use std::time::Duration;

use contracts::orders::v1::order_outcome::Outcome;
use contracts::orders::v1::{OrderRejectionCode, RecordStockRefused, order_command};
use contracts::{Orders, Service, Topic};
use engine::worker::Settings;
use harness::{KafkaFixture, NoEffects, eventually};
use orders::OrderRules;

use super::given::{eager, fresh_id, place_order};

/// The rules would still take an id of this age: only the memory of what was evicted says no.
fn forgetful() -> Settings {
    Settings {
        horizon: Duration::from_millis(500),
        slack: Duration::ZERO,
        ..eager()
    }
}

fn refuse(sku: &str) -> contracts::Command {
    let refused = RecordStockRefused {
        sku: sku.into(),
        available: 0,
    };
    order_command::Command::RecordStockRefused(refused).into()
}

fn answer(stand: &KafkaFixture, order_id: &str) -> Outcome {
    let sent = stand.send(order_id, place_order("sku"));
    eventually("the order has its outcome", || {
        let outcomes = stand.outcomes::<Orders>();
        let mut mine = outcomes
            .into_iter()
            .filter(|o| o.metadata.causation_id == sent.id);
        mine.next().map(|outcome| outcome.body)
    })
}

fn is_stale(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Rejection(rejection) if rejection.code() == OrderRejectionCode::Stale)
}

#[test]
fn an_evicted_order_is_not_resurrected() {
    let stand = KafkaFixture::new(1);
    let worker = stand.run(OrderRules::default(), NoEffects, forgetful());
    let order_id = fresh_id();
    let first = answer(&stand, &order_id);
    assert!(matches!(first, Outcome::Accepted(_)), "{first:?}");
    let again = answer(&stand, &order_id);
    assert!(
        matches!(again, Outcome::Accepted(_)),
        "it is known: {again:?}"
    );
    stand.send(&order_id, refuse("sku"));
    eventually("the order is checkpointed", || {
        stand
            .states::<Orders>()
            .contains_key(&order_id)
            .then_some(())
    });
    eventually("the order leaves memory as others come", || {
        let other = answer(&stand, &fresh_id());
        assert!(
            matches!(other, Outcome::Accepted(_)),
            "a fresh id is taken: {other:?}"
        );
        (!stand.states::<Orders>().contains_key(&order_id)).then_some(())
    });
    let of_order = |stand: &KafkaFixture| {
        let events = stand.events::<Orders>();
        events
            .iter()
            .filter(|event| event.metadata.aggregate_id == order_id)
            .count()
    };
    let events = of_order(&stand);
    let late = answer(&stand, &order_id);
    assert!(is_stale(&late), "{late:?}");
    worker.stop();

    let worker = stand.run(OrderRules::default(), NoEffects, forgetful());
    let late = answer(&stand, &order_id);
    assert!(is_stale(&late), "also after a take-over: {late:?}");
    worker.stop();

    // Without a checkpoint the events bring it back as it was, and it still answers as itself.
    for record in stand.read(Service::Orders, Topic::State) {
        let erased = engine::log::Input {
            payload: None,
            ..record
        };
        stand.write(Service::Orders, Topic::State, &erased);
    }
    let worker = stand.run(OrderRules::default(), NoEffects, eager());
    let late = answer(&stand, &order_id);
    assert!(
        matches!(late, Outcome::Accepted(_)),
        "the same body gets the same answer: {late:?}"
    );
    assert_eq!(of_order(&stand), events, "nothing has happened to it");
    worker.stop();
}
