//! Given a history, when a command comes, then these events happen and these messages go out.

use contracts::Body as _;
use contracts::core::v1::Money;
use contracts::payments::v1::{ChargePayment, SettlePayment, payment_command};

use self::given::*;
use super::*;

mod given;
mod neighbours;
mod network;

#[test]
fn the_happy_path() {
    given(vec![])
        .when(Command::PlaceOrder(place()))
        .then(vec![created_by(place())])
        .sends(vec![reserve("a", 2), reserve("b", 3)])
        .is(OrderStatus::Pending);
    given(pending())
        .when(stock_reserved("b"))
        .then(vec![line_reserved("b")])
        .sends(vec![]);
    let charge = ChargePayment {
        amount: Some(Money {
            minor_units: 125,
            currency: "EUR".into(),
        }),
        customer_id: "ada".into(),
    };
    given([pending(), vec![line_reserved("b")]].concat())
        .when(stock_reserved("a"))
        .then(vec![line_reserved("a"), all_reserved()])
        .sends(vec![to_payment(payment_command::Command::ChargePayment(
            charge,
        ))])
        .is(OrderStatus::AwaitingPayment);
    given(awaiting_payment())
        .when(payment_processed())
        .then(vec![confirmed_with("p-1")])
        .sends(vec![ship(5)])
        .is(OrderStatus::Confirmed);
    let settle = to_payment(payment_command::Command::SettlePayment(SettlePayment {}));
    given(confirmed())
        .when(dispatched())
        .then(vec![order_shipped()])
        .sends(vec![commit("a"), commit("b"), settle])
        .is(OrderStatus::Shipped);
    given(shipped())
        .when(arrived())
        .then(vec![order_delivered()])
        .sends(vec![])
        .is(OrderStatus::Delivered);
}

#[test]
fn an_order_with_nothing_to_pay_skips_payment() {
    let created = vec![created_by(free())];
    given(created.clone())
        .when(stock_reserved("a"))
        .then(vec![line_reserved("a"), all_reserved(), confirmed_with("")])
        .sends(vec![ship(2)])
        .is(OrderStatus::Confirmed);
    let confirmed = [
        created,
        vec![line_reserved("a"), all_reserved(), confirmed_with("")],
    ]
    .concat();
    given(confirmed.clone())
        .when(dispatched())
        .then(vec![order_shipped()])
        .sends(vec![commit("a")]);
    let undoing = [
        confirmed,
        vec![
            cancelling_for(EndReason::Customer),
            order_shipment_cancelled(),
        ],
    ]
    .concat();
    given(undoing)
        .when(stock_released("a"))
        .then(vec![line_released("a"), order_cancelled()])
        .is(OrderStatus::Cancelled);
}

#[test]
fn an_answer_of_payments_does_not_confirm_what_needs_no_payment() {
    given(vec![created_by(free())])
        .when(payment_processed())
        .then(vec![]);
}

