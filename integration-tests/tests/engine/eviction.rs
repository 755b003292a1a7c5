//! Evicted aggregates are not resurrected.

use std::time::Duration;

use contracts::orders::v1::order_outcome::Outcome;
use contracts::orders::v1::{OrderRejectionCode, RecordStockRefused, order_command};
use contracts::{Orders, Service, Topic};
use engine::worker::Settings;
use harness::{KafkaFixture, NoEffects, eventually};
use orders::OrderRules;

use super::inventory_helpers::{frequent_checkpoints, fresh_id, place_order};

/// The rules would still accept an id of this age; only the record of evictions rejects it.
fn quick_eviction() -> Settings {
    Settings {
        horizon: Duration::from_millis(500),
        slack: Duration::ZERO,
        ..frequent_checkpoints()
    }
}

fn refuse(sku: &str) -> contracts::Command {
    let refused = RecordStockRefused {
        sku: sku.into(),
        available: 0,
    };
    order_command::Command::RecordStockRefused(refused).into()
}

fn outcome_of(fixture: &KafkaFixture, order_id: &str) -> Outcome {
    let sent = fixture.send(order_id, place_order("sku"));
    eventually("the order has its outcome", || {
        let outcomes = fixture.outcomes::<Orders>();
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
    let fixture = KafkaFixture::new(1);
    let worker = fixture.run(OrderRules::default(), NoEffects, quick_eviction());
    let order_id = fresh_id();
    let first = outcome_of(&fixture, &order_id);
    assert!(matches!(first, Outcome::Accepted(_)), "{first:?}");
    let repeated = outcome_of(&fixture, &order_id);
    assert!(
        matches!(repeated, Outcome::Accepted(_)),
        "it is known: {repeated:?}"
    );
    fixture.send(&order_id, refuse("sku"));
    eventually("the order is checkpointed", || {
        fixture
            .states::<Orders>()
            .contains_key(&order_id)
            .then_some(())
    });
    eventually("the order is evicted as others arrive", || {
        let other = outcome_of(&fixture, &fresh_id());
        assert!(
            matches!(other, Outcome::Accepted(_)),
            "a fresh id is taken: {other:?}"
        );
        (!fixture.states::<Orders>().contains_key(&order_id)).then_some(())
    });
    let of_order = |fixture: &KafkaFixture| {
        let events = fixture.events::<Orders>();
        events
            .iter()
            .filter(|event| event.metadata.aggregate_id == order_id)
            .count()
    };
    let events = of_order(&fixture);
    let late = outcome_of(&fixture, &order_id);
    assert!(is_stale(&late), "{late:?}");
    worker.stop();

    let worker = fixture.run(OrderRules::default(), NoEffects, quick_eviction());
    let late = outcome_of(&fixture, &order_id);
    assert!(is_stale(&late), "also after a take-over: {late:?}");
    worker.stop();

    // Without a checkpoint the events restore the order as it was, and it answers as before.
    for record in fixture.read(Service::Orders, Topic::State) {
        let erased = engine::log::Input {
            payload: None,
            ..record
        };
        fixture.write(Service::Orders, Topic::State, &erased);
    }
    let worker = fixture.run(OrderRules::default(), NoEffects, frequent_checkpoints());
    let late = outcome_of(&fixture, &order_id);
    assert!(
        matches!(late, Outcome::Accepted(_)),
        "the same body gets the same answer: {late:?}"
    );
    assert_eq!(of_order(&fixture), events, "nothing has happened to it");
    worker.stop();
}
