//! The interface through which a test injects faults and concurrency between the steps of a call.

use super::Broker;

/// A point within a call on a worker's log at which a fault can be injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FaultPoint {
    /// A poll starts.
    Poll,
    /// A committed offset is requested, or requested again because an offset commit is pending.
    Committed,
    /// The ends of a partition are looked up.
    Ends,
    /// A bounded read continues.
    Read,
    /// A transaction starts.
    Begin,
    /// One of its records has been written.
    Produced,
    /// Its offsets are sent to the group.
    SendOffsets,
    /// The request to end it is sent.
    End,
    /// It has ended, and the worker has not received the result.
    Ended,
    /// A request is repeated, because the coordinator is still ending the previous transaction.
    Retry,
    /// A producer is created, or a consumer rejoins.
    Recreate,
    /// The group coordinator is probed.
    Coordinator,
    /// A fresh reader probes a stalled partition.
    Peek,
}

/// The result of a call at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepOutcome {
    /// The call continues.
    Continue,
    /// The broker does not answer.
    Unavailable,
    /// The process crashes: its later calls have no effect.
    Crash,
}

/// How a request to end a transaction, and its response, are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndDelivery {
    /// Carried out and answered at once.
    Prompt,
    /// The request is lost; its sender times out.
    Lost,
    /// The request is carried out and the response is lost; its sender times out.
    ReplyLost,
    /// The request is delayed; its sender times out before it arrives.
    Late,
    /// The request is delayed; the client repeats it, the repetition is answered, and the first one arrives later.
    Repeated,
}

/// Decides what happens between the steps of a call, and may run other processes meanwhile.
///
/// It is called without any lock of the broker.
pub trait FaultInjector {
    /// Called when a call of the member `instance` reaches a point.
    fn reach(&self, instance: &str, point: FaultPoint) -> StepOutcome;

    /// How a request to end a transaction is delivered.
    fn end_delivery(&self, instance: &str) -> EndDelivery;

    /// How many of the available records a fetch delivers: 1 to `available`.
    fn fetch_size(&self, available: usize) -> usize;

    /// Selects one of two possible behaviours.
    fn flip_coin(&self) -> bool;
}

/// Injects no faults, and performs all pending actions of the broker at every point.
#[derive(Clone)]
pub struct NoFaults(pub Broker);

impl FaultInjector for NoFaults {
    fn reach(&self, _instance: &str, _point: FaultPoint) -> StepOutcome {
        self.0.run_pending_actions();
        StepOutcome::Continue
    }

    fn end_delivery(&self, _instance: &str) -> EndDelivery {
        EndDelivery::Prompt
    }

    fn fetch_size(&self, available: usize) -> usize {
        available
    }

    fn flip_coin(&self) -> bool {
        true
    }
}
