//! One aggregate in memory.

use observability::TraceParent;

/// An aggregate: its state, version and time.
#[derive(Clone, Debug, Default)]
pub struct Aggregate<S> {
    pub state: S,
    /// Events so far.
    pub version: u64,
    /// Time of its last event, Unix milliseconds.
    pub time_ms: i64,
    /// How the state topic stores it now.
    pub stored: Stored,
    /// Trace context of its last traced command: its effects and timers continue that trace.
    pub trace: Option<TraceParent>,
}

/// How the state topic stores an aggregate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stored {
    /// Not at all.
    #[default]
    Absent,
    /// In one record.
    Single,
    /// In this many numbered chunks.
    Chunks(u32),
}
