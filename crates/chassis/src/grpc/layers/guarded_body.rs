//! A response body that holds a guard until the body has been sent.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use http::HeaderMap;
use http_body::{Frame, SizeHint};

/// Dropped when the body has been sent or its client has disconnected.
pub(super) trait Guard: Unpin + Send + 'static {
    /// The body was sent to its end.
    fn end(&mut self, trailers: Option<&HeaderMap>);
}

/// A body with its guard.
pub(super) struct GuardedBody<G> {
    body: Body,
    guard: G,
}

impl<G: Guard> GuardedBody<G> {
    /// Wraps a body.
    pub(super) fn wrap(body: Body, guard: G) -> Body {
        Body::new(Self { body, guard })
    }
}

impl<G: Guard> HttpBody for GuardedBody<G> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) if frame.is_trailers() => {
                self.guard.end(frame.trailers_ref());
            }
            // A body of known length is not polled for its end.
            Some(Ok(_)) if self.body.is_end_stream() => self.guard.end(None),
            None => self.guard.end(None),
            Some(_) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
