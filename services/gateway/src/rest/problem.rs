//! Translates gRPC errors into problem details (RFC 9457).

use std::time::Duration;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use chassis::error::{RETRY_AFTER, code_name};
use chassis::grpc::is_grpc;
use chassis::names::REASON_TOO_LARGE;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// The media type of problem details.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static(MEDIA_TYPE);

/// Why a request failed.
#[derive(Debug, Serialize)]
struct Problem {
    /// Always `about:blank`: `code` and `reason` identify the problem.
    r#type: &'static str,
    title: &'static str,
    status: u16,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    /// The gRPC code.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// Machine-readable reason of a rejection or server error.
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    violations: Vec<FieldProblem>,
    #[serde(skip)]
    retry_after: Option<Duration>,
}

#[derive(Debug, Serialize)]
struct FieldProblem {
    field: String,
    description: String,
}

/// Turns gRPC errors into problem details for REST callers. Responses to gRPC calls stay unchanged.
pub(crate) fn translate(router: Router) -> Router {
    router.layer(from_fn(translate_response))
}

async fn translate_response(request: Request, next: Next) -> Response {
    let grpc = is_grpc(request.headers());
    let response = next.run(request).await;
    if grpc {
        return response;
    }
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != Code::Ok => Problem::from(&status).into_response(),
        // An error of the router: unknown path, wrong method, malformed path.
        _ if response.status().is_client_error() || response.status().is_server_error() => {
            let mut problem = Problem::plain(response.status()).into_response();
            if let Some(allowed) = response.headers().get(header::ALLOW) {
                problem.headers_mut().insert(header::ALLOW, allowed.clone());
            }
            problem
        }
        _ => response,
    }
}

/// The problem details of an error that occurs after the response headers were sent, as text.
pub(super) fn print(status: &Status) -> String {
    // Strings and numbers can always be serialised.
    serde_json::to_string(&Problem::from(status)).unwrap_or_default()
}

/// The schema of problem details.
pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "description": "Why a request failed (RFC 9457).",
        "required": ["type", "title", "status"],
        "properties": {
            "type": {"type": "string", "description": "Always about:blank: code and reason identify the problem."},
            "title": {"type": "string"},
            "status": {"type": "integer", "description": "The HTTP status."},
            "detail": {"type": "string", "description": "Human-readable explanation."},
            "code": {"type": "string", "description": "The gRPC code, such as FAILED_PRECONDITION."},
            "reason": {"type": "string", "description": "Machine-readable reason of a rejection or server error."},
            "violations": {
                "type": "array",
                "description": "All violations of the request.",
                "items": {
                    "type": "object",
                    "required": ["field", "description"],
                    "properties": {
                        "field": {"type": "string", "description": "Path of a field, or name of a parameter or header."},
                        "description": {"type": "string"},
                    },
                },
            },
        },
    })
}

impl Problem {
    fn plain(status: StatusCode) -> Self {
        Self {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: String::new(),
            code: None,
            reason: String::new(),
            violations: Vec::new(),
            retry_after: None,
        }
    }
}

impl From<&Status> for Problem {
    fn from(status: &Status) -> Self {
        let details = status.get_error_details();
        let reason = details
            .error_info()
            .map(|info| info.reason.clone())
            .unwrap_or_default();
        let http_status = http_status(status.code(), &reason);
        let violations = details
            .bad_request()
            .map(|request| request.field_violations.as_slice())
            .unwrap_or_default();
        let is_retryable = matches!(
            http_status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
        );
        let requested_delay = details.retry_info().and_then(|info| info.retry_delay);
        Self {
            detail: status.message().to_owned(),
            code: Some(code_name(status.code())),
            reason,
            violations: violations
                .iter()
                .map(|violation| FieldProblem {
                    field: violation.field.clone(),
                    description: violation.description.clone(),
                })
                .collect(),
            retry_after: is_retryable.then(|| requested_delay.unwrap_or(RETRY_AFTER)),
            ..Self::plain(http_status)
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self
            .retry_after
            .map(|delay| delay.as_secs() + u64::from(delay.subsec_nanos() > 0));
        let mut response = (status, Json(self)).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, PROBLEM_JSON);
        if let Some(seconds) = retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// The mapping of google.rpc.Code, except that a rejection is 409: 400 would mean that the request is malformed.
fn http_status(code: Code, reason: &str) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::OutOfRange if reason == REASON_TOO_LARGE => StatusCode::PAYLOAD_TOO_LARGE,
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted | Code::FailedPrecondition => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        // The client has gone: the response is not read.
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use chassis::error;
    use contracts::Violation;

    use super::*;

    fn problem(status: &Status) -> Value {
        serde_json::to_value(Problem::from(status)).expect("it is plain data")
    }

    #[test]
    fn violations_are_listed_by_field() {
        let status = error::invalid(&[Violation::new("lines[0].sku", "rule", "is empty")]);
        let expected = json!({
            "type": "about:blank", "title": "Bad Request", "status": 400, "detail": "the request is invalid",
            "code": "INVALID_ARGUMENT",
            "violations": [{"field": "lines[0].sku", "description": "is empty"}],
        });
        assert_eq!(problem(&status), expected);
    }

    #[test]
    fn the_schema_contains_every_member() {
        let violation = error::invalid(&[Violation::new("sku", "rule", "is empty")]);
        let known = schema();
        for status in [violation, error::rejected("REASON", "no")] {
            let problem = problem(&status);
            for member in problem.as_object().expect("it is an object").keys() {
                assert!(known["properties"].get(member).is_some(), "{member}");
            }
            for member in known["required"].as_array().expect("it is a list") {
                assert!(problem.get(member.as_str().expect("a name")).is_some());
            }
        }
    }

    #[test]
    fn a_rejection_is_a_conflict_with_a_reason() {
        let expected = json!({
            "type": "about:blank", "title": "Conflict", "status": 409, "detail": "not enough pieces",
            "code": "FAILED_PRECONDITION", "reason": "BELOW_RESERVED",
        });
        assert_eq!(
            problem(&error::rejected("BELOW_RESERVED", "not enough pieces")),
            expected
        );
    }

    #[test]
    fn the_retry_delay_is_rounded_up_to_whole_seconds() {
        let status = error::unavailable("orders", Duration::from_millis(1200));
        let response = Problem::from(&status).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
        let response = Problem::from(&error::not_found("order")).into_response();
        assert!(!response.headers().contains_key(header::RETRY_AFTER));
    }

    #[test]
    fn an_oversized_request_is_a_413() {
        assert_eq!(problem(&error::too_large(10))["status"], 413);
        assert_eq!(
            problem(&Status::out_of_range("beyond the end"))["status"],
            400
        );
    }
}