#[test]
fn a_new_order_has_a_fresh_id() {
    let cases = [
        (id_at(0), 0, true),
        (id_at(-RULES.horizon_ms), 0, true),
        (id_at(-RULES.horizon_ms - 1), 0, false),
        (id_at(ID_AHEAD_MS), 0, true),
        (id_at(ID_AHEAD_MS + 1), 0, false),
        (id_at(0), NOW - 1, true),
        (id_at(0), NOW, false),
        ("6ba7b810-9dad-11d1-80b4-00c04fd430c8".into(), 0, false),
    ];
    for (id, evicted_through_ms, is_fresh) in cases {
        let placed = given(vec![])
            .id(id.clone())
            .evicted_through(evicted_through_ms)
            .when(Command::PlaceOrder(place()));
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
        .when(Command::PlaceOrder(place()))
        .then(vec![]);
}

#[test]
fn an_order_that_breaks_rules_is_refused() {
    let broken = [
        place_lines(vec![line("a", 1, 1, 0), line("a", 1, 1, 0)]),
        place_lines(vec![line("a", 1, 1, 2)]),
        place_lines(vec![line("a", 2, i64::MAX, 0)]),
        place_lines(vec![line("a", 1, i64::MAX, 0), line("b", 1, 1, 0)]),
        place_lines(vec![line("a\nb", 1, 1, 0)]),
        PlaceOrder {
            currency: "ZZZ".into(),
            ..place()
        },
    ];
    for place in broken {
        given(vec![])
            .when(Command::PlaceOrder(place))
            .rejected(OrderRejectionCode::Invalid);
    }
}

#[test]
fn a_refused_line_releases_the_others() {
    let goal = EndReason::OutOfStock;
    // Answered or not: "b" is released in both cases.
    for history in [pending(), [pending(), vec![line_reserved("b")]].concat()] {
        given(history)
            .when(stock_refused("a"))
            .then(vec![line_refused("a"), cancelling_for(goal)])
            .sends(vec![release("b")])
            .is(OrderStatus::Cancelling);
    }
    let cancelling = [pending(), vec![line_refused("a"), cancelling_for(goal)]].concat();
    for late in [stock_reserved("b"), stock_refused("b"), stock_released("a")] {
        given(cancelling.clone()).when(late).then(vec![]);
    }
    given(cancelling)
        .when(stock_released("b"))
        .then(vec![line_released("b"), rejected_for(goal)])
        .sends(vec![])
        .is(OrderStatus::Rejected);
}

#[test]
fn a_compensation_with_nothing_to_wait_for_ends_at_once() {
    let goal = EndReason::OutOfStock;
    given(vec![created_by(free())])
        .when(stock_refused("a"))
        .then(vec![
            line_refused("a"),
            cancelling_for(goal),
            rejected_for(goal),
        ])
        .sends(vec![])
        .is(OrderStatus::Rejected);
}

#[test]
fn a_declined_payment_releases_every_line() {
    let goal = EndReason::PaymentDeclined;
    given(awaiting_payment())
        .when(payment_declined())
        .then(vec![order_declined(), cancelling_for(goal)])
        .sends(vec![release("a"), release("b")]);
    let cancelling = [
        awaiting_payment(),
        vec![order_declined(), cancelling_for(goal)],
    ]
    .concat();
    given([cancelling, vec![line_released("b")]].concat())
        .when(stock_released("a"))
        .then(vec![line_released("a"), rejected_for(goal)]);
}

#[test]
fn a_refused_shipment_gives_everything_back() {
    let goal = EndReason::Undeliverable;
    given(confirmed())
        .when(shipment_refused())
        .then(vec![carrier_refused(), cancelling_for(goal)])
        .sends(vec![release("a"), release("b"), cancel_payment()]);
    let undone = [
        carrier_refused(),
        cancelling_for(goal),
        line_released("a"),
        line_released("b"),
    ];
    given([confirmed(), undone.to_vec()].concat())
        .when(payment_cancelled(125))
        .then(vec![payment_given_back(125), rejected_for(goal)])
        .is(OrderStatus::Rejected);
}

#[test]
fn the_customer_cancels() {
    let goal = EndReason::Customer;
    given(pending())
        .when(cancel_by("ada"))
        .then(vec![cancelling_for(goal)])
        .sends(vec![release("a"), release("b")]);
    // The charge has not answered yet and is cancelled all the same.
    given(awaiting_payment())
        .when(cancel_by("ada"))
        .then(vec![cancelling_for(goal)])
        .sends(vec![release("a"), release("b"), cancel_payment()]);
    // Shipping has been asked and decides.
    given(confirmed())
        .when(cancel_by("ada"))
        .then(vec![cancelling_for(goal)])
        .sends(vec![cancel_shipment()]);
}

#[test]
fn shipping_decides_about_a_cancellation() {
    let everything = || vec![release("a"), release("b"), cancel_payment()];
    given(awaiting_verdict())
        .when(shipment_cancelled())
        .then(vec![order_shipment_cancelled()])
        .sends(everything());
    given(awaiting_verdict())
        .when(shipment_refused())
        .then(vec![carrier_refused()])
        .sends(everything());
    let shipped = given(awaiting_verdict())
        .when(dispatched())
        .then(vec![order_shipped()])
        .is(OrderStatus::Shipped);
    assert_eq!(
        shipped.messages.len(),
        3,
        "both lines are committed, the payment is settled"
    );
    assert_eq!(shipped.order.goal(), EndReason::Unspecified);
    // A refusal while the customer's wish stands ends as the customer wished.
    let refused = [carrier_refused(), line_released("a"), line_released("b")];
    given([awaiting_verdict(), refused.to_vec()].concat())
        .when(payment_cancelled(125))
        .then(vec![payment_given_back(125), order_cancelled()]);
}

#[test]
fn only_the_last_answer_ends_a_compensation() {
    let answers = [
        (stock_released("a"), line_released("a")),
        (stock_released("b"), line_released("b")),
        (payment_cancelled(125), payment_given_back(125)),
    ];
    for [first, second, third] in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let mut history = undoing();
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
fn a_waiting_step_expires() {
    let cancelling = vec![cancelling_for(EndReason::Expired)];
    given(pending())
        .when(expire(OrderStatus::Pending, NOW + 1_000))
        .then(cancelling.clone())
        .sends(vec![release("a"), release("b")]);
    given(awaiting_payment())
        .when(expire(OrderStatus::AwaitingPayment, NOW + 2_000))
        .then(cancelling.clone())
        .sends(vec![release("a"), release("b"), cancel_payment()]);
    given(confirmed())
        .when(expire(OrderStatus::Confirmed, NOW + 3_000))
        .then(cancelling)
        .sends(vec![cancel_shipment()]);
    given(shipped())
        .when(expire(OrderStatus::Shipped, NOW + 4_000))
        .then(vec![Event::OrderFlaggedLate(OrderFlaggedLate {})])
        .sends(vec![])
        .is(OrderStatus::Shipped);
    given(late()).when(dispatched()).then(vec![]);
    given(late()).when(arrived()).then(vec![order_delivered()]);
}

#[test]
fn exactly_the_waiting_steps_have_a_timer() {
    let cases = [
        (vec![], None),
        (pending(), Some(NOW + 1_000)),
        (awaiting_payment(), Some(NOW + 2_000)),
        (confirmed(), Some(NOW + 3_000)),
        (shipped(), Some(NOW + 4_000)),
        (late(), None),
        (delivered(), None),
        (awaiting_verdict(), None),
        (undoing(), None),
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

/// Every command in every status: the events by name, a rejection after "!", nothing for late and repeated ones.
#[test]
fn every_command_in_every_status() {
    let statuses = [
        ("unknown", vec![]),
        ("pending", pending()),
        ("awaiting payment", awaiting_payment()),
        ("confirmed", confirmed()),
        ("shipped", shipped()),
        ("delivered", delivered()),
        ("awaiting verdict", awaiting_verdict()),
        ("undoing", undoing()),
        ("cancelled", cancelled()),
        ("rejected", rejected()),
    ];
    let other_body = place_lines(vec![line("a", 2, 50, 0)]);
    const CANCELLING: &str = "order_cancelling";
    const REUSED: &str = "!IdReused";
    const FOREIGN: &str = "!ForeignOrder";
    const LATE: &str = "!TooLate";
    const UNKNOWN: &str = "!UnknownOrder";
    #[rustfmt::skip]
    let table: [(Command, [&str; 10]); 17] = [
        (Command::PlaceOrder(place()), ["order_created", "", "", "", "", "", "", "", "", ""]),
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
        (dispatched(), ["", "", "", "order_shipped", "", "", "order_shipped", "", "", ""]),
        (arrived(), ["", "", "", "", "order_delivered", "", "", "", "", ""]),
        (shipment_refused(), ["", "", "", "order_shipment_refused order_cancelling", "", "", "order_shipment_refused", "", "", ""]),
        (shipment_cancelled(), ["", "", "", "", "", "", "order_shipment_cancelled", "", "", ""]),
        // The timer of PENDING; it is stale everywhere else.
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
    given(undoing())
        .when(expire(OrderStatus::Cancelling, 0))
        .then(vec![]);
}

#[test]
fn every_answer_is_recorded_once() {
    for (history, answer) in [
        (pending(), stock_reserved("a")),
        (pending(), stock_refused("a")),
        (awaiting_payment(), payment_processed()),
        (awaiting_payment(), payment_declined()),
        (confirmed(), dispatched()),
        (confirmed(), shipment_refused()),
        (awaiting_verdict(), dispatched()),
        (awaiting_verdict(), shipment_cancelled()),
        (awaiting_verdict(), shipment_refused()),
        (undoing(), stock_released("a")),
        (undoing(), payment_cancelled(125)),
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
fn outcomes_tell_status_and_reason() {
    let order = given(awaiting_verdict()).order;
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
fn only_the_last_statuses_are_finished() {
    for history in [delivered(), cancelled(), rejected()] {
        assert!(OrderRules::finished(&given(history).order));
    }
    let unfinished = [
        vec![],
        pending(),
        awaiting_payment(),
        confirmed(),
        late(),
        awaiting_verdict(),
        undoing(),
    ];
    for history in unfinished {
        assert!(!OrderRules::finished(&given(history).order));
    }
}

#[test]
fn an_order_id_is_a_uuid_v7_in_its_canonical_spelling() {
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
        (vec![], line_reserved("a")),
        (pending(), line_reserved("z")),
        (pending(), created_by(free())),
        (pending(), confirmed_with("p-1")),
        (awaiting_payment(), order_shipped()),
        (shipped(), cancelling_for(EndReason::Customer)),
        (undoing(), order_shipped()),
        (delivered(), order_cancelled()),
        (cancelled(), order_delivered()),
        (rejected(), created_by(place())),
    ] {
        let before = given(history).order;
        let mut after = before.clone();
        OrderRules::evolve(&mut after, &event);
        assert_eq!(after, before, "{event:?}");
    }
}
