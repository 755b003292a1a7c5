//! Unix time by the machine's clock: used for waits and ages only. Rule books see the log's time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Unix milliseconds.
pub fn unix_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}

/// Time from `now_ms` until `unix_time_ms` (both Unix milliseconds); zero when it has passed.
pub fn duration_until(unix_time_ms: i64, now_ms: i64) -> Duration {
    let wait_ms = unix_time_ms.saturating_sub(now_ms);
    Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0))
}
