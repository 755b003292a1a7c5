//! The stock item: how many pieces of a product are on hand, and for which orders they are reserved.
//!
//! ```text
//! AdjustStock    on hand grows or shrinks      StockAdjusted
//! ReserveStock   enough is available           StockReserved   answered to the order
//!                too little is available       StockRefused    answered to the order
//! ReleaseStock   the reservation is removed    StockReleased   answered to the order
//! CommitStock    the reserved pieces leave     StockDeducted
//! ```
//!
//! Invariants: available = on hand − reserved ≥ 0; received = on hand + deducted.

use std::convert::Infallible;

use contracts::inventory::v1::{
    AdjustStock, Adjustment, Reservation, ReserveStock, StockAdjusted, StockCommandAccepted,
    StockDeducted, StockRefused, StockRejectionCode, StockReleased, StockReserved, stock_command,
    stock_event, stock_outcome,
};
use contracts::orders::v1::{
    RecordStockRefused, RecordStockReleased, RecordStockReserved, order_command,
};
use contracts::rules::{canonical_uuid, is_sku, uuid_v7_time_ms};
use contracts::{Inventory, Message};
use engine::{Context, Decider, Outstanding};

#[cfg(test)]
mod tests;

/// The rule book of stock items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StockRules {
    /// How old the id of an adjustment may be, milliseconds. Within this time, a repetition is recognised.
    pub horizon_ms: i64,
}

impl Default for StockRules {
    fn default() -> Self {
        Self {
            horizon_ms: 15 * 60_000,
        }
    }
}

/// How far the clock that generated an adjustment id may be ahead of the broker's clock, milliseconds.
const MAX_CLOCK_SKEW_MS: i64 = 5 * 60_000;

/// How long the state keeps an adjustment: milliseconds between the time in its id and the time in the newest id.
///
/// The fold has neither the time nor the horizon, so this is part of the rules: another value needs another
/// [`Decider::RULES_VERSION`]. An older id is rejected as stale, so that a removed adjustment cannot be applied again,
/// whatever the horizon. A horizon of up to 55 minutes never conflicts with it.
const RETENTION_MS: i64 = 60 * 60_000;

/// A command to a stock item: from a client or an order.
type Command = stock_command::Command;

/// An event of a stock item.
type Event = stock_event::Event;

/// The state of a stock item. Reservations and adjustments are sorted by id.
type StockItem = contracts::inventory::v1::StockItem;

/// Why a client's command is rejected.
type Rejection = contracts::inventory::v1::StockRejection;

fn reject<T>(code: StockRejectionCode, item: &StockItem) -> Result<T, Rejection> {
    Err(Rejection {
        code: code.into(),
        on_hand: item.on_hand,
        reserved: item.reserved,
    })
}

impl Decider for StockRules {
    type Contract = Inventory;
    type Rejection = Rejection;
    type Effect = Infallible;

    const RULES_VERSION: u32 = 1;

    fn decide(
        &self,
        item: &StockItem,
        command: &Command,
        context: &Context<'_>,
    ) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::AdjustStock(command) => self.adjust(item, command, context.time_ms),
            Command::ReserveStock(command) => Ok(reserve(item, command)),
            Command::ReleaseStock(command) => Ok(vec![Event::StockReleased(StockReleased {
                order_id: command.order_id.clone(),
                quantity: reserved_for(item, &command.order_id),
            })]),
            Command::CommitStock(command) => Ok(vec![Event::StockDeducted(StockDeducted {
                order_id: command.order_id.clone(),
                quantity: reserved_for(item, &command.order_id),
            })]),
        }
    }

    fn evolve(item: &mut StockItem, event: &Event) {
        match event {
            Event::StockAdjusted(event) => apply_adjustment(item, event),
            Event::StockReserved(event) => add_reservation(item, event),
            Event::StockRefused(_) => {}
            Event::StockReleased(event) => {
                remove_reservation(item, &event.order_id);
            }
            Event::StockDeducted(event) => {
                let quantity = remove_reservation(item, &event.order_id);
                item.on_hand = item.on_hand.saturating_sub(quantity);
                item.deducted = item.deducted.saturating_add(quantity);
            }
        }
    }

    fn react(_item: &StockItem, event: &Event, sku: &str) -> Vec<Message> {
        let sku = sku.to_owned();
        let (order_id, answer) = match event {
            Event::StockReserved(event) => (
                &event.order_id,
                order_command::Command::RecordStockReserved(RecordStockReserved { sku }),
            ),
            Event::StockRefused(event) => {
                let refused = RecordStockRefused {
                    sku,
                    available: event.available,
                };
                (
                    &event.order_id,
                    order_command::Command::RecordStockRefused(refused),
                )
            }
            Event::StockReleased(event) => (
                &event.order_id,
                order_command::Command::RecordStockReleased(RecordStockReleased { sku }),
            ),
            Event::StockAdjusted(_) | Event::StockDeducted(_) => return Vec::new(),
        };
        vec![Message::new(order_id, answer)]
    }

    fn outstanding(_item: &StockItem, _sku: &str) -> Vec<Outstanding<Self>> {
        Vec::new()
    }

    fn accepted(item: &StockItem) -> stock_outcome::Outcome {
        let (on_hand, reserved) = (item.on_hand, item.reserved);
        stock_outcome::Outcome::Accepted(StockCommandAccepted { on_hand, reserved })
    }

    fn rejected(rejection: &Rejection) -> stock_outcome::Outcome {
        stock_outcome::Outcome::Rejection(*rejection)
    }

    fn finished(_item: &StockItem) -> bool {
        false
    }

    fn is_id(id: &str) -> bool {
        is_sku(id)
    }
}

