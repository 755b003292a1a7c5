//! Tests of the form: given these events, when this command is decided, then these events follow and these messages are
//! sent.

use contracts::Body as _;
use contracts::core::v1::Money;
use contracts::payments::v1::{ChargePayment, SettlePayment, payment_command};

use self::fixtures::*;
use super::*;

mod fixtures;
mod properties;
mod service_models;

#[test]
fn the_happy_path() {
    given(vec![])
        .when(Command::PlaceOrder(place_order()))
        .then(vec![order_created(place_order())])
        .sends(vec![reserve_stock("a", 2), reserve_stock("b", 3)])
        .has_status(OrderStatus::Pending);
    given(pending())
        .when(stock_reserved("b"))
        .then(vec![order_line_reserved("b")])
        .sends(vec![]);
    let charge = ChargePayment {
        amount: Some(Money {
            minor_units: 125,
            currency: "EUR".into(),
        }),
        customer_id: "ada".into(),
    };
    given([pending(), vec![order_line_reserved("b")]].concat())
        .when(stock_reserved("a"))
        .then(vec![order_line_reserved("a"), order_stock_reserved()])
        .sends(vec![to_payment(payment_command::Command::ChargePayment(
            charge,
        ))])
        .has_status(OrderStatus::AwaitingPayment);
    given(awaiting_payment())
        .when(payment_processed())
        .then(vec![order_confirmed("p-1")])
        .sends(vec![ship_order(5)])
        .has_status(OrderStatus::Confirmed);
    let settle = to_payment(payment_command::Command::SettlePayment(SettlePayment {}));
    given(confirmed())
        .when(shipment_dispatched())
        .then(vec![order_shipped()])
        .sends(vec![commit_stock("a"), commit_stock("b"), settle])
        .has_status(OrderStatus::Shipped);
    given(shipped())
        .when(shipment_delivered())
        .then(vec![order_delivered()])
        .sends(vec![])
        .has_status(OrderStatus::Delivered);
}

#[test]
fn a_free_order_skips_payment() {
    let created = vec![order_created(free_order())];
    given(created.clone())
        .when(stock_reserved("a"))
        .then(vec![
            order_line_reserved("a"),
            order_stock_reserved(),
            order_confirmed(""),
        ])
        .sends(vec![ship_order(2)])
        .has_status(OrderStatus::Confirmed);
    let confirmed = [
        created,
        vec![
            order_line_reserved("a"),
            order_stock_reserved(),
            order_confirmed(""),
        ],
    ]
    .concat();
    given(confirmed.clone())
        .when(shipment_dispatched())
        .then(vec![order_shipped()])
        .sends(vec![commit_stock("a")]);
    let compensating = [
        confirmed,
        vec![
            order_cancelling(EndReason::Customer),
            order_shipment_cancelled(),
        ],
    ]
    .concat();
    given(compensating)
        .when(stock_released("a"))
        .then(vec![order_line_released("a"), order_cancelled()])
        .has_status(OrderStatus::Cancelled);
}

#[test]
fn an_answer_of_payments_does_not_confirm_a_free_order() {
    given(vec![order_created(free_order())])
        .when(payment_processed())
        .then(vec![]);
}

#[test]
fn a_new_order_needs_an_id_within_the_horizon() {
    let cases = [
        (id_at(0), 0, true),
        (id_at(-RULES.horizon_ms), 0, true),
        (id_at(-RULES.horizon_ms - 1), 0, false),
        (id_at(MAX_CLOCK_SKEW_MS), 0, true),
        (id_at(MAX_CLOCK_SKEW_MS + 1), 0, false),
        (id_at(0), NOW - 1, true),
        (id_at(0), NOW, false),
        ("6ba7b810-9dad-11d1-80b4-00c04fd430c8".into(), 0, false),
    ];
    for (id, evicted_through_ms, is_fresh) in cases {
        let placed = given(vec![])
            .id(id.clone())
            .evicted_through(evicted_through_ms)
            .when(Command::PlaceOrder(place_order()));
        if is_fresh {
            assert!(
                placed.result.is_ok(),
                "{id}, evicted through {evicted_through_ms}"
            );
        } else {
            placed.rejected(OrderRejectionCode::Stale);
        }
    }
}

