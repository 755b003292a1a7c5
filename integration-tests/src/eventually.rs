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
#[allow(
    clippy::disallowed_methods,
    reason = "between two looks; the state is what is waited for"
)]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            Instant::now() < end,
            "not reached within {DEADLINE:?}: {what}"
        );
        std::thread::sleep(PAUSE);
    }
}
