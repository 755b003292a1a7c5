//! The business, told by the events alone: state machines, money, stock, and the rows that the read model must hold.
//!
//! Nothing here shares code with the rule books or with the projector: a checker must not share the mistakes of what it
//! checks.

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
pub(crate) use stock::{Shipped, StockModel};

use crate::context::AuditContext;
use crate::evidence::TopicPartition;
use crate::report::Example;

/// An event, and where it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Occurrence<'a> {
    pub(crate) place: TopicPartition,
    pub(crate) offset: i64,
    pub(crate) id: &'a str,
    pub(crate) version: u64,
    pub(crate) time_ms: i64,
    /// The record's message, without its frame.
    pub(crate) record: &'a [u8],
    /// The read model's position lies beyond it.
    pub(crate) is_applied: bool,
}

impl Occurrence<'_> {
    pub(crate) fn example(&self, wrong: impl Into<String>) -> Example {
        Example::new(wrong).at(self.place, self.offset).of(self.id)
    }

    pub(crate) fn row_version(&self) -> i64 {
        i64::try_from(self.version).unwrap_or(i64::MAX)
    }

    /// Microseconds, as the database has them.
    pub(crate) const fn row_time(&self) -> i64 {
        self.time_ms.saturating_mul(1_000)
    }
}

/// A command and its answer.
pub(crate) struct Answered<'a, C: Contract> {
    pub(crate) place: TopicPartition,
    pub(crate) offset: i64,
    pub(crate) metadata: &'a Metadata,
    pub(crate) command: &'a C::Command,
    /// Events that it led to.
    pub(crate) events: usize,
    pub(crate) outcome: Option<&'a C::Outcome>,
}

/// What the business says of the events and answers of one service.
pub(crate) trait ReferenceModel: Contract + Sized {
    /// Takes an event into the case of its aggregate.
    fn happened(context: &mut AuditContext, at: &Occurrence<'_>, event: &Self::Event);

    /// Looks at the answer to a command.
    fn answered(context: &mut AuditContext, answered: &Answered<'_, Self>);

    /// Takes out of an event what comes from configured waiting times.
    fn without_times(event: &mut Self::Event);

    /// Whether an aggregate has a case.
    fn is_known(context: &AuditContext, id: &str) -> bool;
}

/// Everything that is done for one order. Orders, payments and shipments of one id share a partition number.
#[derive(Debug, Default)]
pub(crate) struct OrderLifecycle {
    pub(crate) partition: Partition,
    /// Time of its last event.
    pub(crate) last_ms: i64,
    pub(crate) order: Option<OrderModel>,
    pub(crate) payment: Option<PaymentModel>,
    pub(crate) shipment: Option<ShipmentModel>,
}

impl OrderLifecycle {
    /// Whether nothing of it is under way.
    pub(crate) fn is_over(&self) -> bool {
        self.order.as_ref().is_none_or(OrderModel::is_final)
            && self.payment.as_ref().is_none_or(PaymentModel::is_over)
            && self.shipment.as_ref().is_none_or(ShipmentModel::is_over)
    }
}

/// Every case that is open.
#[derive(Debug, Default)]
pub(crate) struct Cases {
    pub(crate) lives: HashMap<String, OrderLifecycle>,
    /// Never closed: a product has no end.
    pub(crate) stock: HashMap<String, StockModel>,
    /// By partition: lives that were over at that time, oldest first.
    over: HashMap<Partition, VecDeque<(i64, String)>>,
    /// By partition: the highest id time among the closed ones.
    closed_through_ms: HashMap<Partition, i64>,
    pub(crate) most: usize,
    pub(crate) seen: u64,
}

impl Cases {
    pub(crate) fn life(&mut self, at: &Occurrence<'_>) -> &mut OrderLifecycle {
        if !self.lives.contains_key(at.id) {
            self.lives
                .insert(at.id.to_owned(), OrderLifecycle::default());
            self.seen += 1;
            self.most = self.most.max(self.lives.len() + self.stock.len());
        }
        let life = self.lives.get_mut(at.id).expect("it has just been made");
        life.partition = at.place.partition;
        life.last_ms = life.last_ms.max(at.time_ms);
        life
    }

    pub(crate) fn stock_item(&mut self, id: &str) -> &mut StockModel {
        if !self.stock.contains_key(id) {
            self.stock.insert(id.to_owned(), StockModel::default());
            self.seen += 1;
            self.most = self.most.max(self.lives.len() + self.stock.len());
        }
        self.stock.get_mut(id).expect("it has just been made")
    }

    /// Queues a life for being closed, if it is over.
    pub(crate) fn note_over(&mut self, id: &str) {
        if let Some(life) = self.lives.get(id)
            && life.is_over()
        {
            let queue = self.over.entry(life.partition).or_default();
            queue.push_back((life.last_ms, id.to_owned()));
        }
    }

    /// Whether the aggregate may be of a life that was closed.
    pub(crate) fn may_be_closed(&self, partition: Partition, id: &str) -> bool {
        let through = self.closed_through_ms.get(&partition);
        let id_ms = contracts::rules::uuid_v7_time_ms(id);
        !self.lives.contains_key(id)
            && id_ms.is_some_and(|id_ms| through.is_some_and(|through| id_ms <= *through))
    }

    /// Takes the next life of a partition that was over by `until_ms` and has not changed since. One to which messages
    /// are under way waits for them, and so do those behind it.
    pub(crate) fn close(
        &mut self,
        partition: Partition,
        until_ms: i64,
        is_awaited: impl Fn(&str) -> bool,
    ) -> Option<(String, OrderLifecycle)> {
        let queue = self.over.get_mut(&partition)?;
        while let Some((time_ms, id)) = queue.front()
            && *time_ms <= until_ms
            && !is_awaited(id)
        {
            let (time_ms, id) = queue.pop_front()?;
            let is_same = |life: &OrderLifecycle| life.last_ms == time_ms && life.is_over();
            if self.lives.get(&id).is_some_and(is_same) {
                let life = self.lives.remove(&id)?;
                if let Some(id_ms) = contracts::rules::uuid_v7_time_ms(&id) {
                    let through = self.closed_through_ms.entry(partition).or_insert(0);
                    *through = (*through).max(id_ms);
                }
                return Some((id, life));
            }
        }
        None
    }
}