#[test]
fn a_known_order_is_never_stale() {
    given(pending())
        .id(id_at(-RULES.horizon_ms - 1))
        .evicted_through(NOW)
        .when(Command::PlaceOrder(place_order()))
        .then(vec![]);
}

#[test]
fn an_invalid_order_is_rejected() {
    let invalid = [
        order_with(vec![line("a", 1, 1, 0), line("a", 1, 1, 0)]),
        order_with(vec![line("a", 1, 1, 2)]),
        order_with(vec![line("a", 2, i64::MAX, 0)]),
        order_with(vec![line("a", 1, i64::MAX, 0), line("b", 1, 1, 0)]),
        order_with(vec![line("a\nb", 1, 1, 0)]),
        PlaceOrder {
            currency: "ZZZ".into(),
            ..place_order()
        },
    ];
    for place_order in invalid {
        given(vec![])
            .when(Command::PlaceOrder(place_order))
            .rejected(OrderRejectionCode::Invalid);
    }
}

#[test]
fn a_refused_line_releases_the_others() {
    let goal = EndReason::OutOfStock;
    // "b" is released whether or not it was answered.
    for history in [
        pending(),
        [pending(), vec![order_line_reserved("b")]].concat(),
    ] {
        given(history)
            .when(stock_refused("a"))
            .then(vec![order_line_refused("a"), order_cancelling(goal)])
            .sends(vec![release_stock("b")])
            .has_status(OrderStatus::Cancelling);
    }
    let cancelling = [
        pending(),
        vec![order_line_refused("a"), order_cancelling(goal)],
    ]
    .concat();
    for late_answer in [stock_reserved("b"), stock_refused("b"), stock_released("a")] {
        given(cancelling.clone()).when(late_answer).then(vec![]);
    }
    given(cancelling)
        .when(stock_released("b"))
        .then(vec![order_line_released("b"), order_rejected(goal)])
        .sends(vec![])
        .has_status(OrderStatus::Rejected);
}

#[test]
fn a_compensation_with_nothing_pending_ends_at_once() {
    let goal = EndReason::OutOfStock;
    given(vec![order_created(free_order())])
        .when(stock_refused("a"))
        .then(vec![
            order_line_refused("a"),
            order_cancelling(goal),
            order_rejected(goal),
        ])
        .sends(vec![])
        .has_status(OrderStatus::Rejected);
}

#[test]
fn a_declined_payment_releases_every_line() {
    let goal = EndReason::PaymentDeclined;
    given(awaiting_payment())
        .when(payment_declined())
        .then(vec![order_payment_declined(), order_cancelling(goal)])
        .sends(vec![release_stock("a"), release_stock("b")]);
    let cancelling = [
        awaiting_payment(),
        vec![order_payment_declined(), order_cancelling(goal)],
    ]
    .concat();
    given([cancelling, vec![order_line_released("b")]].concat())
        .when(stock_released("a"))
        .then(vec![order_line_released("a"), order_rejected(goal)]);
}

#[test]
fn a_refused_shipment_releases_every_line_and_cancels_the_payment() {
    let goal = EndReason::Undeliverable;
    given(confirmed())
        .when(shipment_refused())
        .then(vec![order_shipment_refused(), order_cancelling(goal)])
        .sends(vec![
            release_stock("a"),
            release_stock("b"),
            cancel_payment(),
        ]);
    let undone = [
        order_shipment_refused(),
        order_cancelling(goal),
        order_line_released("a"),
        order_line_released("b"),
    ];
    given([confirmed(), undone.to_vec()].concat())
        .when(payment_cancelled(125))
        .then(vec![order_payment_cancelled(125), order_rejected(goal)])
        .has_status(OrderStatus::Rejected);
}

