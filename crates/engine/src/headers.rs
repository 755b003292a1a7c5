//! Names of the record headers.

/// W3C trace context.
pub use observability::names::TRACEPARENT;
/// On events: offset of the command that produced them.
pub const SOURCE_OFFSET: &str = "source-offset";
/// On outcomes: the API instance that waits.
pub const REPLY_TO: &str = "reply-to";

/// On dead letters: source topic of the record.
pub const DEAD_SOURCE_TOPIC: &str = "dead-source-topic";
/// Source partition.
pub const DEAD_SOURCE_PARTITION: &str = "dead-source-partition";
/// Source offset.
pub const DEAD_SOURCE_OFFSET: &str = "dead-source-offset";
/// Class of the error.
pub const DEAD_ERROR_CLASS: &str = "dead-error-class";
/// Description of the error.
pub const DEAD_ERROR_MESSAGE: &str = "dead-error-message";
/// How often the record was tried.
pub const DEAD_ATTEMPTS: &str = "dead-attempts";
/// Append time of the record, Unix milliseconds.
pub const DEAD_TIME: &str = "dead-time";
/// Original length of a truncated payload.
pub const DEAD_CUT_FROM: &str = "dead-cut-from";
/// Schema id in the record's frame, when one could be read.
pub const DEAD_SCHEMA_ID: &str = "dead-schema-id";