impl StockRules {
    fn adjust(
        &self,
        item: &StockItem,
        adjust: &AdjustStock,
        time_ms: i64,
    ) -> Result<Vec<Event>, Rejection> {
        if let Ok(index) = find_adjustment(item, &adjust.adjustment_id) {
            return if item.adjustments[index].delta == adjust.delta {
                Ok(Vec::new())
            } else {
                reject(StockRejectionCode::IdReused, item)
            };
        }
        if !self.can_be_new(item, &adjust.adjustment_id, time_ms) {
            return reject(StockRejectionCode::Stale, item);
        }
        // On hand never exceeds received, so this check covers both.
        if item.received.checked_add(adjust.delta).is_none() {
            return reject(StockRejectionCode::Overflow, item);
        }
        if item
            .on_hand
            .checked_add_signed(adjust.delta)
            .is_none_or(|left| left < item.reserved)
        {
            return reject(StockRejectionCode::BelowReserved, item);
        }
        let AdjustStock {
            adjustment_id,
            delta,
        } = adjust.clone();
        Ok(vec![Event::StockAdjusted(StockAdjusted {
            adjustment_id,
            delta,
        })])
    }

    /// Whether an unknown id cannot be that of a removed adjustment.
    fn can_be_new(&self, item: &StockItem, adjustment_id: &str, time_ms: i64) -> bool {
        let oldest = time_ms
            .saturating_sub(self.horizon_ms)
            .max(retained_from(item));
        let newest = time_ms.saturating_add(MAX_CLOCK_SKEW_MS);
        // Another form of the same id would not be recognised.
        canonical_uuid(adjustment_id).is_some()
            && uuid_v7_time_ms(adjustment_id).is_some_and(|time| (oldest..=newest).contains(&time))
    }
}

/// The state has every adjustment whose id is not older than this time (Unix milliseconds).
fn retained_from(item: &StockItem) -> i64 {
    item.adjustments
        .last()
        .and_then(|newest| uuid_v7_time_ms(&newest.adjustment_id))
        .map_or(i64::MIN, |newest| newest.saturating_sub(RETENTION_MS))
}

fn reserve(item: &StockItem, reserve: &ReserveStock) -> Vec<Event> {
    if find_reservation(item, &reserve.order_id).is_ok() {
        return Vec::new();
    }
    let order_id = reserve.order_id.clone();
    let quantity = reserve.quantity;
    let available = item.on_hand.saturating_sub(item.reserved);
    vec![if u64::from(quantity) <= available {
        Event::StockReserved(StockReserved { order_id, quantity })
    } else {
        Event::StockRefused(StockRefused {
            order_id,
            quantity,
            available,
        })
    }]
}

fn reserved_for(item: &StockItem, order_id: &str) -> u32 {
    find_reservation(item, order_id).map_or(0, |index| item.reservations[index].quantity)
}

/// The index of the reservation, or where to insert it. A binary search, because a popular product has many.
fn find_reservation(item: &StockItem, order_id: &str) -> Result<usize, usize> {
    item.reservations
        .binary_search_by(|reservation| reservation.order_id.as_str().cmp(order_id))
}

fn find_adjustment(item: &StockItem, adjustment_id: &str) -> Result<usize, usize> {
    item.adjustments
        .binary_search_by(|known| known.adjustment_id.as_str().cmp(adjustment_id))
}

fn apply_adjustment(item: &mut StockItem, event: &StockAdjusted) {
    let StockAdjusted {
        adjustment_id,
        delta,
    } = event.clone();
    let Err(index) = find_adjustment(item, &adjustment_id) else {
        return;
    };
    item.adjustments.insert(
        index,
        Adjustment {
            adjustment_id,
            delta,
        },
    );
    item.on_hand = item.on_hand.saturating_add_signed(delta);
    item.received = item.received.saturating_add(delta);
    remove_old_adjustments(item);
}

fn remove_old_adjustments(item: &mut StockItem) {
    let from = retained_from(item);
    let is_old =
        |known: &Adjustment| uuid_v7_time_ms(&known.adjustment_id).is_none_or(|time| time < from);
    let old = item.adjustments.partition_point(is_old);
    item.adjustments.drain(..old);
}

fn add_reservation(item: &mut StockItem, event: &StockReserved) {
    let StockReserved { order_id, quantity } = event.clone();
    let Err(index) = find_reservation(item, &order_id) else {
        return;
    };
    item.reservations
        .insert(index, Reservation { order_id, quantity });
    item.reserved = item.reserved.saturating_add(quantity.into());
}

/// Returns the number of reserved pieces.
fn remove_reservation(item: &mut StockItem, order_id: &str) -> u64 {
    let Ok(index) = find_reservation(item, order_id) else {
        return 0;
    };
    let quantity = item.reservations.remove(index).quantity.into();
    item.reserved = item.reserved.saturating_sub(quantity);
    quantity
}
