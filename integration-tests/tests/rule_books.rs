//! The four rule books together, without a log. Messages arrive in any order that Kafka allows, partners answer late,
//! twice or never, customers cancel and timers fire at any moment. The invariants of the business hold in every
//! scenario.

mod invariants;
mod partners;
mod platform;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use contracts::Payments;
use contracts::payments::v1::payment_command::Command;
use contracts::payments::v1::payment_event::Event;
use contracts::payments::v1::payment_outcome::Outcome;
use contracts::payments::v1::{Payment, PaymentStatus, PaymentVoided};
use engine::{Context, Decider, Outstanding};
use payments::PaymentRules;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use platform::{Platform, SKUS};

/// A random scenario: the orders, the stock, and the first steps.
#[derive(Clone, Debug)]
struct Scenario {
    /// Quantity and price of the lines of each order.
    orders: Vec<Vec<(u32, i64)>>,
    pieces: i64,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Step {
    /// Performs one of the possible steps: a message arrives, a partner is called, decides, or its answer arrives.
    Progress(u32),
    CustomerCancels(u16),
    StrangerCancels(u16),
    CustomerRepeats(u16),
    CustomerReusesTheId(u16),
    TimerFires(u16),
    StockChanges(u16, i64),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn invariants_hold_in_every_scenario(scenario in scenarios()) {
        run(&scenario, PaymentRules::default());
    }
}

/// The property above is meaningful only if its scenarios reach every final status.
#[test]
fn scenarios_reach_every_final_status() {
    let ends: BTreeSet<_> = samples(1_500)
        .flat_map(|scenario| run(&scenario, PaymentRules::default()))
        .collect();
    for end in [
        "Delivered",
        "Cancelled for Customer",
        "Rejected for OutOfStock",
        "Rejected for PaymentDeclined",
        "Rejected for Undeliverable",
        "Rejected for Expired",
        "payment Voided",
        "payment Declined",
        "payment Refunded",
        "payment Settled",
        "shipment Cancelled",
        "shipment Refused",
        "shipment Delivered",
    ] {
        assert!(ends.contains(end), "{end} is missing in {ends:?}");
    }
}

/// The property above is meaningful only if it detects a violation.
#[test]
fn a_void_without_the_providers_confirmation_is_detected() {
    let found = samples(1_500).any(|scenario| {
        catch_unwind(AssertUnwindSafe(|| {
            run(&scenario, UnconfirmedVoid(PaymentRules::default()))
        }))
        .is_err()
    });
    assert!(found, "no scenario has shown it");
}

fn samples(count: usize) -> impl Iterator<Item = Scenario> {
    let mut runner = TestRunner::deterministic();
    let strategy = scenarios();
    (0..count).map(move |_| {
        let tree = strategy.new_tree(&mut runner);
        tree.expect("no filter rejects").current()
    })
}

fn scenarios() -> impl Strategy<Value = Scenario> {
    let line = (1..4_u32, prop_oneof![1 => Just(0_i64), 4 => Just(7)]);
    let lines = prop::collection::vec(line, 1..=SKUS.len());
    let steps = prop_oneof![
        60 => any::<u32>().prop_map(Step::Progress),
        3 => any::<u16>().prop_map(Step::CustomerCancels),
        1 => any::<u16>().prop_map(Step::StrangerCancels),
        2 => any::<u16>().prop_map(Step::CustomerRepeats),
        1 => any::<u16>().prop_map(Step::CustomerReusesTheId),
        2 => any::<u16>().prop_map(Step::TimerFires),
        2 => (any::<u16>(), -3..4_i64).prop_map(|(sku, delta)| Step::StockChanges(sku, delta)),
    ];
    (
        prop::collection::vec(lines, 1..4),
        0..14_i64,
        prop::collection::vec(steps, 0..160),
    )
        .prop_map(|(orders, pieces, steps)| Scenario {
            orders,
            pieces,
            steps,
        })
}

/// Runs a scenario until no step is possible. Returns the final statuses.
fn run<P>(scenario: &Scenario, payments: P) -> Vec<String>
where
    P: Decider<Contract = Payments, Effect = payments::Effect>,
{
    let mut platform = Platform::new(payments, scenario.pieces);
    for lines in &scenario.orders {
        platform.place(lines);
    }
    for step in &scenario.steps {
        match step {
            Step::Progress(choice) => {
                platform.progress(*choice);
            }
            Step::CustomerCancels(order) => platform.cancel(usize::from(*order), "ada"),
            Step::StrangerCancels(order) => platform.cancel(usize::from(*order), "eve"),
            Step::CustomerRepeats(order) => platform.repeat(usize::from(*order)),
            Step::CustomerReusesTheId(order) => platform.reuse_id(usize::from(*order)),
            Step::TimerFires(order) => platform.fire_timers(usize::from(*order)),
            Step::StockChanges(sku, delta) => platform.adjust(usize::from(*sku), *delta),
        }
    }
    platform.settle();
    invariants::at_rest(&platform);
    platform.final_statuses()
}

/// A faulty rule book that voids a cancelled charge without the provider's confirmation.
struct UnconfirmedVoid(PaymentRules);

impl Decider for UnconfirmedVoid {
    type Contract = Payments;
    type Rejection = std::convert::Infallible;
    type Effect = payments::Effect;

    const RULES_VERSION: u32 = PaymentRules::RULES_VERSION;

    fn decide(
        &self,
        payment: &Payment,
        command: &Command,
        context: &Context<'_>,
    ) -> Result<Vec<Event>, Self::Rejection> {
        let mut events = self.0.decide(payment, command, context)?;
        if payment.status() == PaymentStatus::Requested
            && matches!(command, Command::CancelPayment(_))
        {
            events.push(Event::PaymentVoided(PaymentVoided {}));
        }
        Ok(events)
    }

    fn evolve(payment: &mut Payment, event: &Event) {
        PaymentRules::evolve(payment, event);
    }

    fn react(payment: &Payment, event: &Event, id: &str) -> Vec<contracts::Message> {
        PaymentRules::react(payment, event, id)
    }

    fn outstanding(payment: &Payment, id: &str) -> Vec<Outstanding<Self>> {
        PaymentRules::outstanding(payment, id)
            .into_iter()
            .map(|outstanding| match outstanding {
                Outstanding::Effect {
                    key,
                    effect,
                    not_before_ms,
                } => Outstanding::Effect {
                    key,
                    effect,
                    not_before_ms,
                },
                Outstanding::Timer { due_ms, command } => Outstanding::Timer { due_ms, command },
            })
            .collect()
    }

    fn accepted(payment: &Payment) -> Outcome {
        PaymentRules::accepted(payment)
    }

    fn rejected(rejection: &Self::Rejection) -> Outcome {
        match *rejection {}
    }

    fn finished(payment: &Payment) -> bool {
        PaymentRules::finished(payment)
    }

    fn is_id(id: &str) -> bool {
        PaymentRules::is_id(id)
    }
}
