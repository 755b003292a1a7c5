//! The orders of the log, folded from their events.

use std::collections::{HashMap, HashSet};

use anyhow::{Context as _, bail};
use contracts::orders::v1::OrderEvent;
use contracts::orders::v1::order_event::Event;
use contracts::{Service, Topic};
use engine::log::Input;
use engine::{Cluster, Codec, Decider, State};
use orders::OrderRules;
use registry::Schemas;
use uuid::Uuid;

use platform_client::topic_reader;

/// Every order of the log.
#[derive(Debug, Default)]
pub struct OrdersLog {
    /// By id.
    pub orders: HashMap<Uuid, LoggedOrder>,
    /// Events whose version is not the successor of the previous one.
    pub gaps: u64,
}

/// An order of the log. Times are the append times of its events, in Unix milliseconds.
#[derive(Debug, Default)]
pub struct LoggedOrder {
    /// Version of the last event, which is the number of events.
    pub version: u64,
    /// The total, in minor units.
    pub total: i64,
    /// Time of the confirmation.
    pub confirmed_ms: Option<i64>,
    /// Time of the final event.
    pub final_ms: Option<i64>,
    /// `None` while the order is not final.
    pub end: Option<End>,
    /// Minor units refunded, according to the events of the order.
    pub refunded: i64,
    /// The folded state, for orders of the sample.
    pub state: Option<State<OrderRules>>,
}

/// How an order ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Delivered and paid.
    Delivered,
    /// Cancelled or rejected: reservations and charges were undone.
    Undone,
}

impl OrdersLog {
    /// Reads and folds all order events. Blocks.
    ///
    /// # Errors
    ///
    /// The broker does not answer, or a record cannot be decoded.
    pub fn read(
        cluster: &Cluster,
        schemas: Schemas,
        sampled: &HashSet<Uuid>,
    ) -> anyhow::Result<Self> {
        let codec = Codec::new(schemas);
        let mut log = Self::default();
        let ends = topic_reader::ends(cluster, Service::Orders, Topic::Events)?;
        topic_reader::read(cluster, Service::Orders, Topic::Events, &ends, |input| {
            let decoded = codec.decode::<OrderEvent>(Service::Orders, Topic::Events, &input);
            let Ok((metadata, event)) = decoded else {
                bail!(
                    "orders.events/{}@{}: {decoded:?}",
                    input.partition,
                    input.offset
                );
            };
            let order_id = metadata
                .aggregate_id
                .parse()
                .context("an order's id is a UUID")?;
            log.add(
                order_id,
                metadata.aggregate_version,
                &event,
                &input,
                sampled.contains(&order_id),
            );
            Ok(())
        })?;
        Ok(log)
    }

    /// Number of events of all orders.
    pub fn event_count(&self) -> u64 {
        self.orders.values().map(|order| order.version).sum()
    }

    /// Sum of the totals of all orders, in minor units.
    pub fn total(&self) -> i64 {
        self.orders.values().map(|order| order.total).sum()
    }

    fn add(
        &mut self,
        order_id: Uuid,
        version: u64,
        event: &Event,
        input: &Input,
        is_sampled: bool,
    ) {
        let order = self.orders.entry(order_id).or_default();
        if version != order.version + 1 {
            self.gaps += 1;
        }
        order.version = version;
        match event {
            Event::OrderCreated(created) => order.total = created.total,
            Event::OrderConfirmed(_) => order.confirmed_ms = Some(input.time_ms),
            Event::OrderPaymentCancelled(payment) => order.refunded = payment.refunded,
            Event::OrderDelivered(_) => {
                order.end = Some(End::Delivered);
                order.final_ms = Some(input.time_ms);
            }
            Event::OrderCancelled(_) | Event::OrderRejected(_) => {
                order.end = Some(End::Undone);
                order.final_ms = Some(input.time_ms);
            }
            _ => {}
        }
        if is_sampled {
            OrderRules::evolve(order.state.get_or_insert_default(), event);
        }
    }
}

#[cfg(test)]
mod tests {
    use contracts::orders::v1::{OrderCreated, OrderDelivered, OrderStatus};

    use super::*;

    #[test]
    fn an_order_is_folded_and_version_gaps_are_counted() {
        let id = Uuid::now_v7();
        let mut log = OrdersLog::default();
        let at = |time_ms| Input {
            time_ms,
            ..Default::default()
        };
        let created = Event::OrderCreated(OrderCreated {
            total: 7,
            ..Default::default()
        });
        log.add(id, 1, &created, &at(10), true);
        log.add(
            id,
            3,
            &Event::OrderDelivered(OrderDelivered {}),
            &at(20),
            true,
        );
        let order = &log.orders[&id];
        assert_eq!(
            (log.gaps, order.version, order.total, order.final_ms),
            (1, 3, 7, Some(20))
        );
        assert_eq!(order.end, Some(End::Delivered));
        assert_eq!(
            log.orders.values().map(|order| order.refunded).sum::<i64>(),
            0
        );
        // Delivered cannot follow created: the fold leaves the state unchanged, as in the service.
        assert_eq!(
            order.state.as_ref().map(State::<OrderRules>::status),
            Some(OrderStatus::Pending)
        );
    }
}
