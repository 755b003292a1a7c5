//! Property tests: for any sequence of commands, pieces are never lost, invented or reserved twice.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn pieces_balance(requests in prop::collection::vec(any_request(), 0..60), horizon_ms in any_horizon()) {
        let rules = StockRules { horizon_ms };
        let mut model = Model::default();
        let mut item = StockItem::default();
        let mut time_ms = NOW;
        for request in requests {
            time_ms += request.pause_ms;
            let command = request.command(time_ms);
            let context = Context { aggregate_id: SKU, version: 0, time_ms, evicted_through_ms: 0 };
            let decided = rules.decide(&item, &command, &context);
            prop_assert_eq!(&decided, &rules.decide(&item, &command, &context));
            for event in decided.unwrap_or_default() {
                StockRules::evolve(&mut item, &event);
                model.apply(&event);
                model.check(&item);
            }
        }
    }

    #[test]
    fn reservations_and_releases_are_answered(
        requests in prop::collection::vec(any_request(), 0..60),
    ) {
        let mut item = StockItem::default();
        for request in requests {
            let command = request.command(NOW);
            let was_reserved = |order_id: &String| item.reservations.iter().any(|held| held.order_id == *order_id);
            let expected = match &command {
                Command::ReserveStock(reserve) => usize::from(!was_reserved(&reserve.order_id)),
                Command::ReleaseStock(_) => 1,
                Command::CommitStock(_) | Command::AdjustStock(_) => 0,
            };
            let when = Given { item }.when(command);
            prop_assert_eq!(when.messages.len(), expected);
            item = when.item;
        }
    }
}

#[derive(Clone, Debug)]
struct Request {
    pause_ms: i64,
    action: Action,
}

#[derive(Clone, Debug)]
enum Action {
    /// An adjustment whose id differs from the current time by `id_offset_ms`, rounded so that ids repeat.
    Adjust {
        id_offset_ms: i64,
        salt: u8,
        delta: i64,
    },
    Reserve {
        order: u8,
        quantity: u32,
    },
    Release {
        order: u8,
    },
    Commit {
        order: u8,
    },
}

impl Request {
    fn command(&self, time_ms: i64) -> Command {
        const GRAIN_MS: i64 = 10 * 60_000;
        match self.action {
            Action::Adjust {
                id_offset_ms,
                salt,
                delta,
            } => {
                let id_time = (time_ms + id_offset_ms) / GRAIN_MS * GRAIN_MS;
                adjust(id_at(id_time - NOW, salt), delta)
            }
            Action::Reserve {
                order: number,
                quantity,
            } => reserve(order(number), quantity),
            Action::Release { order: number } => release(order(number)),
            Action::Commit { order: number } => commit(order(number)),
        }
    }
}

fn any_request() -> impl Strategy<Value = Request> {
    let action = prop_oneof![
        3 => (-2 * RETENTION_MS..=MAX_CLOCK_SKEW_MS, 0..2_u8, -5..10_i64)
            .prop_map(|(id_offset_ms, salt, delta)| Action::Adjust { id_offset_ms, salt, delta }),
        3 => (0..5_u8, 1..6_u32).prop_map(|(order, quantity)| Action::Reserve { order, quantity }),
        2 => (0..5_u8).prop_map(|order| Action::Release { order }),
        1 => (0..5_u8).prop_map(|order| Action::Commit { order }),
    ];
    let pause_ms = prop_oneof![Just(0), 1..RETENTION_MS / 2];
    (pause_ms, action).prop_map(|(pause_ms, action)| Request { pause_ms, action })
}

/// Includes horizons longer than the retention of adjustments.
fn any_horizon() -> impl Strategy<Value = i64> {
    prop_oneof![
        Just(RULES.horizon_ms),
        Just(RETENTION_MS),
        Just(4 * RETENTION_MS)
    ]
}

/// A simple model that is folded from the events alone.
#[derive(Default)]
struct Model {
    /// All adjustments.
    adjustments: BTreeMap<String, i64>,
    reserved: BTreeMap<String, u64>,
    deducted: u64,
}

impl Model {
    fn apply(&mut self, event: &Event) {
        match event.clone() {
            Event::StockAdjusted(adjusted) => {
                let id = adjusted.adjustment_id;
                let earlier = self.adjustments.insert(id.clone(), adjusted.delta);
                assert_eq!(earlier, None, "the adjustment {id} was made twice");
            }
            Event::StockReserved(reserved) => {
                let earlier = self
                    .reserved
                    .insert(reserved.order_id, reserved.quantity.into());
                assert_eq!(earlier, None, "reserved twice for one order");
            }
            Event::StockRefused(refused) => {
                assert!(
                    u64::from(refused.quantity) > refused.available,
                    "refused although available"
                );
            }
            Event::StockReleased(released) => {
                let held = self.reserved.remove(&released.order_id).unwrap_or(0);
                assert_eq!(held, u64::from(released.quantity));
            }
            Event::StockDeducted(deducted) => {
                let held = self.reserved.remove(&deducted.order_id).unwrap_or(0);
                assert_eq!(held, u64::from(deducted.quantity));
                self.deducted += held;
            }
        }
    }

    fn check(&self, item: &StockItem) {
        let received: i64 = self.adjustments.values().sum();
        let reserved: u64 = self.reserved.values().sum();
        assert_eq!(
            (item.received, item.reserved, item.deducted),
            (received, reserved, self.deducted)
        );
        assert!(
            item.reserved <= item.on_hand,
            "more is reserved than on hand"
        );
        let accounted = i64::try_from(item.on_hand + item.deducted).expect("small");
        assert_eq!(accounted, received, "received = on hand + deducted");

        let held = item
            .reservations
            .iter()
            .map(|held| (held.order_id.clone(), held.quantity.into()));
        assert_eq!(
            held.collect::<Vec<_>>(),
            Vec::from_iter(self.reserved.clone())
        );
        assert!(
            item.adjustments
                .is_sorted_by(|one, next| one.adjustment_id < next.adjustment_id)
        );
    }
}
