//! The mapping of all errors to gRPC statuses with `google.rpc` details.
//!
//! A client receives what it can act on and nothing internal. Details are sent in a header, which clients limit to a
//! few kilobytes, so the list of violations is truncated.

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use contracts::rules::CrossField;
use contracts::{Validate, Violation};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::names::{ERROR_DOMAIN, REASON_OVERLOADED, REASON_TOO_LARGE};
use crate::process::chain;

/// Default retry delay for a refused client.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Limit on the bytes of field names and descriptions in one answer.
const VIOLATION_BYTES: usize = 6 * 1024;

/// Checks a request against its field rules and its cross-field rules.
///
/// # Errors
///
/// [`invalid`] with every violation at once.
pub fn validate<M: Validate + CrossField>(message: &M) -> Result<(), Status> {
    let violations = contracts::rules::violations(message);
    if violations.is_empty() {
        Ok(())
    } else {
        Err(invalid(&violations))
    }
}

/// The request violates rules; the status lists all violations.
pub fn invalid(violations: &[Violation]) -> Status {
    let mut room = VIOLATION_BYTES;
    let shown: Vec<_> = violations
        .iter()
        .map(|violation| FieldViolation::new(violation.field_path(), violation.message()))
        .take_while(|violation| {
            let size = violation.field.len() + violation.description.len();
            let fits = size <= room;
            room = room.saturating_sub(size);
            fits
        })
        .collect();
    let message = match violations.len() - shown.len() {
        0 => "the request is invalid".to_owned(),
        hidden => format!("the request is invalid; {hidden} more violations are not listed"),
    };
    Status::with_error_details(
        Code::InvalidArgument,
        message,
        ErrorDetails::with_bad_request(shown),
    )
}

/// One field of the request is wrong.
pub fn invalid_field(field: &str, description: impl Into<String>) -> Status {
    invalid(&[Violation::new(field, "request", description.into())])
}

/// The requested entity does not exist; `what` is `order`, `product`…
pub fn not_found(what: &str) -> Status {
    Status::not_found(format!("{what} not found"))
}

/// The rules reject the command. `reason` is machine-readable, upper snake case; `message` is for people.
pub fn rejected(reason: &'static str, message: impl Into<String>) -> Status {
    Status::with_error_details(Code::FailedPrecondition, message, error_info(reason))
}

/// The id was used for something else.
pub fn already_exists(reason: &'static str, message: impl Into<String>) -> Status {
    Status::with_error_details(Code::AlreadyExists, message, error_info(reason))
}

/// A dependency is down; `what` is its name, not its address.
pub fn unavailable(what: &str, retry_after: Duration) -> Status {
    let details = ErrorDetails::with_retry_info(Some(retry_after));
    Status::with_error_details(Code::Unavailable, format!("{what} is unavailable"), details)
}

/// The process is shutting down; clients retry at another replica, or here after the restart.
pub fn shutting_down() -> Status {
    let details = ErrorDetails::with_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(Code::Unavailable, "the server is shutting down", details)
}

/// The server has reached its limit of concurrent calls.
pub fn exhausted(retry_after: Duration) -> Status {
    let mut details = error_info(REASON_OVERLOADED);
    details.set_retry_info(Some(retry_after));
    Status::with_error_details(
        Code::ResourceExhausted,
        "too many requests at once",
        details,
    )
}

/// The request is larger than the server reads. The code is tonic's own for this.
pub fn too_large(limit_bytes: usize) -> Status {
    let message = format!("the request is larger than {limit_bytes} bytes");
    Status::with_error_details(Code::OutOfRange, message, error_info(REASON_TOO_LARGE))
}

/// The caller's deadline, or the server's default, has passed. The request may still take effect.
pub fn deadline() -> Status {
    Status::deadline_exceeded("the deadline has passed")
}

/// An internal error: the chain of causes is logged, the client receives only the code.
pub fn internal(error: &(dyn Error + 'static)) -> Status {
    tracing::error!(error = %chain(error), "a request failed");
    Status::internal("internal error")
}

/// Whether a code blames this one request, so that its failure says nothing about the health of the server.
pub const fn blames_request(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::OutOfRange
    )
}

/// The name of a code as the gRPC specification writes it.
pub const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

fn error_info(reason: &'static str) -> ErrorDetails {
    ErrorDetails::with_error_info(reason, ERROR_DOMAIN, HashMap::new())
}

#[cfg(test)]
mod tests {
    use std::io;

    use contracts::orders::v1::{OrderLine, PlaceOrderRequest};

    use super::*;

    /// What clients of hyper and h2 accept by default, over all headers.
    const HEADER_LIMIT: usize = 16 * 1024;

    #[test]
    fn all_violations_are_reported_at_once() {
        let status =
            validate(&PlaceOrderRequest::default()).expect_err("nearly everything is missing");
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status
            .get_details_bad_request()
            .expect("it has field violations");
        let fields: Vec<_> = details
            .field_violations
            .iter()
            .map(|violation| violation.field.as_str())
            .collect();
        for field in ["customer_id", "contact", "lines", "currency"] {
            assert!(fields.contains(&field), "{field} is missing in {fields:?}");
        }
    }

    #[test]
    fn many_violations_fit_into_the_headers() {
        let line = OrderLine {
            sku: String::new(),
            quantity: 0,
            unit_price: -1,
            discount: -1,
            ..Default::default()
        };
        let request = PlaceOrderRequest {
            lines: vec![line; 200],
            ..Default::default()
        };
        let status = validate(&request).expect_err("every line is wrong");
        let response = status.clone().into_http::<()>();
        let size: usize = response
            .headers()
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 32)
            .sum();
        assert!(size < HEADER_LIMIT, "{size} bytes");
        assert!(
            status.message().contains("more violations"),
            "{}",
            status.message()
        );
    }

    #[test]
    fn refusals_carry_their_reason_and_delay() {
        let status = rejected("OUT_OF_STOCK", "not enough pieces");
        assert_eq!(status.code(), Code::FailedPrecondition);
        let info = status.get_details_error_info().expect("it has a reason");
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("OUT_OF_STOCK", "ordermesh")
        );

        let status = unavailable("orders", RETRY_AFTER);
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(
            status
                .get_details_retry_info()
                .and_then(|info| info.retry_delay),
            Some(RETRY_AFTER)
        );

        let status = exhausted(RETRY_AFTER);
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(
            status
                .get_details_retry_info()
                .and_then(|info| info.retry_delay),
            Some(RETRY_AFTER)
        );
    }

    #[test]
    fn a_code_blames_the_request_or_the_server() {
        let blamed: Vec<_> = (0..=16)
            .map(Code::from_i32)
            .filter(|code| blames_request(*code))
            .map(code_name)
            .collect();
        let expected = [
            "INVALID_ARGUMENT",
            "NOT_FOUND",
            "ALREADY_EXISTS",
            "FAILED_PRECONDITION",
            "OUT_OF_RANGE",
        ];
        assert_eq!(blamed, expected);
    }

    #[test]
    fn nothing_internal_reaches_a_client() {
        let status = internal(&io::Error::other("password of db.internal is wrong"));
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(status.message(), "internal error");
        assert!(status.details().is_empty());
    }
}
