//! The rule books that decide commands again.

use std::sync::Arc;

use engine::worker::Settings;
use engine::{Cluster, Codec};

/// The rule books of the services as they run, and the other inputs of a decision.
#[derive(Clone)]
pub struct RuleBooks<O, I, P, S> {
    /// Rules of orders.
    pub orders: DeciderConfig<O>,
    /// Rules of stock items.
    pub inventory: DeciderConfig<I>,
    /// Rules of payments.
    pub payments: DeciderConfig<P>,
    /// Rules of shipments.
    pub shipping: DeciderConfig<S>,
    /// Encodes and decodes records.
    pub codec: Codec,
    /// Names of topics and number of partitions. The auditor does not connect to it.
    pub cluster: Arc<Cluster>,
    /// Whether every command was decided with the waiting times of these rule books. They are configuration and not in
    /// the log: when others may have been in force, events that differ only in their deadlines are counted as
    /// unchecked.
    pub has_constant_times: bool,
}

/// The rule book of one service.
#[derive(Clone, Debug)]
pub struct DeciderConfig<D> {
    pub(crate) rules: D,
    /// How long a finished aggregate stays in the memory of its service, at least.
    pub(crate) remembered_ms: i64,
}

impl<D> DeciderConfig<D> {
    /// The rules and settings of the running service.
    pub fn new(rules: D, settings: &Settings) -> Self {
        Self {
            rules,
            remembered_ms: settings.remembered_ms(),
        }
    }
}

impl<O, I, P, S> RuleBooks<O, I, P, S> {
    /// After this time every service may have evicted a finished aggregate.
    pub(crate) fn remembered_ms(&self) -> i64 {
        let of_partners = self.payments.remembered_ms.max(self.shipping.remembered_ms);
        self.orders.remembered_ms.max(of_partners)
    }
}
