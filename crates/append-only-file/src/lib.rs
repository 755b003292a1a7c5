//! A durable append-only file of lines, with one writer and any number of readers.
//!
//! 1. [`LockedFile`] opens the file for one process and reads its lines.
//! 2. [`LockedFile::append_after`] cuts off a last line that a crash has torn.
//! 3. [`Writer`] appends the lines of concurrent callers. One sync serves all callers that wait.
//!
//! What a line contains, and which lines are valid, is decided by the caller.

mod file;
mod lines;
mod writer;

pub use file::{AppendOnlyFile, LockedFile, OpenError};
pub use lines::LineReader;
pub use writer::{AppendError, Permit, Writer};
