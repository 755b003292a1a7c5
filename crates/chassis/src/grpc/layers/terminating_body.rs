//! A response body that a condition can end early.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use futures::future::BoxFuture;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tonic::Status;

/// A body that ends with the status of `condition` when that completes before the body.
pub(super) struct TerminatingBody<C> {
    body: Body,
    condition: C,
    /// Created when the body is pending for the first time; most bodies never are.
    waiting: Option<BoxFuture<'static, Status>>,
    ended: bool,
}

impl<C> TerminatingBody<C>
where
    C: Fn() -> BoxFuture<'static, Status> + Unpin + Send + 'static,
{
    /// Wraps a body; `condition` creates the future that ends it.
    pub(super) fn wrap(body: Body, condition: C) -> Body {
        Body::new(Self {
            body,
            condition,
            waiting: None,
            ended: false,
        })
    }
}

impl<C> HttpBody for TerminatingBody<C>
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
        let waiting = this.waiting.get_or_insert_with(&this.condition);
        let Poll::Ready(status) = waiting.as_mut().poll(context) else {
            return Poll::Pending;
        };
        this.ended = true;
        // Drops the source of the remaining frames.
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
