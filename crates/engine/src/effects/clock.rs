//! Unix time by the clock of this machine. Only waits and ages are taken from it; what a rule book sees is the log's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Unix milliseconds.
pub fn unix_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}

/// How long from `now_ms` until then (both Unix milliseconds); zero when it has passed.
pub fn until(unix_time_ms: i64, now_ms: i64) -> Duration {
    let wait_ms = unix_time_ms.saturating_sub(now_ms);
    Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0))
}
