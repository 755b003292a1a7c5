//! Gives every call its span, a child of the caller's.

use axum::body::HttpBody as _;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use observability::{TraceParent, names};
use tonic::Code;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use super::guarded_body::{Guard, Guarded};
use super::label;
use crate::grpc::code;
use crate::grpc::methods::{self, Method};

pub(super) async fn trace(
    State(server): State<&'static str>,
    request: Request,
    next: Next,
) -> Response {
    let method = methods::find(request.uri().path());
    // Probes come all the time, and nobody asks why.
    if method.is_some_and(|method| method.is_health) {
        return next.run(request).await;
    }
    // A bad one is counted, whether anything is recorded or not.
    let parent = TraceParent::from_headers(request.headers());
    let span = match method {
        // It only carries the decision on.
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
        // What is not recorded still travels on.
        return next.run(request).instrument(span).await;
    }
    let mut call = Call {
        span: span.clone(),
        is_rpc: method.is_some(),
        code: None,
    };
    let response = next.run(request).instrument(span).await;
    call.head(&response);
    if response.body().is_end_stream() {
        call.end(None);
    }
    response.map(|body| Guarded::wrap(body, call))
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
        // For the handler to say.
        { names::ORDER_ID } = Empty,
    )
}

/// The span of a request that is plain HTTP; its answer may still be a gRPC refusal in here.
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

/// A recorded call that is being served; its code is noted when it is dropped.
struct Call {
    span: Span,
    is_rpc: bool,
    code: Option<Code>,
}

impl Call {
    fn head(&mut self, response: &Response) {
        // An answer without a body carries its code at the head.
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

/// Whether a code says that the server failed; the others say that the caller asked for what cannot be.
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
