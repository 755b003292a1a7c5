//! The body of a peer's answer.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use crate::error;
use crate::process::chain;

/// A body that is a gRPC answer to its end: where it breaks off, the peer has become UNAVAILABLE.
pub(super) struct Answer {
    body: Body,
    peer: &'static str,
    broken: bool,
}

impl Answer {
    pub(super) fn wrap(body: Body, peer: &'static str) -> Body {
        if body.is_end_stream() {
            return body;
        }
        Body::new(Self {
            body,
            peer,
            broken: false,
        })
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.broken {
            return Poll::Ready(None);
        }
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        let Some(Err(cause)) = frame else {
            return Poll::Ready(frame);
        };
        tracing::debug!(peer = self.peer, error = %chain(&cause), "an answer broke off");
        self.broken = true;
        let mut trailers = HeaderMap::new();
        let ended = error::unavailable(self.peer, error::RETRY_AFTER)
            .add_header(&mut trailers)
            .map(|()| Frame::trailers(trailers));
        Poll::Ready(Some(ended))
    }

    fn is_end_stream(&self) -> bool {
        self.broken || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
