//! Refuses calls at once when the server has reached its limit of concurrent calls.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::guarded_body::{Guard, GuardedBody};
use super::refuse;
use crate::error;
use crate::grpc::methods;

pub(super) async fn shed(
    State(permits): State<Arc<Semaphore>>,
    request: Request,
    next: Next,
) -> Response {
    // Health checks bypass load shedding: a full server is healthy, and Watch streams must not use permits.
    if methods::find(request.uri().path()).is_some_and(|method| method.is_health) {
        return next.run(request).await;
    }
    let Ok(permit) = permits.try_acquire_owned() else {
        return refuse(error::exhausted(error::RETRY_AFTER));
    };
    // The permit is held until the body is sent, also to a slow client.
    next.run(request)
        .await
        .map(|body| GuardedBody::wrap(body, permit))
}

impl Guard for OwnedSemaphorePermit {
    fn end(&mut self, _trailers: Option<&HeaderMap>) {}
}
