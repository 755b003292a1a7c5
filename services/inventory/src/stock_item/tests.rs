//! Tests of the form: given these events, when this command is decided, then these events follow and these messages are
//! sent.

use contracts::inventory::v1::{CommitStock, ReleaseStock};
use contracts::rules::uuid_v7_at;

use super::*;

mod properties;

const NOW: i64 = 1_700_000_000_000;
const RULES: StockRules = StockRules {
    horizon_ms: 900_000,
};
const SKU: &str = "85123A";

/// An id generated `offset_ms` after [`NOW`]; `salt` distinguishes ids of the same time.
fn id_at(offset_ms: i64, salt: u8) -> String {
    let millis = u64::try_from(NOW + offset_ms).expect("after 1970");
    uuid_v7_at(millis, &[salt; 10]).to_string()
}

struct Given {
    item: StockItem,
}

fn given(history: Vec<Event>) -> Given {
    let mut item = StockItem::default();
    for event in &history {
        StockRules::evolve(&mut item, event);
    }
    Given { item }
}

impl Given {
    fn when(mut self, command: Command) -> When {
        let context = Context {
            aggregate_id: SKU,
            version: 0,
            time_ms: NOW,
            evicted_through_ms: 0,
        };
        let result = RULES.decide(&self.item, &command, &context);
        let mut messages = Vec::new();
        for event in result.iter().flatten() {
            StockRules::evolve(&mut self.item, event);
            messages.extend(StockRules::react(&self.item, event, SKU));
        }
        When {
            result,
            item: self.item,
            messages,
        }
    }
}

struct When {
    result: Result<Vec<Event>, Rejection>,
    item: StockItem,
    messages: Vec<Message>,
}

impl When {
    #[track_caller]
    fn then(self, expected: Vec<Event>) -> Self {
        assert_eq!(self.result, Ok(expected));
        self
    }

    #[track_caller]
    fn rejected(self, code: StockRejectionCode) {
        let StockItem {
            on_hand, reserved, ..
        } = self.item;
        assert_eq!(
            self.result,
            Err(Rejection {
                code: code.into(),
                on_hand,
                reserved
            })
        );
    }

    #[track_caller]
    fn sends(self, expected: Option<order_command::Command>) -> Self {
        let to_order = |answer| Message::new(order(1), answer);
        assert_eq!(self.messages, Vec::from_iter(expected.map(to_order)));
        self
    }

    #[track_caller]
    fn has_stock(self, on_hand: u64, reserved: u64) -> Self {
        assert_eq!((self.item.on_hand, self.item.reserved), (on_hand, reserved));
        self
    }
}

fn order(number: u8) -> String {
    id_at(0, number)
}

// Commands.

fn adjust(adjustment_id: String, delta: i64) -> Command {
    Command::AdjustStock(AdjustStock {
        adjustment_id,
        delta,
    })
}

fn reserve(order_id: String, quantity: u32) -> Command {
    Command::ReserveStock(ReserveStock { order_id, quantity })
}

fn release(order_id: String) -> Command {
    Command::ReleaseStock(ReleaseStock { order_id })
}

fn commit(order_id: String) -> Command {
    Command::CommitStock(CommitStock { order_id })
}

// Events.

fn adjusted(adjustment_id: String, delta: i64) -> Event {
    Event::StockAdjusted(StockAdjusted {
        adjustment_id,
        delta,
    })
}

fn reserved(order_id: String, quantity: u32) -> Event {
    Event::StockReserved(StockReserved { order_id, quantity })
}

fn refused(order_id: String, quantity: u32, available: u64) -> Event {
    Event::StockRefused(StockRefused {
        order_id,
        quantity,
        available,
    })
}

fn released(order_id: String, quantity: u32) -> Event {
    Event::StockReleased(StockReleased { order_id, quantity })
}

fn deducted(order_id: String, quantity: u32) -> Event {
    Event::StockDeducted(StockDeducted { order_id, quantity })
}

// Histories.

fn ten_on_hand() -> Vec<Event> {
    vec![adjusted(id_at(0, 0), 10)]
}

/// Ten on hand, four of them reserved for order 1.
fn four_reserved() -> Vec<Event> {
    vec![adjusted(id_at(0, 0), 10), reserved(order(1), 4)]
}

// Answers.

fn sku() -> String {
    SKU.into()
}

fn answer_reserved() -> Option<order_command::Command> {
    Some(order_command::Command::RecordStockReserved(
        RecordStockReserved { sku: sku() },
    ))
}

