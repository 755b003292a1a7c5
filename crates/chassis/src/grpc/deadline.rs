//! When a call's answer is no longer wanted.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;
use tonic::Status;

use crate::error;
use crate::names::GRPC_TIMEOUT;

/// A server answers this much before its caller's clock runs out, so that the caller gets the answer and not the end
/// of its own patience.
const HEAD_START: Duration = Duration::from_millis(20);

/// When a call's answer is no longer wanted: an extension of every request that the server stack hands on. A handler
/// that waits for something asks it how long it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    end: Instant,
    asked: bool,
}

impl Deadline {
    /// What a caller asks for: it ends after `timeout`, less a head start for the answer.
    pub fn after(timeout: Duration) -> Self {
        Self {
            end: Instant::now() + timeout - HEAD_START.min(timeout / 10),
            asked: true,
        }
    }

    /// What a client gives its own call: it ends after `timeout`.
    pub(crate) fn within(timeout: Duration) -> Self {
        Self {
            end: Instant::now() + timeout,
            asked: true,
        }
    }

    /// For a caller that does not ask. It bounds the wait for the head of the answer and no more: a stream may last.
    pub(crate) fn by_default(timeout: Duration) -> Self {
        Self {
            asked: false,
            ..Self::after(timeout)
        }
    }

    /// The time that is left; zero when it has passed.
    pub fn remaining(self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// The time that is left for work that is about to begin.
    ///
    /// # Errors
    ///
    /// DEADLINE_EXCEEDED: nobody wants it any more, so it must not begin.
    #[allow(clippy::result_large_err)]
    pub fn left(self) -> Result<Duration, Status> {
        let remaining = self.remaining();
        if remaining.is_zero() {
            Err(error::deadline())
        } else {
            Ok(remaining)
        }
    }

    /// Whether the caller asked for it: then it bounds the whole answer, here and at every service that is asked in
    /// turn.
    pub(crate) const fn is_asked(self) -> bool {
        self.asked
    }

    pub(crate) const fn instant(self) -> Instant {
        self.end
    }
}

/// A `grpc-timeout` that cannot be read.
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
    fn every_unit_is_read() {
        assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(read("3M"), Some(Duration::from_secs(180)));
        assert_eq!(read("4S"), Some(Duration::from_secs(4)));
        assert_eq!(read("5m"), Some(Duration::from_millis(5)));
        assert_eq!(read("6u"), Some(Duration::from_micros(6)));
        assert_eq!(read("99999999n"), Some(Duration::from_nanos(99_999_999)));
    }

    #[test]
    fn garbage_is_refused() {
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
    fn what_is_written_is_read() {
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
    fn the_answer_has_a_head_start() {
        let long = Duration::from_secs(1000);
        assert!(Deadline::after(long).remaining() <= long - HEAD_START);
        // Of a short timeout most is left for the work.
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