#[test]
fn a_cancellation_begins_the_compensation() {
    let goal = EndReason::Customer;
    given(pending())
        .when(cancel_by("ada"))
        .then(vec![order_cancelling(goal)])
        .sends(vec![release_stock("a"), release_stock("b")]);
    // The charge is cancelled although its answer is pending.
    given(awaiting_payment())
        .when(cancel_by("ada"))
        .then(vec![order_cancelling(goal)])
        .sends(vec![
            release_stock("a"),
            release_stock("b"),
            cancel_payment(),
        ]);
    // A shipment was requested, so shipping decides.
    given(confirmed())
        .when(cancel_by("ada"))
        .then(vec![order_cancelling(goal)])
        .sends(vec![cancel_shipment()]);
}

#[test]
fn shipping_decides_whether_a_cancellation_is_possible() {
    let compensation = || vec![release_stock("a"), release_stock("b"), cancel_payment()];
    given(cancelling_shipment())
        .when(shipment_cancelled())
        .then(vec![order_shipment_cancelled()])
        .sends(compensation());
    given(cancelling_shipment())
        .when(shipment_refused())
        .then(vec![order_shipment_refused()])
        .sends(compensation());
    let shipped = given(cancelling_shipment())
        .when(shipment_dispatched())
        .then(vec![order_shipped()])
        .has_status(OrderStatus::Shipped);
    assert_eq!(
        shipped.messages.len(),
        3,
        "both lines are committed, the payment is settled"
    );
    assert_eq!(shipped.order.goal(), EndReason::Unspecified);
    // A refusal during the customer's cancellation ends in CANCELLED, not REJECTED.
    let refused = [
        order_shipment_refused(),
        order_line_released("a"),
        order_line_released("b"),
    ];
    given([cancelling_shipment(), refused.to_vec()].concat())
        .when(payment_cancelled(125))
        .then(vec![order_payment_cancelled(125), order_cancelled()]);
}

#[test]
fn only_the_last_answer_ends_a_compensation() {
    let answers = [
        (stock_released("a"), order_line_released("a")),
        (stock_released("b"), order_line_released("b")),
        (payment_cancelled(125), order_payment_cancelled(125)),
    ];
    for [first, second, third] in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let mut history = compensating();
        for index in [first, second] {
            let (answer, event) = answers[index].clone();
            given(history.clone())
                .when(answer)
                .then(vec![event.clone()]);
            history.push(event);
        }
        let (answer, event) = answers[third].clone();
        given(history)
            .when(answer)
            .then(vec![event, order_cancelled()]);
    }
}

#[test]
fn a_step_expires_at_its_deadline() {
    let cancelling = vec![order_cancelling(EndReason::Expired)];
    given(pending())
        .when(expire(OrderStatus::Pending, NOW + 1_000))
        .then(cancelling.clone())
        .sends(vec![release_stock("a"), release_stock("b")]);
    given(awaiting_payment())
        .when(expire(OrderStatus::AwaitingPayment, NOW + 2_000))
        .then(cancelling.clone())
        .sends(vec![
            release_stock("a"),
            release_stock("b"),
            cancel_payment(),
        ]);
    given(confirmed())
        .when(expire(OrderStatus::Confirmed, NOW + 3_000))
        .then(cancelling)
        .sends(vec![cancel_shipment()]);
    given(shipped())
        .when(expire(OrderStatus::Shipped, NOW + 4_000))
        .then(vec![Event::OrderFlaggedLate(OrderFlaggedLate {})])
        .sends(vec![])
        .has_status(OrderStatus::Shipped);
    given(flagged_late())
        .when(shipment_dispatched())
        .then(vec![]);
    given(flagged_late())
        .when(shipment_delivered())
        .then(vec![order_delivered()]);
}