fn answer_refused(available: u64) -> Option<order_command::Command> {
    let refused = RecordStockRefused {
        sku: sku(),
        available,
    };
    Some(order_command::Command::RecordStockRefused(refused))
}

fn answer_released() -> Option<order_command::Command> {
    Some(order_command::Command::RecordStockReleased(
        RecordStockReleased { sku: sku() },
    ))
}

#[test]
fn an_adjustment_changes_the_pieces_on_hand() {
    let id = id_at(0, 1);
    given(vec![])
        .when(adjust(id.clone(), 10))
        .then(vec![adjusted(id.clone(), 10)])
        .sends(None)
        .has_stock(10, 0);
    given(ten_on_hand())
        .when(adjust(id.clone(), -10))
        .then(vec![adjusted(id, -10)])
        .has_stock(0, 0);
}

#[test]
fn an_adjustment_is_applied_once() {
    given(ten_on_hand())
        .when(adjust(id_at(0, 0), 10))
        .then(vec![])
        .has_stock(10, 0);
    given(ten_on_hand())
        .when(adjust(id_at(0, 0), 11))
        .rejected(StockRejectionCode::IdReused);
}

#[test]
fn an_adjustment_needs_an_id_within_the_horizon() {
    let cases = [
        (id_at(-RULES.horizon_ms, 1), true),
        (id_at(-RULES.horizon_ms - 1, 1), false),
        (id_at(MAX_CLOCK_SKEW_MS, 1), true),
        (id_at(MAX_CLOCK_SKEW_MS + 1, 1), false),
        ("6ba7b810-9dad-11d1-80b4-00c04fd430c8".into(), false),
        ("adjustment".into(), false),
        // Another form of the same id would not be recognised.
        (id_at(0, 0).to_uppercase(), false),
        (id_at(0, 0).replace('-', ""), false),
    ];
    for (id, is_fresh) in cases {
        let when = given(ten_on_hand()).when(adjust(id.clone(), 1));
        if is_fresh {
            when.then(vec![adjusted(id, 1)]);
        } else {
            when.rejected(StockRejectionCode::Stale);
        }
    }
}

#[test]
fn an_adjustment_cannot_go_below_the_reserved_pieces() {
    let id = id_at(0, 1);
    given(four_reserved())
        .when(adjust(id.clone(), -6))
        .then(vec![adjusted(id.clone(), -6)])
        .has_stock(4, 4);
    for delta in [-7, -11, i64::MIN] {
        given(four_reserved())
            .when(adjust(id.clone(), delta))
            .rejected(StockRejectionCode::BelowReserved);
    }
    given(vec![])
        .when(adjust(id, -1))
        .rejected(StockRejectionCode::BelowReserved);
}

#[test]
fn an_adjustment_cannot_overflow() {
    let almost_full = || vec![adjusted(id_at(0, 0), i64::MAX - 1)];
    given(almost_full())
        .when(adjust(id_at(0, 1), 1))
        .then(vec![adjusted(id_at(0, 1), 1)]);
    given(almost_full())
        .when(adjust(id_at(0, 1), 2))
        .rejected(StockRejectionCode::Overflow);
}

#[test]
fn old_adjustments_are_removed_and_stay_stale() {
    let first = id_at(0, 1);
    let kept = id_at(RETENTION_MS, 2);
    let item = given(vec![adjusted(first.clone(), 10), adjusted(kept.clone(), 1)]).item;
    assert_eq!(
        item.adjustments.len(),
        2,
        "the first has exactly the age limit"
    );

    let newest = id_at(RETENTION_MS + 1, 3);
    let history = vec![
        adjusted(first.clone(), 10),
        adjusted(kept.clone(), 1),
        adjusted(newest, 1),
    ];
    let item = given(history.clone()).item;
    assert!(find_adjustment(&item, &first).is_err());
    assert!(find_adjustment(&item, &kept).is_ok());
    assert_eq!(item.on_hand, 12);

    // A horizon beyond the retention does not make it valid again.
    let long_horizon = StockRules {
        horizon_ms: 10 * RETENTION_MS,
    };
    let context = Context {
        aggregate_id: SKU,
        version: 3,
        time_ms: NOW + RETENTION_MS,
        evicted_through_ms: 0,
    };
    let rejection = long_horizon
        .decide(&item, &adjust(first, 10), &context)
        .expect_err("removed");
    assert_eq!(rejection.code(), StockRejectionCode::Stale);
}

