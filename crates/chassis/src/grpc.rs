//! The gRPC server and client stacks that every service shares.

pub mod client;
pub mod server;

mod client_call;
mod deadline;
mod health;
mod layers;
mod methods;
mod replica;
mod response_body;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use tonic::Code;

use crate::names::GRPC_STATUS;

pub use client::{Peer, Transport};
pub(crate) use client_call::CallMetrics;
pub use deadline::Deadline;
pub use server::{Limits, Server};

/// Whether a request or an answer is gRPC, by its content type.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|content| match content.as_bytes().strip_prefix(GRPC) {
            // gRPC-Web (`application/grpc-web`) is another protocol.
            Some(rest) => matches!(rest.first(), None | Some(b'+' | b';')),
            None => false,
        })
}

/// The gRPC code in the headers or trailers of an answer, if present.
fn code(headers: &HeaderMap) -> Option<Code> {
    headers
        .get(GRPC_STATUS)
        .map(|code| Code::from_bytes(code.as_bytes()))
}