#[test]
fn only_steps_with_a_deadline_have_a_timer() {
    let cases = [
        (vec![], None),
        (pending(), Some(NOW + 1_000)),
        (awaiting_payment(), Some(NOW + 2_000)),
        (confirmed(), Some(NOW + 3_000)),
        (shipped(), Some(NOW + 4_000)),
        (flagged_late(), None),
        (delivered(), None),
        (cancelling_shipment(), None),
        (compensating(), None),
        (cancelled(), None),
        (rejected(), None),
    ];
    for (history, due) in cases {
        let order = given(history).order;
        let timers = due.map(|due_ms| Outstanding::Timer {
            due_ms,
            command: expire(order.status(), due_ms),
        });
        assert_eq!(
            OrderRules::outstanding(&order, &id_at(0)),
            Vec::from_iter(timers)
        );
    }
}

/// Every command in every status: the names of the events, or a rejection after "!"; empty for late and repeated
/// commands.
#[test]
fn every_command_in_every_status() {
    let statuses = [
        ("unknown", vec![]),
        ("pending", pending()),
        ("awaiting payment", awaiting_payment()),
        ("confirmed", confirmed()),
        ("shipped", shipped()),
        ("delivered", delivered()),
        ("cancelling the shipment", cancelling_shipment()),
        ("compensating", compensating()),
        ("cancelled", cancelled()),
        ("rejected", rejected()),
    ];
    let other_body = order_with(vec![line("a", 2, 50, 0)]);
    const CANCELLING: &str = "order_cancelling";
    const REUSED: &str = "!IdReused";
    const FOREIGN: &str = "!ForeignOrder";
    const LATE: &str = "!TooLate";
    const UNKNOWN: &str = "!UnknownOrder";
    #[rustfmt::skip]
    let table: [(Command, [&str; 10]); 17] = [
        (Command::PlaceOrder(place_order()), ["order_created", "", "", "", "", "", "", "", "", ""]),
        (Command::PlaceOrder(other_body), ["order_created", REUSED, REUSED, REUSED, REUSED, REUSED, REUSED, REUSED, REUSED, REUSED]),
        (cancel_by("ada"), [UNKNOWN, CANCELLING, CANCELLING, CANCELLING, LATE, LATE, "", "", "", LATE]),
        (cancel_by("eve"), [UNKNOWN, FOREIGN, FOREIGN, FOREIGN, FOREIGN, FOREIGN, FOREIGN, FOREIGN, FOREIGN, FOREIGN]),
        (stock_reserved("a"), ["", "order_line_reserved", "", "", "", "", "", "", "", ""]),
        (stock_reserved("z"), ["", "", "", "", "", "", "", "", "", ""]),
        (stock_refused("a"), ["", "order_line_refused order_cancelling", "", "", "", "", "", "", "", ""]),
        (stock_refused("z"), ["", "", "", "", "", "", "", "", "", ""]),
        (stock_released("a"), ["", "", "", "", "", "", "", "order_line_released", "", ""]),
        (payment_processed(), ["", "", "order_confirmed", "", "", "", "", "", "", ""]),
        (payment_declined(), ["", "", "order_payment_declined order_cancelling", "", "", "", "", "", "", ""]),
        (payment_cancelled(0), ["", "", "", "", "", "", "", "order_payment_cancelled", "", ""]),
        (shipment_dispatched(), ["", "", "", "order_shipped", "", "", "order_shipped", "", "", ""]),
        (shipment_delivered(), ["", "", "", "", "order_delivered", "", "", "", "", ""]),
        (shipment_refused(), ["", "", "", "order_shipment_refused order_cancelling", "", "", "order_shipment_refused", "", "", ""]),
        (shipment_cancelled(), ["", "", "", "", "", "", "order_shipment_cancelled", "", "", ""]),
        // The timer of PENDING is stale in every other status.
        (expire(OrderStatus::Pending, NOW + 1_000), ["", CANCELLING, "", "", "", "", "", "", "", ""]),
    ];
    for (command, row) in table {
        for ((status, history), expected) in statuses.iter().zip(row) {
            let found = match given(history.clone()).when(command.clone()).result {
                Ok(events) => Vec::from_iter(events.iter().map(|event| event.kind())).join(" "),
                Err(rejection) => format!("!{:?}", rejection.code()),
            };
            assert_eq!(found, expected, "{command:?} when {status}");
        }
    }
}

