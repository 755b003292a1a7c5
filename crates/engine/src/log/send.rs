//! Result of sending a single command.

use super::Partition;

/// Position of a written command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordMetadata {
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: i64,
}

/// A command was not written, or it is unknown whether it was.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The producer's queue is full.
    #[error("too many commands are under way")]
    Full,
    /// The broker refused it.
    #[error("command could not be written: {0}")]
    Failed(String),
}
