//! Drops the work whose answer is no longer wanted.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep_until, timeout_at};
use tonic::Status;

use super::refuse;
use crate::error;
use crate::grpc::deadline::{Deadline, timeout};

/// The caller's timeout bounds the whole answer; the default bounds only the wait for its head, so that a stream
/// without a deadline may last.
pub(super) async fn enforce(
    State(default): State<Duration>,
    mut request: Request,
    next: Next,
) -> Response {
    let asked = match timeout(request.headers()) {
        Ok(asked) => asked,
        Err(malformed) => return refuse(Status::invalid_argument(malformed.to_string())),
    };
    let deadline = Deadline::after(asked.unwrap_or(default));
    request.extensions_mut().insert(deadline);
    let Ok(response) = timeout_at(deadline.instant(), next.run(request)).await else {
        return refuse(error::deadline());
    };
    if asked.is_none() || response.body().is_end_stream() {
        return response;
    }
    response.map(|body| {
        Body::new(Expiring {
            body,
            deadline,
            sleep: None,
            expired: false,
        })
    })
}

/// A body that ends with DEADLINE_EXCEEDED when its time is up.
struct Expiring {
    body: Body,
    deadline: Deadline,
    /// Set when the body first had to wait; most never do.
    sleep: Option<Pin<Box<Sleep>>>,
    expired: bool,
}

impl HttpBody for Expiring {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.expired {
            return Poll::Ready(None);
        }
        if let frame @ Poll::Ready(_) = Pin::new(&mut self.body).poll_frame(context) {
            return frame;
        }
        let end = self.deadline.instant();
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(end)));
        if sleep.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.expired = true;
        // Drops what would have made the rest.
        self.body = Body::empty();
        let mut trailers = HeaderMap::new();
        match error::deadline().add_header(&mut trailers) {
            Ok(()) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Err(status) => Poll::Ready(Some(Err(axum::Error::new(status)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.expired || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
