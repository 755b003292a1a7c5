//! Limits of the log that the worker, the simulated log and the tests rely on.

use std::time::Duration;

/// Largest record that is written, in bytes.
pub const MAX_RECORD_BYTES: usize = 1_000_000;
/// How long the broker keeps a transaction that its producer abandoned. It holds up every `read_committed` reader for
/// that long, so it is short; the group's session is longer, so that an abandoned transaction ends first.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the group waits for a member that sends no heartbeats.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a worker may go without a poll before librdkafka leaves the group; each worker step polls at least once.
pub const POLL_INTERVAL: Duration = Duration::from_secs(60);
/// Between two heartbeats of a member.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait for one response of the broker.
pub const SOCKET_TIMEOUT: Duration = Duration::from_secs(6);
/// librdkafka may have retried a commit, abort or send-offsets that took longer without reporting it, and the delayed
/// original may hit the next transaction (KAFKA-17754): the worker does not use such a producer again.
pub const SLOW_TRANSACTION_CALL: Duration = Duration::from_secs(3);
