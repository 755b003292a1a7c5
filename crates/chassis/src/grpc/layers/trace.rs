//! Creates the server span of every call, a child of the caller's span.

use axum::body::HttpBody as _;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use observability::{TraceParent, names};
use tonic::Code;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use super::guarded_body::{Guard, GuardedBody};
use super::label;
use crate::grpc::code;
use crate::grpc::methods::{self, Method};

pub(super) async fn trace(
    State(server): State<&'static str>,
    request: Request,
    next: Next,
) -> Response {
    let method = methods::find(request.uri().path());
    // Health checks are frequent and not worth a trace.
    if method.is_some_and(|method| method.is_health) {
        return next.run(request).await;
    }
    // Malformed contexts are counted, whether or not the call is recorded.
    let parent = TraceParent::from_headers(request.headers());
    let span = match method {
        // Propagates only the decision not to record.
        _ if parent.is_some_and(|parent| !parent.is_sampled()) => {
            tracing::info_span!(target: names::TRACE_TARGET, "unrecorded")
        }
        Some(method) => rpc_span(server, method),
        None => http_span(server, &request),
    };
    if span.is_disabled() {
        return next.run(request).await;
    }
    if let Some(parent) = parent {
        parent.adopt(&span);
    }
    if !TraceParent::of(&span).is_some_and(TraceParent::is_sampled) {
        // The context is propagated even when it is not recorded.
        return next.run(request).instrument(span).await;
    }
    let mut call = Call {
        span: span.clone(),
        is_rpc: method.is_some(),
        code: None,
    };
    let response = next.run(request).instrument(span).await;
    call.record_head(&response);
    if response.body().is_end_stream() {
        call.end(None);
    }
    response.map(|body| GuardedBody::wrap(body, call))
}

fn rpc_span(server: &'static str, method: &Method) -> Span {
    tracing::info_span!(
        target: names::TRACE_TARGET,
        "rpc",
        { names::SPAN_NAME } = method.span_name(),
        { names::SPAN_KIND } = "server",
        { names::SPAN_STATUS } = Empty,
        { names::RPC_SYSTEM } = "grpc",
        { names::RPC_SERVICE } = method.service,
        { names::RPC_METHOD } = method.name,
        { names::RPC_CODE } = Empty,
        { names::SERVER } = server,
        // Recorded by the handler.
        { names::ORDER_ID } = Empty,
    )
}

/// The span of a plain HTTP request; inside the layers its answer may still be a gRPC refusal.
fn http_span(server: &'static str, request: &Request) -> Span {
    let label = label(request);
    let route = label.split_once(' ').map(|(_, route)| route);
    tracing::info_span!(
        target: names::TRACE_TARGET,
        "http",
        { names::SPAN_NAME } = &*label,
        { names::SPAN_KIND } = "server",
        { names::SPAN_STATUS } = Empty,
        { names::HTTP_METHOD } = request.method().as_str(),
        { names::HTTP_ROUTE } = route,
        { names::HTTP_STATUS } = Empty,
        { names::RPC_CODE } = Empty,
        { names::SERVER } = server,
    )
}

/// A recorded call that is being served; its code is recorded when it is dropped.
struct Call {
    span: Span,
    is_rpc: bool,
    code: Option<Code>,
}

impl Call {
    fn record_head(&mut self, response: &Response) {
        // An answer without a body has its code in the headers.
        self.code = code(response.headers());
        if !self.is_rpc && self.code.is_none() {
            let status = response.status();
            self.span.record(names::HTTP_STATUS, status.as_u16());
            if status >= StatusCode::INTERNAL_SERVER_ERROR {
                self.span.record(names::SPAN_STATUS, "error");
            }
        }
    }
}

impl Guard for Call {
    fn end(&mut self, trailers: Option<&HeaderMap>) {
        self.code = trailers.and_then(code).or(self.code).or(Some(Code::Ok));
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let code = self.code.unwrap_or(Code::Cancelled);
        if self.is_rpc || code != Code::Ok {
            self.span.record(names::RPC_CODE, code as i64);
        }
        if is_fault(code) {
            self.span.record(names::SPAN_STATUS, "error");
        }
    }
}

/// Whether a code is a fault of the server; the others are faults of the request.
const fn is_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}
