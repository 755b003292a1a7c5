//! An answer's body that is cut short when there is a cause.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use futures::future::BoxFuture;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tonic::Status;

/// A body that ends with the status of its cause, should that come before its own end.
pub(super) struct Ending<C> {
    body: Body,
    cause: C,
    /// Set when the body first had to wait; most never do.
    waiting: Option<BoxFuture<'static, Status>>,
    ended: bool,
}

impl<C> Ending<C>
where
    C: Fn() -> BoxFuture<'static, Status> + Unpin + Send + 'static,
{
    /// Wraps a body; `cause` gives what it waits for besides its own frames.
    pub(super) fn wrap(body: Body, cause: C) -> Body {
        Body::new(Self {
            body,
            cause,
            waiting: None,
            ended: false,
        })
    }
}

impl<C> HttpBody for Ending<C>
where
    C: Fn() -> BoxFuture<'static, Status> + Unpin,
{
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        if let frame @ Poll::Ready(_) = Pin::new(&mut this.body).poll_frame(context) {
            return frame;
        }
        let waiting = this.waiting.get_or_insert_with(&this.cause);
        let Poll::Ready(status) = waiting.as_mut().poll(context) else {
            return Poll::Pending;
        };
        this.ended = true;
        // Drops what would have made the rest.
        this.body = Body::empty();
        let mut trailers = HeaderMap::new();
        match status.add_header(&mut trailers) {
            Ok(()) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Err(status) => Poll::Ready(Some(Err(axum::Error::new(status)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
