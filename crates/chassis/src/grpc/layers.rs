//! The layers around every handler, from the outside in: trace, metrics, load shed, drain, deadline, size limit.
//!
//! Layers refuse calls with ordinary gRPC answers, never with service errors, so that outer layers need no
//! translation.

mod deadline;
mod drain;
mod guarded_body;
mod load_shed;
mod metrics;
mod size;
mod terminating_body;
mod trace;

use std::borrow::Cow;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use tokio::sync::Semaphore;
use tonic::Status;

use super::methods;
use super::server::Limits;
use crate::process::Process;

/// Wraps all routes in the layers.
pub(super) fn stack(
    router: Router,
    server: &'static str,
    limits: &Limits,
    process: &Process,
) -> Result<Router, prometheus::Error> {
    let metrics = Arc::new(metrics::Metrics::register(server, process.registry())?);
    let permits = Arc::new(Semaphore::new(limits.in_flight));
    // The layer added last is the outermost.
    Ok(router
        .layer(from_fn_with_state(limits.request_bytes, size::limit))
        .layer(from_fn_with_state(
            limits.default_deadline,
            deadline::enforce,
        ))
        .layer(from_fn_with_state(
            (process.shutdown(), limits.grace),
            drain::finish,
        ))
        .layer(from_fn_with_state(permits, load_shed::shed))
        .layer(from_fn_with_state(metrics, metrics::measure))
        .layer(from_fn_with_state(server, trace::trace)))
}

fn refuse(status: Status) -> Response {
    status.into_http::<Body>()
}

/// The name of a call in traces and metrics: a method of the contracts or the matched route. The path that the client
/// sent is not used, because it has unbounded values.
fn label(request: &Request) -> Cow<'static, str> {
    if let Some(method) = methods::find(request.uri().path()) {
        return Cow::Borrowed(&method.path);
    }
    match request.extensions().get::<MatchedPath>() {
        Some(route) => Cow::Owned(format!("{} {}", request.method(), route.as_str())),
        None => Cow::Borrowed("unknown"),
    }
}
