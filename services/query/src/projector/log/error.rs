//! Why the log cannot be read.

use rdkafka::error::KafkaError;

/// Why the log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log does not contain the position: it was truncated, recreated, or its beginning was deleted.
    #[error(
        "the position {position} of {topic} [{partition}] lies outside of the log, which holds {low} to {high}: \
         the topic was truncated or recreated; rebuild the read model"
    )]
    OutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The position: first offset that is not applied.
        position: i64,
        /// First offset that exists.
        low: i64,
        /// The end: first offset that does not exist yet.
        high: i64,
    },
    /// The log holds another record at the offset of the last applied one.
    #[error(
        "{topic} [{partition}] is not the log that was applied up to here: offset {offset} holds another record; it \
         was recreated, or belongs to another cluster; rebuild the read model"
    )]
    LogReplaced {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Offset of the last applied record.
        offset: i64,
    },
    /// The client failed permanently.
    #[error("the log cannot be read")]
    Client(#[source] KafkaError),
}