#[test]
fn a_timer_of_another_step_or_deadline_is_stale() {
    let steps = [
        (pending(), OrderStatus::Pending),
        (awaiting_payment(), OrderStatus::AwaitingPayment),
        (confirmed(), OrderStatus::Confirmed),
        (shipped(), OrderStatus::Shipped),
    ];
    for (history, step) in steps {
        let deadline_ms = given(history.clone()).order.deadline_ms;
        for other in [
            OrderStatus::Pending,
            OrderStatus::AwaitingPayment,
            OrderStatus::Confirmed,
        ] {
            if other != step {
                given(history.clone())
                    .when(expire(other, deadline_ms))
                    .then(vec![]);
            }
        }
        for other in [0, deadline_ms - 1, deadline_ms + 1] {
            given(history.clone())
                .when(expire(step, other))
                .then(vec![]);
        }
    }
    given(compensating())
        .when(expire(OrderStatus::Cancelling, 0))
        .then(vec![]);
}

#[test]
fn a_repeated_answer_gives_no_event() {
    for (history, answer) in [
        (pending(), stock_reserved("a")),
        (pending(), stock_refused("a")),
        (awaiting_payment(), payment_processed()),
        (awaiting_payment(), payment_declined()),
        (confirmed(), shipment_dispatched()),
        (confirmed(), shipment_refused()),
        (cancelling_shipment(), shipment_dispatched()),
        (cancelling_shipment(), shipment_cancelled()),
        (cancelling_shipment(), shipment_refused()),
        (compensating(), stock_released("a")),
        (compensating(), payment_cancelled(125)),
        (shipped(), expire(OrderStatus::Shipped, NOW + 4_000)),
    ] {
        let events = given(history.clone())
            .when(answer.clone())
            .result
            .expect("accepted");
        assert!(!events.is_empty(), "{answer:?}");
        given([history, events].concat()).when(answer).then(vec![]);
    }
}

#[test]
fn outcomes_carry_status_and_reason() {
    let order = given(cancelling_shipment()).order;
    let status = OrderStatus::Cancelling.into();
    assert_eq!(
        OrderRules::accepted(&order),
        order_outcome::Outcome::Accepted(OrderCommandAccepted { status })
    );
    let rejection = Rejection {
        code: OrderRejectionCode::TooLate.into(),
        status,
    };
    assert_eq!(
        OrderRules::rejected(&rejection),
        order_outcome::Outcome::Rejection(rejection)
    );
}

#[test]
fn only_final_statuses_are_finished() {
    for history in [delivered(), cancelled(), rejected()] {
        assert!(OrderRules::finished(&given(history).order));
    }
    let unfinished = [
        vec![],
        pending(),
        awaiting_payment(),
        confirmed(),
        flagged_late(),
        cancelling_shipment(),
        compensating(),
    ];
    for history in unfinished {
        assert!(!OrderRules::finished(&given(history).order));
    }
}

#[test]
fn an_order_id_is_a_uuid_v7_in_canonical_form() {
    assert!(OrderRules::is_id(&id_at(0)));
    let simple = id_at(0).replace('-', "");
    for id in [
        "",
        "orders",
        "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        &simple,
        &id_at(0).to_uppercase(),
    ] {
        assert!(!OrderRules::is_id(id), "{id}");
    }
}

#[test]
fn an_event_that_does_not_fit_changes_nothing() {
    for (history, event) in [
        (vec![], order_line_reserved("a")),
        (pending(), order_line_reserved("z")),
        (pending(), order_created(free_order())),
        (pending(), order_confirmed("p-1")),
        (awaiting_payment(), order_shipped()),
        (shipped(), order_cancelling(EndReason::Customer)),
        (compensating(), order_shipped()),
        (delivered(), order_cancelled()),
        (cancelled(), order_delivered()),
        (rejected(), order_created(place_order())),
    ] {
        let before = given(history).order;
        let mut after = before.clone();
        OrderRules::evolve(&mut after, &event);
        assert_eq!(after, before, "{event:?}");
    }
}
