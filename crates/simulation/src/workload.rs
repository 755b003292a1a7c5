//! The customers: they place, repeat and cancel orders, and adjust stock.

use std::cell::RefCell;

use contracts::core::v1::Metadata;
use contracts::inventory::v1::{AdjustStock, stock_command};
use contracts::orders::v1::{Address, CancelOrder, Contact, OrderLine, PlaceOrder, order_command};
use contracts::{Message, Topic};
use engine::log::partitioner::partition_of;

use crate::effect_runtime::uuid_v7;
use crate::simulation::Simulation;

/// The `reply_to` of the commands of customers.
pub const REPLY_TO: &str = "customers";

/// The requests of customers that are in the log.
#[derive(Default)]
pub struct Workload {
    placed: RefCell<Vec<(String, PlaceOrder)>>,
    adjusted: RefCell<Vec<(String, AdjustStock)>>,
}

impl Workload {
    /// Number of orders so far.
    pub fn order_count(&self) -> usize {
        self.placed.borrow().len()
    }

    /// Ids of all acknowledged orders.
    pub fn acknowledged(&self) -> Vec<String> {
        let placed = self.placed.borrow();
        placed.iter().map(|(id, _)| id.clone()).collect()
    }

    /// Adds the initial stock of every product.
    pub fn add_initial_stock(&self, simulation: &Simulation) {
        for sku in 0..simulation.plan.skus {
            self.adjust(simulation, sku, simulation.plan.initial_stock);
        }
    }

    /// Sends a random request.
    pub fn send_random_command(&self, simulation: &Simulation) {
        let rng = &simulation.rng;
        match rng.below(10) {
            0..=4 if self.order_count() < simulation.plan.orders => self.place(simulation),
            5 => {
                if let Some((id, place)) = rng.pick(&self.placed.borrow()) {
                    let mut place = place.clone();
                    if rng.below(4) == 0 {
                        place.lines[0].quantity += 1;
                    }
                    let command = order_command::Command::PlaceOrder(place);
                    send(simulation, Message::new(id.as_str(), command));
                }
            }
            6 | 7 => {
                if let Some((id, place)) = rng.pick(&self.placed.borrow())
                    && rng.below(3) == 0
                {
                    let customer_id = place.customer_id.clone();
                    let cancel = CancelOrder { customer_id };
                    let command = order_command::Command::CancelOrder(cancel);
                    send(simulation, Message::new(id.as_str(), command));
                }
            }
            8 => self.adjust(
                simulation,
                rng.below(simulation.plan.skus),
                rng.between(-3, 5),
            ),
            _ => {
                if let Some((sku, adjust)) = rng.pick(&self.adjusted.borrow()) {
                    let command = stock_command::Command::AdjustStock(adjust.clone());
                    send(simulation, Message::new(sku.as_str(), command));
                }
            }
        }
    }

    /// Repeats all requests, and cancels all orders.
    pub fn repeat_all(&self, simulation: &Simulation) {
        for (id, place) in self.placed.borrow().iter() {
            let customer_id = place.customer_id.clone();
            let place = order_command::Command::PlaceOrder(place.clone());
            send(simulation, Message::new(id.as_str(), place));
            let cancel = order_command::Command::CancelOrder(CancelOrder { customer_id });
            send(simulation, Message::new(id.as_str(), cancel));
        }
        for (sku, adjust) in self.adjusted.borrow().iter() {
            let command = stock_command::Command::AdjustStock(adjust.clone());
            send(simulation, Message::new(sku.as_str(), command));
        }
    }

    fn place(&self, simulation: &Simulation) {
        let rng = &simulation.rng;
        let mut lines = Vec::new();
        for sku in 0..simulation.plan.skus {
            if sku == 0 || rng.flip_coin() {
                lines.push(OrderLine {
                    sku: format!("sku-{sku}"),
                    quantity: u32::try_from(rng.between(1, 4)).unwrap_or(1),
                    unit_price: if rng.below(8) == 0 { 0 } else { 100 },
                    ..OrderLine::default()
                });
            }
        }
        let place = PlaceOrder {
            customer_id: format!("customer-{}", rng.below(6)),
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
        let id = uuid_v7(simulation.clock.unix_ms(), rng).to_string();
        let command = order_command::Command::PlaceOrder(place.clone());
        send(simulation, Message::new(id.as_str(), command));
        self.placed.borrow_mut().push((id, place));
    }

    fn adjust(&self, simulation: &Simulation, sku: usize, delta: i64) {
        let sku = format!("sku-{sku}");
        let adjust = AdjustStock {
            adjustment_id: uuid_v7(simulation.clock.unix_ms(), &simulation.rng).to_string(),
            delta,
        };
        let command = stock_command::Command::AdjustStock(adjust.clone());
        send(simulation, Message::new(sku.as_str(), command));
        self.adjusted.borrow_mut().push((sku, adjust));
    }
}

/// Writes a customer's command, with a fresh command id.
fn send(simulation: &Simulation, message: Message) {
    let metadata = Metadata {
        id: uuid_v7(simulation.clock.unix_ms(), &simulation.rng).to_string(),
        aggregate_id: message.aggregate_id.clone(),
        time_ms: simulation.clock.unix_ms(),
        actor: "customer".into(),
        reply_to: REPLY_TO.into(),
        ..Metadata::default()
    };
    let (service, kind) = (message.service(), message.kind());
    let key = message.aggregate_id.clone();
    simulation
        .journal
        .note(format_args!("a customer sends {kind} to {key}"));
    let payload = simulation
        .process_context
        .codec
        .encode_message(message, metadata);
    let partition = partition_of(key.as_bytes(), simulation.plan.partitions);
    simulation.broker.append(
        (service, Topic::Commands, partition),
        Some(key.into_bytes()),
        Some(payload),
        Vec::new(),
    );
}
