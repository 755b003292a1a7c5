//! The body of an answer of a peer.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};

use super::client_call::ClientCall;
use super::code;
use crate::error;
use crate::process::chain;

/// A body that always ends as a gRPC answer: when it breaks off, it ends with UNAVAILABLE. The call ends with the body.
pub(super) struct ResponseBody {
    body: Body,
    peer: &'static str,
    call: ClientCall,
    broken: bool,
}

impl ResponseBody {
    pub(super) fn wrap(body: Body, peer: &'static str, mut call: ClientCall) -> Body {
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

impl HttpBody for ResponseBody {
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
