//! What happens between the steps of a call: decided by whoever runs the world.

use super::Broker;

/// Where a call of a worker's log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Point {
    /// A poll begins.
    Poll,
    /// A committed offset is asked for, or asked for again because one is pending.
    Committed,
    /// The ends of a partition are asked for.
    Ends,
    /// A bounded read goes on.
    Read,
    /// A transaction begins.
    Begin,
    /// One of its records has been written.
    Produced,
    /// Its offsets go to the group.
    SendOffsets,
    /// It is to end.
    End,
    /// It has ended, and its worker has not heard of it.
    Ended,
    /// The coordinator is busy with the transaction before: the same request again.
    Again,
    /// A producer is made.
    Recreate,
    /// The group's coordinator is asked whether it answers.
    Coordinator,
    /// A fresh reader looks at a partition that stands still.
    Peek,
}

/// What becomes of a call at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepOutcome {
    /// It goes on.
    Go,
    /// The broker does not answer.
    Unavailable,
    /// The process ends here: nothing that it does from now on has an effect.
    Crash,
}

/// How a request to end a transaction fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Answered at once.
    Prompt,
    /// It never arrives; its sender waits in vain.
    Lost,
    /// Carried out; its sender waits in vain for the answer.
    ReplyLost,
    /// It is held up; its sender waits in vain, and it arrives some time later.
    Late,
    /// It is held up; the client sends it silently again, and that one is answered. The first one arrives later.
    Repeated,
}

/// Decides what happens between the steps of a call, and may let others run meanwhile.
///
/// No lock of the broker is held while it is asked.
pub trait FaultInjector {
    /// A call of the member `instance` has come to a point.
    fn reach(&self, instance: &str, point: Point) -> StepOutcome;

    /// How a request to end a transaction fares.
    fn ending(&self, instance: &str) -> Ending;

    /// How many of the records that are there a fetch delivers: 1 to `there`.
    fn portion(&self, there: usize) -> usize;

    /// One of two things that may both happen.
    fn toss(&self) -> bool;
}

/// A world in which nothing goes wrong, and the broker does all its chores at once.
#[derive(Clone)]
pub struct NoFaults(pub Broker);

impl FaultInjector for NoFaults {
    fn reach(&self, _instance: &str, _point: Point) -> StepOutcome {
        self.0.settle();
        StepOutcome::Go
    }

    fn ending(&self, _instance: &str) -> Ending {
        Ending::Prompt
    }

    fn portion(&self, there: usize) -> usize {
        there
    }

    fn toss(&self) -> bool {
        true
    }
}
