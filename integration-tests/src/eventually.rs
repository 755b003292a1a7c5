//! Polling for a state, with a deadline.

use std::time::{Duration, Instant};

/// Default deadline: beyond what a session, a transaction or a restart of a server takes.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Pause between two probes.
const PAUSE: Duration = Duration::from_millis(10);

/// Polls `probe` until it returns a value.
///
/// # Panics
///
/// When there is none by the deadline; the message contains `what`.
pub fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, what, probe)
}

/// Like [`eventually`], with another deadline.
///
/// # Panics
///
/// See [`eventually`].
#[allow(
    clippy::disallowed_methods,
    reason = "a pause between two probes; the loop ends when the state is reached"
)]
pub fn within<T>(deadline: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(
            Instant::now() < end,
            "not reached within {deadline:?}: {what}"
        );
        std::thread::sleep(PAUSE);
    }
}
