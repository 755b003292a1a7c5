//! One aggregate in memory.

use observability::TraceParent;

/// An aggregate and how far it has come.
#[derive(Clone, Debug, Default)]
pub struct Aggregate<S> {
    pub state: S,
    /// Events so far.
    pub version: u64,
    /// Time of its last event, Unix milliseconds.
    pub time_ms: i64,
    /// How the state topic holds it now.
    pub stored: Stored,
    /// The span of its last command that was traced: its effects and timers go on from there.
    pub trace: Option<TraceParent>,
}

/// How the state topic holds an aggregate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stored {
    /// Not at all.
    #[default]
    Absent,
    /// In one record.
    Whole,
    /// In this many numbered pieces.
    Chunks(u32),
}
