//! The reference model: what the events alone imply for state machines, money, stock, and the rows of the read model.
//!
//! It shares no code with the rule books or the projector: a checker must not share the defects of the code it checks.

mod order;
mod payment;
mod shipment;
mod stock;

use std::collections::{HashMap, VecDeque};

use contracts::Contract;
use contracts::core::v1::Metadata;
use engine::log::Partition;

pub(crate) use order::OrderModel;
pub(crate) use payment::PaymentModel;
pub(crate) use shipment::ShipmentModel;
pub(crate) use stock::{ShippedPieces, StockModel};

use crate::context::AuditContext;
use crate::evidence::TopicPartition;
use crate::report::Example;

/// The position and the metadata of an event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventContext<'a> {
    pub(crate) topic_partition: TopicPartition,
    pub(crate) offset: i64,
    pub(crate) id: &'a str,
    pub(crate) version: u64,
    pub(crate) time_ms: i64,
    /// The message of the record, without its frame.
    pub(crate) record: &'a [u8],
    /// Whether the position of the read model is beyond the event.
    pub(crate) is_applied: bool,
}

impl EventContext<'_> {
    pub(crate) fn example(&self, wrong: impl Into<String>) -> Example {
        Example::new(wrong)
            .at(self.topic_partition, self.offset)
            .of_aggregate(self.id)
    }

    pub(crate) fn row_version(&self) -> i64 {
        i64::try_from(self.version).unwrap_or(i64::MAX)
    }

    /// Unix microseconds, the unit of the database rows.
    pub(crate) const fn row_time(&self) -> i64 {
        self.time_ms.saturating_mul(1_000)
    }
}

/// A processed command and its outcome.
pub(crate) struct ProcessedCommand<'a, C: Contract> {
    pub(crate) topic_partition: TopicPartition,
    pub(crate) offset: i64,
    pub(crate) metadata: &'a Metadata,
    pub(crate) command: &'a C::Command,
    /// Number of its events.
    pub(crate) events: usize,
    pub(crate) outcome: Option<&'a C::Outcome>,
}

/// The reference model of one service.
pub(crate) trait ReferenceModel: Contract + Sized {
    /// Applies an event to the model of its aggregate.
    fn apply_event(context: &mut AuditContext, at: &EventContext<'_>, event: &Self::Event);

    /// Checks the outcome of a command.
    fn check_business_outcome(context: &mut AuditContext, command: &ProcessedCommand<'_, Self>);

    /// Clears the fields of an event that depend on configured waiting times.
    fn clear_deadlines(event: &mut Self::Event);

    /// Whether the model has the aggregate.
    fn is_known(context: &AuditContext, id: &str) -> bool;
}

/// An order with its payment and shipment. The three aggregates of one id have the same partition number.
#[derive(Debug, Default)]
pub(crate) struct OrderLifecycle {
    pub(crate) partition: Partition,
    /// Time of its last event, in Unix milliseconds.
    pub(crate) last_ms: i64,
    pub(crate) order: Option<OrderModel>,
    pub(crate) payment: Option<PaymentModel>,
    pub(crate) shipment: Option<ShipmentModel>,
}

impl OrderLifecycle {
    /// Whether none of its aggregates is in progress.
    pub(crate) fn is_finished(&self) -> bool {
        self.order.as_ref().is_none_or(OrderModel::is_final)
            && self.payment.as_ref().is_none_or(PaymentModel::is_finished)
            && self
                .shipment
                .as_ref()
                .is_none_or(ShipmentModel::is_finished)
    }
}

/// The aggregates in memory.
#[derive(Debug, Default)]
pub(crate) struct LiveAggregates {
    pub(crate) lifecycles: HashMap<String, OrderLifecycle>,
    /// Never evicted: a stock item has no final status.
    pub(crate) stock: HashMap<String, StockModel>,
    /// By partition: lifecycles and the times at which they were finished, oldest first.
    finished: HashMap<Partition, VecDeque<(i64, String)>>,
    /// By partition: the highest id time of the evicted lifecycles, in Unix milliseconds.
    evicted_through_ms: HashMap<Partition, i64>,
    pub(crate) peak: usize,
    pub(crate) total: u64,
}

impl LiveAggregates {
    pub(crate) fn lifecycle_mut(&mut self, at: &EventContext<'_>) -> &mut OrderLifecycle {
        if !self.lifecycles.contains_key(at.id) {
            self.lifecycles
                .insert(at.id.to_owned(), OrderLifecycle::default());
            self.total += 1;
            self.peak = self.peak.max(self.lifecycles.len() + self.stock.len());
        }
        let lifecycle = self
            .lifecycles
            .get_mut(at.id)
            .expect("it was just inserted");
        lifecycle.partition = at.topic_partition.partition;
        lifecycle.last_ms = lifecycle.last_ms.max(at.time_ms);
        lifecycle
    }

    pub(crate) fn stock_item_mut(&mut self, id: &str) -> &mut StockModel {
        if !self.stock.contains_key(id) {
            self.stock.insert(id.to_owned(), StockModel::default());
            self.total += 1;
            self.peak = self.peak.max(self.lifecycles.len() + self.stock.len());
        }
        self.stock.get_mut(id).expect("it was just inserted")
    }

    /// Queues a lifecycle for eviction if it is finished.
    pub(crate) fn queue_if_finished(&mut self, id: &str) {
        if let Some(lifecycle) = self.lifecycles.get(id)
            && lifecycle.is_finished()
        {
            let queue = self.finished.entry(lifecycle.partition).or_default();
            queue.push_back((lifecycle.last_ms, id.to_owned()));
        }
    }

    /// Whether the aggregate may belong to an evicted lifecycle.
    pub(crate) fn may_be_evicted(&self, partition: Partition, id: &str) -> bool {
        let through = self.evicted_through_ms.get(&partition);
        let id_ms = contracts::rules::uuid_v7_time_ms(id);
        !self.lifecycles.contains_key(id)
            && id_ms.is_some_and(|id_ms| through.is_some_and(|through| id_ms <= *through))
    }

    /// Removes the next lifecycle of a partition that was finished by `until_ms` and has not changed since. A lifecycle
    /// with messages in flight to it, and those queued behind it, wait.
    pub(crate) fn evict_next(
        &mut self,
        partition: Partition,
        until_ms: i64,
        is_awaited: impl Fn(&str) -> bool,
    ) -> Option<(String, OrderLifecycle)> {
        let queue = self.finished.get_mut(&partition)?;
        while let Some((time_ms, id)) = queue.front()
            && *time_ms <= until_ms
            && !is_awaited(id)
        {
            let (time_ms, id) = queue.pop_front()?;
            let is_unchanged = |lifecycle: &OrderLifecycle| {
                lifecycle.last_ms == time_ms && lifecycle.is_finished()
            };
            if self.lifecycles.get(&id).is_some_and(is_unchanged) {
                let lifecycle = self.lifecycles.remove(&id)?;
                if let Some(id_ms) = contracts::rules::uuid_v7_time_ms(&id) {
                    let through = self.evicted_through_ms.entry(partition).or_insert(0);
                    *through = (*through).max(id_ms);
                }
                return Some((id, lifecycle));
            }
        }
        None
    }
}
