//! The body of a peer's answer.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};

use super::client_call::Outgoing;
use super::code;
use crate::error;
use crate::process::chain;

/// A body that is a gRPC answer to its end: where it breaks off, the peer has become UNAVAILABLE. The call ends with
/// it.
pub(super) struct Answer {
    body: Body,
    peer: &'static str,
    call: Outgoing,
    broken: bool,
}

impl Answer {
    pub(super) fn wrap(body: Body, peer: &'static str, mut call: Outgoing) -> Body {
        if body.is_end_stream() {
            call.end(None);
            return body;
        }
        Body::new(Self {
            body,
            peer,
            call,
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
        let cause = match frame {
            Some(Err(cause)) => cause,
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.call.end(code(trailers));
                }
                return Poll::Ready(Some(Ok(frame)));
            }
            None => {
                self.call.end(None);
                return Poll::Ready(None);
            }
        };
        tracing::debug!(peer = self.peer, error = %chain(&cause), "an answer broke off");
        self.broken = true;
        self.call.end(Some(Code::Unavailable));
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
