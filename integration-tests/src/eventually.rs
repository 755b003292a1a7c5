//! Waiting for a state that is reached, with a deadline.

use std::time::{Duration, Instant};

/// Longest wait for anything: beyond what a session, a transaction or a restart of a part takes.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Between looks at something that can only be polled.
const PAUSE: Duration = Duration::from_millis(10);

/// Waits until `look` finds what it looks for.
///
/// # Panics
///
/// When it has not been found by the deadline; `what` says what is missing.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, what, look)
}

/// Waits until `look` finds what it looks for, by a deadline of its own.
///
/// # Panics
///
/// See [`eventually`].
#[allow(
    clippy::disallowed_methods,
    reason = "between two looks; the state is what is waited for"
)]
pub fn within<T>(deadline: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            Instant::now() < end,
            "not reached within {deadline:?}: {what}"
        );
        std::thread::sleep(PAUSE);
    }
}
