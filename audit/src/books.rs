//! The rule books that commands are decided by again.

use std::sync::Arc;
use std::time::Duration;

use engine::{Cluster, Codec};

/// The rule books of the services, as they run, and what deciding needs besides.
#[derive(Clone)]
pub struct RuleBooks<O, I, P, S> {
    /// Of orders.
    pub orders: O,
    /// Of stock items.
    pub inventory: I,
    /// Of payments.
    pub payments: P,
    /// Of shipments.
    pub shipping: S,
    /// Bytes.
    pub codec: Codec,
    /// Names of topics and number of partitions; nobody connects to it.
    pub cluster: Arc<Cluster>,
    /// Every command was decided with the waiting times of these rule books. They are configuration and stand nowhere in
    /// the log: where others may have been in force, events that differ in their deadlines alone are left unchecked.
    pub has_constant_times: bool,
    /// How long a finished aggregate stays in the memory of its service: horizon and slack.
    pub remembered: Duration,
}