#[test]
fn a_reservation_takes_only_what_is_available() {
    for (quantity, is_enough) in [(1, true), (10, true), (11, false)] {
        let when = given(ten_on_hand()).when(reserve(order(1), quantity));
        if is_enough {
            when.then(vec![reserved(order(1), quantity)])
                .sends(answer_reserved())
                .has_stock(10, quantity.into());
        } else {
            when.then(vec![refused(order(1), quantity, 10)])
                .sends(answer_refused(10))
                .has_stock(10, 0);
        }
    }
    let two_left = vec![adjusted(id_at(0, 0), 10), reserved(order(2), 8)];
    given(two_left.clone())
        .when(reserve(order(1), 2))
        .then(vec![reserved(order(1), 2)]);
    given(two_left)
        .when(reserve(order(1), 3))
        .then(vec![refused(order(1), 3, 2)]);
    given(vec![])
        .when(reserve(order(1), 1))
        .then(vec![refused(order(1), 1, 0)]);
}

#[test]
fn a_repeated_reservation_gives_no_event() {
    for quantity in [4, 5] {
        given(four_reserved())
            .when(reserve(order(1), quantity))
            .then(vec![])
            .sends(None)
            .has_stock(10, 4);
    }
}

#[test]
fn a_release_is_always_answered() {
    given(four_reserved())
        .when(release(order(1)))
        .then(vec![released(order(1), 4)])
        .sends(answer_released())
        .has_stock(10, 0);
    let released_already = [four_reserved(), vec![released(order(1), 4)]].concat();
    let refused_before = [ten_on_hand(), vec![refused(order(1), 11, 10)]].concat();
    for history in [vec![], released_already, refused_before] {
        given(history)
            .when(release(order(1)))
            .then(vec![released(order(1), 0)])
            .sends(answer_released());
    }
}

#[test]
fn a_commit_deducts_the_reserved_pieces() {
    let when = given(four_reserved())
        .when(commit(order(1)))
        .then(vec![deducted(order(1), 4)])
        .sends(None)
        .has_stock(6, 0);
    assert_eq!((when.item.received, when.item.deducted), (10, 4));
    given(ten_on_hand())
        .when(commit(order(1)))
        .then(vec![deducted(order(1), 0)])
        .sends(None)
        .has_stock(10, 0);
}

#[test]
fn every_order_has_its_own_reservation() {
    let mut history = ten_on_hand();
    // Not in the order of their ids.
    history.extend([3, 1, 2].map(|number| reserved(order(number), number.into())));
    let item = given(history.clone()).item;
    let ids: Vec<_> = item
        .reservations
        .iter()
        .map(|held| held.order_id.clone())
        .collect();
    assert_eq!(ids, [order(1), order(2), order(3)]);
    given(history)
        .when(release(order(2)))
        .then(vec![released(order(2), 2)])
        .has_stock(10, 4);
}

#[test]
fn an_event_that_does_not_fit_changes_nothing() {
    for (history, event) in [
        (ten_on_hand(), adjusted(id_at(0, 0), 10)),
        (four_reserved(), reserved(order(1), 5)),
        (ten_on_hand(), released(order(1), 4)),
        (ten_on_hand(), deducted(order(1), 4)),
        (ten_on_hand(), refused(order(1), 4, 2)),
    ] {
        let before = given(history).item;
        let mut after = before.clone();
        StockRules::evolve(&mut after, &event);
        assert_eq!(after, before, "{event:?}");
    }
}

#[test]
fn outcomes_carry_the_stock() {
    let item = given(four_reserved()).item;
    assert_eq!(
        StockRules::accepted(&item),
        stock_outcome::Outcome::Accepted(StockCommandAccepted {
            on_hand: 10,
            reserved: 4
        })
    );
    let code = StockRejectionCode::Stale.into();
    let rejection = Rejection {
        code,
        on_hand: 10,
        reserved: 4,
    };
    assert_eq!(
        StockRules::rejected(&rejection),
        stock_outcome::Outcome::Rejection(rejection)
    );
}

#[test]
fn a_stock_item_has_nothing_outstanding_and_never_finishes() {
    for history in [vec![], ten_on_hand(), four_reserved()] {
        let item = given(history).item;
        assert_eq!(StockRules::outstanding(&item, SKU), vec![]);
        assert!(!StockRules::finished(&item));
    }
}

#[test]
fn the_id_of_a_stock_item_is_a_sku() {
    assert!(StockRules::is_id(SKU));
    for id in ["", "a\nb", &"x".repeat(65)] {
        assert!(!StockRules::is_id(id), "{id:?}");
    }
}
