//! Deadlines of calls.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;
use tonic::Status;

use crate::error;
use crate::names::GRPC_TIMEOUT;

/// A server answers this much before the caller's timeout, so that the caller receives the server's status instead of
/// its own timeout.
const ANSWER_MARGIN: Duration = Duration::from_millis(20);

/// The deadline of a call: the server stack adds it to the extensions of every request. Handlers use it to bound their
/// waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    end: Instant,
    explicit: bool,
}

impl Deadline {
    /// A deadline that the caller requested: it ends after `timeout`, less a margin for the answer.
    pub fn after(timeout: Duration) -> Self {
        Self {
            end: Instant::now() + timeout - ANSWER_MARGIN.min(timeout / 10),
            explicit: true,
        }
    }

    /// A deadline that a client sets for its own call: it ends after `timeout`.
    pub(crate) fn within(timeout: Duration) -> Self {
        Self {
            end: Instant::now() + timeout,
            explicit: true,
        }
    }

    /// The deadline of a call without a timeout. It bounds only the wait for the head of the answer, not a stream.
    pub(crate) fn by_default(timeout: Duration) -> Self {
        Self {
            explicit: false,
            ..Self::after(timeout)
        }
    }

    /// The remaining time; zero when the deadline has passed.
    pub fn remaining(self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// The remaining time for work that is about to begin.
    ///
    /// # Errors
    ///
    /// DEADLINE_EXCEEDED when the deadline has passed: the work must not begin.
    #[allow(clippy::result_large_err)]
    pub fn left(self) -> Result<Duration, Status> {
        let remaining = self.remaining();
        if remaining.is_zero() {
            Err(error::deadline())
        } else {
            Ok(remaining)
        }
    }

    /// Whether the caller requested it. Such a deadline bounds the whole answer, here and at every service that is
    /// called in turn.
    pub(crate) const fn is_explicit(self) -> bool {
        self.explicit
    }

    pub(crate) const fn instant(self) -> Instant {
        self.end
    }
}

/// A `grpc-timeout` that cannot be parsed.
#[derive(Debug, thiserror::Error)]
#[error("grpc-timeout must be at most 8 digits and one of H, M, S, m, u, n")]
pub(crate) struct Malformed;

/// Reads the `grpc-timeout` of a call.
pub(crate) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Malformed> {
    headers
        .get(GRPC_TIMEOUT)
        .map(|value| parse(value).ok_or(Malformed))
        .transpose()
}

/// Writes the `grpc-timeout` of a call, in milliseconds.
pub(crate) fn set_timeout(headers: &mut HeaderMap, timeout: Duration) {
    const LONGEST_MS: u128 = 99_999_999;
    let value = format!("{}m", timeout.as_millis().min(LONGEST_MS));
    headers.insert(
        GRPC_TIMEOUT,
        HeaderValue::try_from(value).expect("digits and a letter"),
    );
}

fn parse(value: &HeaderValue) -> Option<Duration> {
    let (unit, digits) = value.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(amount * 3600)),
        b'M' => Some(Duration::from_secs(amount * 60)),
        b'S' => Some(Duration::from_secs(amount)),
        b'm' => Some(Duration::from_millis(amount)),
        b'u' => Some(Duration::from_micros(amount)),
        b'n' => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &'static str) -> Option<Duration> {
        parse(&HeaderValue::from_static(value))
    }

    #[test]
    fn every_unit_is_parsed() {
        assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(read("3M"), Some(Duration::from_secs(180)));
        assert_eq!(read("4S"), Some(Duration::from_secs(4)));
        assert_eq!(read("5m"), Some(Duration::from_millis(5)));
        assert_eq!(read("6u"), Some(Duration::from_micros(6)));
        assert_eq!(read("99999999n"), Some(Duration::from_nanos(99_999_999)));
    }

    #[test]
    fn malformed_timeouts_are_rejected() {
        for value in [
            "",
            "5",
            "m",
            "-5m",
            "+5m",
            "5.0m",
            "123456789m",
            "5 m",
            "5x",
        ] {
            assert_eq!(read(value), None, "{value}");
        }
    }

    #[test]
    fn a_written_timeout_is_parsed() {
        let mut headers = HeaderMap::new();
        set_timeout(&mut headers, Duration::from_millis(1234));
        assert_eq!(
            timeout(&headers).expect("well formed"),
            Some(Duration::from_millis(1234))
        );
        set_timeout(&mut headers, Duration::MAX);
        assert!(timeout(&headers).expect("well formed").is_some());
    }

    #[test]
    fn the_server_answers_before_the_caller_times_out() {
        let long = Duration::from_secs(1000);
        assert!(Deadline::after(long).remaining() <= long - ANSWER_MARGIN);
        // The margin of a short timeout is a tenth.
        let (before, deadline) = (Instant::now(), Deadline::after(Duration::from_millis(10)));
        assert!(deadline.instant() >= before + Duration::from_millis(9));
    }

    #[test]
    fn a_deadline_that_has_passed_leaves_no_time() {
        let passed = Deadline::after(Duration::ZERO);
        assert_eq!(passed.remaining(), Duration::ZERO);
        let status = passed.left().expect_err("it has passed");
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
        assert!(Deadline::after(Duration::from_secs(1000)).left().is_ok());
    }
}
