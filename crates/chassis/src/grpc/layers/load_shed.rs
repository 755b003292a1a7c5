//! Turns calls away, at once, when there is as much work as the server takes.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::guarded_body::{Guard, Guarded};
use super::refuse;
use crate::error;
use crate::grpc::methods;

pub(super) async fn shed(
    State(places): State<Arc<Semaphore>>,
    request: Request,
    next: Next,
) -> Response {
    // A server that is full is not ill: whoever asks is told so, and those who watch take no place.
    if methods::find(request.uri().path()).is_some_and(|method| method.is_health) {
        return next.run(request).await;
    }
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
