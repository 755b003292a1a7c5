//! Repeating calls that may be repeated.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// Whether the same call may succeed later, so that repeating it under the same id is right. Codes that a broken
/// connection leaves behind are among them: what was asked may or may not have happened.
pub fn may_pass(status: &Status) -> bool {
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
        Self { ceiling: FIRST }
    }
}

impl Backoff {
    /// How long to wait now; not less than half of what the answer asks for.
    pub fn next(&mut self, status: &Status) -> Duration {
        let asked = status
            .get_details_retry_info()
            .and_then(|info| info.retry_delay)
            .unwrap_or_default();
        let pause = self.ceiling.mul_f64(fastrand::f64());
        self.ceiling = (self.ceiling * 2).min(LONGEST);
        pause.max(asked.min(LONGEST).mul_f64(0.5 + fastrand::f64() / 2.0))
    }
}

/// The machine-readable reason of a refusal; empty when it has none.
pub fn reason(status: &Status) -> String {
    status
        .get_details_error_info()
        .map(|info| info.reason)
        .unwrap_or_default()
}

/// An answer on one line: its code, its message, and every field or reason that it names.
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
    fn a_pause_grows_to_its_limit_and_heeds_the_answer() {
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            assert!(backoff.next(&Status::unavailable("down")) <= LONGEST);
        }
        assert_eq!(backoff.ceiling, LONGEST);

        let asked = chassis::error::unavailable("orders", Duration::from_secs(1));
        assert!(Backoff::default().next(&asked) >= Duration::from_millis(500));
    }

    #[test]
    fn a_refusal_is_told_whole() {
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
