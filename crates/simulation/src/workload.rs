//! Callers of the API: they place, repeat, cancel and adjust, and hear of outcomes by reading the log.

use std::cell::RefCell;

use contracts::core::v1::Metadata;
use contracts::inventory::v1::{AdjustStock, stock_command};
use contracts::orders::v1::{Address, CancelOrder, Contact, OrderLine, PlaceOrder, order_command};
use contracts::{Message, Topic};
use engine::log::partitioner::partition_of;

use crate::effect_runtime::uuid_v7;
use crate::world::World;

/// Who asks, in every command of theirs.
pub const REPLY_TO: &str = "customers";

/// What customers have asked for, and been told is written.
#[derive(Default)]
pub struct Workload {
    placed: RefCell<Vec<(String, PlaceOrder)>>,
    adjusted: RefCell<Vec<(String, AdjustStock)>>,
}

impl Workload {
    /// Orders so far.
    pub fn orders(&self) -> usize {
        self.placed.borrow().len()
    }

    /// Ids of the orders that were acknowledged.
    pub fn acknowledged(&self) -> Vec<String> {
        let placed = self.placed.borrow();
        placed.iter().map(|(id, _)| id.clone()).collect()
    }

    /// The first pieces come.
    pub fn stock_up(&self, world: &World) {
        for sku in 0..world.plan.skus {
            self.adjust(world, sku, world.plan.pieces);
        }
    }

    /// Somebody asks for something.
    pub fn ask(&self, world: &World) {
        let dice = &world.dice;
        match dice.below(10) {
            0..=4 if self.orders() < world.plan.orders => self.place(world),
            5 => {
                if let Some((id, place)) = dice.pick(&self.placed.borrow()) {
                    let mut place = place.clone();
                    if dice.below(4) == 0 {
                        place.lines[0].quantity += 1;
                    }
                    let command = order_command::Command::PlaceOrder(place);
                    send(world, Message::new(id.as_str(), command));
                }
            }
            6 | 7 => {
                if let Some((id, place)) = dice.pick(&self.placed.borrow())
                    && dice.below(3) == 0
                {
                    let customer_id = place.customer_id.clone();
                    let cancel = CancelOrder { customer_id };
                    let command = order_command::Command::CancelOrder(cancel);
                    send(world, Message::new(id.as_str(), command));
                }
            }
            8 => self.adjust(world, dice.below(world.plan.skus), dice.between(-3, 5)),
            _ => {
                if let Some((sku, adjust)) = dice.pick(&self.adjusted.borrow()) {
                    let command = stock_command::Command::AdjustStock(adjust.clone());
                    send(world, Message::new(sku.as_str(), command));
                }
            }
        }
    }

    /// Everything that was ever asked for is asked for again.
    pub fn repeat_all(&self, world: &World) {
        for (id, place) in self.placed.borrow().iter() {
            let customer_id = place.customer_id.clone();
            let place = order_command::Command::PlaceOrder(place.clone());
            send(world, Message::new(id.as_str(), place));
            let cancel = order_command::Command::CancelOrder(CancelOrder { customer_id });
            send(world, Message::new(id.as_str(), cancel));
        }
        for (sku, adjust) in self.adjusted.borrow().iter() {
            let command = stock_command::Command::AdjustStock(adjust.clone());
            send(world, Message::new(sku.as_str(), command));
        }
    }

    fn place(&self, world: &World) {
        let dice = &world.dice;
        let mut lines = Vec::new();
        for sku in 0..world.plan.skus {
            if sku == 0 || dice.toss() {
                lines.push(OrderLine {
                    sku: format!("sku-{sku}"),
                    quantity: u32::try_from(dice.between(1, 4)).unwrap_or(1),
                    unit_price: if dice.below(8) == 0 { 0 } else { 100 },
                    ..OrderLine::default()
                });
            }
        }
        let place = PlaceOrder {
            customer_id: format!("customer-{}", dice.below(6)),
            contact: Some(Contact {
                address: Some(Address {
                    name: "Ada".into(),
                    street: "Quay 1".into(),
                    postal_code: "1000".into(),
                    city: "Port".into(),
                    country: "NL".into(),
                }),
                ..Contact::default()
            }),
            lines,
            currency: "EUR".into(),
        };
        let id = uuid_v7(world.clock.unix_ms(), dice).to_string();
        let command = order_command::Command::PlaceOrder(place.clone());
        send(world, Message::new(id.as_str(), command));
        self.placed.borrow_mut().push((id, place));
    }

    fn adjust(&self, world: &World, sku: usize, delta: i64) {
        let sku = format!("sku-{sku}");
        let adjust = AdjustStock {
            adjustment_id: uuid_v7(world.clock.unix_ms(), &world.dice).to_string(),
            delta,
        };
        let command = stock_command::Command::AdjustStock(adjust.clone());
        send(world, Message::new(sku.as_str(), command));
        self.adjusted.borrow_mut().push((sku, adjust));
    }
}

/// Writes a caller's command; a caller who hears nothing asks again under a fresh id.
fn send(world: &World, message: Message) {
    let metadata = Metadata {
        id: uuid_v7(world.clock.unix_ms(), &world.dice).to_string(),
        aggregate_id: message.aggregate_id.clone(),
        time_ms: world.clock.unix_ms(),
        actor: "customer".into(),
        reply_to: REPLY_TO.into(),
        ..Metadata::default()
    };
    let (service, kind) = (message.service(), message.kind());
    let key = message.aggregate_id.clone();
    world
        .journal
        .note(format_args!("a customer sends {kind} to {key}"));
    let payload = world.parts.codec.encode_message(message, metadata);
    let partition = partition_of(key.as_bytes(), world.plan.partitions);
    world.broker.append(
        (service, Topic::Commands, partition),
        Some(key.into_bytes()),
        Some(payload),
        Vec::new(),
    );
}
