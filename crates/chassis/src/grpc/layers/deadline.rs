//! Enforces deadlines: drops work whose deadline has passed.

use std::time::Duration;

use axum::body::HttpBody as _;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use futures::FutureExt as _;
use tokio::time::{sleep_until, timeout_at};
use tonic::Status;

use super::refuse;
use super::terminating_body::TerminatingBody;
use crate::error;
use crate::grpc::deadline::{Deadline, timeout};

/// The caller's timeout bounds the whole answer; the default bounds only the wait for the head of the answer, so that
/// a stream without a deadline is not cut.
pub(super) async fn enforce(
    State(default): State<Duration>,
    mut request: Request,
    next: Next,
) -> Response {
    let deadline = match timeout(request.headers()) {
        Ok(Some(requested)) => Deadline::after(requested),
        Ok(None) => Deadline::by_default(default),
        Err(malformed) => return refuse(Status::invalid_argument(malformed.to_string())),
    };
    // `timeout_at` polls its future before it checks the clock.
    if let Err(status) = deadline.left() {
        return refuse(status);
    }
    request.extensions_mut().insert(deadline);
    let Ok(response) = timeout_at(deadline.instant(), next.run(request)).await else {
        return refuse(error::deadline());
    };
    if !deadline.is_explicit() || response.body().is_end_stream() {
        return response;
    }
    let passed = move || {
        sleep_until(deadline.instant())
            .map(|()| error::deadline())
            .boxed()
    };
    response.map(|body| TerminatingBody::wrap(body, passed))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use tonic::Code;
    use tower::ServiceExt as _;

    use super::*;
    use crate::names::GRPC_TIMEOUT;

    #[tokio::test]
    async fn a_call_whose_deadline_has_passed_does_no_work() {
        let worked = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&worked);
        let work = async move || {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        let router = Router::new()
            .route("/", get(work))
            .layer(from_fn_with_state(Duration::from_secs(10), enforce));
        for (timeout, code, times) in [
            ("0m", Some(Code::DeadlineExceeded), 0),
            ("1n", Some(Code::DeadlineExceeded), 0),
            ("10S", None, 1),
        ] {
            let request = Request::get("/")
                .header(GRPC_TIMEOUT, timeout)
                .body(Body::empty())
                .expect("it is a valid request");
            let response = router.clone().oneshot(request).await.expect("it answers");
            let status = Status::from_header_map(response.headers());
            assert_eq!(status.map(|status| status.code()), code, "{timeout}");
            assert_eq!(worked.load(Ordering::Relaxed), times, "{timeout}");
        }
    }
}
