//! Refuses requests above the size limit, by their declared length or by the bytes read.

use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tonic::Status;

use super::refuse;
use crate::error;

pub(super) async fn limit(State(bytes): State<usize>, request: Request, next: Next) -> Response {
    if request.body().size_hint().lower() > bytes as u64 {
        return refuse(error::too_large(bytes));
    }
    let bounded =
        |body| Body::new(Limited::new(body, bytes).map_err(move |error| status(&*error, bytes)));
    next.run(request.map(bounded)).await
}

/// The status of a body that broke off. tonic returns a status in the error chain to the client.
fn status(error: &(dyn std::error::Error + Send + Sync + 'static), limit_bytes: usize) -> Status {
    if error.is::<LengthLimitError>() {
        error::too_large(limit_bytes)
    } else {
        Status::cancelled("the request broke off")
    }
}
