//! Gives every call its span, a child of the caller's.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use observability::{TraceParent, names};
use tracing::Instrument as _;
use tracing::field::Empty;

use super::label;
use crate::names::GRPC_STATUS;

pub(super) async fn trace(
    State(server): State<&'static str>,
    request: Request,
    next: Next,
) -> Response {
    let span = tracing::info_span!(
        target: names::TRACE_TARGET,
        "rpc",
        { names::SPAN_NAME } = &*label(&request),
        { names::SPAN_KIND } = "server",
        { names::RPC_SYSTEM } = "grpc",
        { names::RPC_CODE } = Empty,
        { names::SPAN_STATUS } = Empty,
        server,
    );
    if span.is_disabled() {
        return next.run(request).await;
    }
    if let Some(parent) = TraceParent::from_headers(request.headers()) {
        parent.adopt(&span);
    }
    let response = next.run(request).instrument(span.clone()).await;
    // A code at the head is a refusal; success comes in the trailers.
    if let Some(code) = response
        .headers()
        .get(GRPC_STATUS)
        .and_then(|code| code.to_str().ok())
        && code != "0"
    {
        span.record(names::RPC_CODE, code);
        span.record(names::SPAN_STATUS, "error");
    }
    response
}
