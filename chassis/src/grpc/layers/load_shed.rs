//! Turns calls away, at once, when there is as much work as the server takes.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::guarded::{Guard, Guarded};
use super::refuse;
use crate::error;

pub(super) async fn shed(
    State(places): State<Arc<Semaphore>>,
    request: Request,
    next: Next,
) -> Response {
    let Ok(place) = places.try_acquire_owned() else {
        return refuse(error::exhausted(error::RETRY_AFTER));
    };
    // A client that reads slowly keeps its place.
    next.run(request)
        .await
        .map(|body| Guarded::wrap(body, place))
}

impl Guard for OwnedSemaphorePermit {
    fn end(&mut self, _trailers: Option<&HeaderMap>) {}
}
