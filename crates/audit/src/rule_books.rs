//! The rule books that commands are decided by again.

use std::sync::Arc;

use engine::worker::Settings;
use engine::{Cluster, Codec};

/// The rule books of the services, as they run, and what deciding needs besides.
#[derive(Clone)]
pub struct RuleBooks<O, I, P, S> {
    /// Of orders.
    pub orders: DeciderConfig<O>,
    /// Of stock items.
    pub inventory: DeciderConfig<I>,
    /// Of payments.
    pub payments: DeciderConfig<P>,
    /// Of shipments.
    pub shipping: DeciderConfig<S>,
    /// Bytes.
    pub codec: Codec,
    /// Names of topics and number of partitions; nobody connects to it.
    pub cluster: Arc<Cluster>,
    /// Every command was decided with the waiting times of these rule books. They are configuration and stand nowhere in
    /// the log: where others may have been in force, events that differ in their deadlines alone are left unchecked.
    pub has_constant_times: bool,
}

/// The rule book of one service.
#[derive(Clone, Debug)]
pub struct DeciderConfig<D> {
    pub(crate) rules: D,
    /// How long a finished aggregate stays in the memory of its service at least.
    pub(crate) remembered_ms: i64,
}

impl<D> DeciderConfig<D> {
    /// Rules and settings as the service has them.
    pub fn new(rules: D, settings: &Settings) -> Self {
        Self {
            rules,
            remembered_ms: settings.remembered_ms(),
        }
    }
}

impl<O, I, P, S> RuleBooks<O, I, P, S> {
    /// After so many milliseconds every service may have forgotten what it has finished.
    pub(crate) fn remembered_ms(&self) -> i64 {
        let of_partners = self.payments.remembered_ms.max(self.shipping.remembered_ms);
        self.orders.remembered_ms.max(of_partners)
    }
}
