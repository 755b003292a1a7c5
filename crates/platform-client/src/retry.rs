//! Retries of calls.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// Whether the call may be retried under the same id because it may succeed later. This includes the codes of a broken
/// connection, after which the call may or may not have taken effect.
pub fn is_retryable(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Cancelled
            | Code::Unknown
            | Code::Internal
            | Code::Aborted
    )
}

/// Exponential back-off with full jitter.
#[derive(Debug)]
pub struct Backoff {
    ceiling: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            ceiling: MIN_BACKOFF,
        }
    }
}

impl Backoff {
    /// The next pause; at least half of the retry delay in the status, which is limited to 2 s.
    pub fn next(&mut self, status: &Status) -> Duration {
        let requested = status
            .get_details_retry_info()
            .and_then(|info| info.retry_delay)
            .unwrap_or_default();
        let pause = self.ceiling.mul_f64(fastrand::f64());
        self.ceiling = (self.ceiling * 2).min(MAX_BACKOFF);
        pause.max(
            requested
                .min(MAX_BACKOFF)
                .mul_f64(0.5 + fastrand::f64() / 2.0),
        )
    }
}

/// The machine-readable reason of a status; empty when it has none.
pub fn reason(status: &Status) -> String {
    status
        .get_details_error_info()
        .map(|info| info.reason)
        .unwrap_or_default()
}

/// A status on one line: code, message, field violations and reason.
pub fn describe(status: &Status) -> String {
    let mut line = format!(
        "{}: {}",
        chassis::error::code_name(status.code()),
        status.message()
    );
    if let Some(request) = status.get_details_bad_request() {
        for violation in request.field_violations {
            line.push_str(&format!("; {} {}", violation.field, violation.description));
        }
    }
    match reason(status).as_str() {
        "" => {}
        reason => line.push_str(&format!(" ({reason})")),
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_grows_to_its_limit_and_respects_the_retry_delay() {
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            assert!(backoff.next(&Status::unavailable("down")) <= MAX_BACKOFF);
        }
        assert_eq!(backoff.ceiling, MAX_BACKOFF);

        let status = chassis::error::unavailable("orders", Duration::from_secs(1));
        assert!(Backoff::default().next(&status) >= Duration::from_millis(500));
    }

    #[test]
    fn a_status_is_described_with_its_details() {
        let status = chassis::error::invalid_field("lines[0].quantity", "must be at least 1");
        assert_eq!(
            describe(&status),
            "INVALID_ARGUMENT: the request is invalid; lines[0].quantity must be at least 1"
        );
        let status = chassis::error::rejected("TOO_LATE", "the order is shipped");
        assert_eq!(
            describe(&status),
            "FAILED_PRECONDITION: the order is shipped (TOO_LATE)"
        );
    }
}
