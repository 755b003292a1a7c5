//! The faults. Each function breaks something on a system under load, asserts that the fault has acted, and repairs it.

mod brokers;
pub mod flash_sale;
mod partners;
mod paths;
mod processes;
mod recovery;
mod stores;
mod transactions;

use super::ChaosRig;
use super::load::{DEFAULT_MIX, WorkloadMix};

/// A fault that can be run.
#[derive(Clone, Copy)]
pub struct Fault {
    /// Name on the command line.
    pub name: &'static str,
    /// Description: what breaks.
    pub what: &'static str,
    /// Injects the fault and repairs it.
    pub strike: fn(&mut ChaosRig),
}

/// Every fault that runs under the default load.
pub const ALL: [Fault; 14] = [
    Fault {
        name: "kills",
        what: "processes are killed, at random points and between two of their steps",
        strike: processes::kills,
    },
    Fault {
        name: "zombies",
        what: "a processor is frozen in the middle of a transaction, for longer than its session",
        strike: processes::zombies,
    },
    Fault {
        name: "twins",
        what: "two processes are given the same instance",
        strike: processes::twins,
    },
    Fault {
        name: "unclear",
        what: "the end of a transaction is delayed: by a frozen broker, and on its way",
        strike: transactions::unclear,
    },
    Fault {
        name: "broker",
        what: "the broker is killed",
        strike: brokers::broker,
    },
    Fault {
        name: "recovery",
        what: "the broker is restarted and fenced, the database and the registry are restarted",
        strike: recovery::recovery,
    },
    Fault {
        name: "clients",
        what: "clients of the log lose the broker for good, one after the other",
        strike: recovery::clients,
    },
    Fault {
        name: "database",
        what: "the database is killed, frozen, and full",
        strike: stores::database,
    },
    Fault {
        name: "provider",
        what: "the payment provider is away, fails, loses replies, hangs",
        strike: partners::provider,
    },
    Fault {
        name: "churn",
        what: "workers join and leave all the time",
        strike: processes::churn,
    },
    Fault {
        name: "aborts",
        what: "transactions are aborted on purpose",
        strike: transactions::aborts,
    },
    Fault {
        name: "registry",
        what: "the schema registry is away, for warm and for cold caches",
        strike: stores::registry,
    },
    Fault {
        name: "restarts",
        what: "everything is restarted in order, one after the other",
        strike: processes::restarts,
    },
    Fault {
        name: "partitions",
        what: "parts are cut off from each other, then everything is slow and connections break",
        strike: paths::partitions,
    },
];

/// The workload mix for a fault.
pub fn mix_of(name: &str) -> WorkloadMix {
    WorkloadMix {
        free_percent: if name == "provider" { 30 } else { 5 },
        ..DEFAULT_MIX
    }
}
