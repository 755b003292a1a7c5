//! Ends calls that would delay the shutdown of the process: streams at once, other calls after a grace period.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use futures::FutureExt as _;
use http::header::CONTENT_TYPE;
use tokio_util::sync::CancellationToken;

use super::refuse;
use super::terminating_body::TerminatingBody;
use crate::error;
use crate::grpc::methods;

const EVENT_STREAM: &[u8] = b"text/event-stream";

/// Ends streams when the process shuts down, and other calls `grace` later.
pub(super) async fn finish(
    State((shutdown, grace)): State<(CancellationToken, Duration)>,
    request: Request,
    next: Next,
) -> Response {
    // Health streams end with a final status, which the health service sends.
    let streams = methods::find(request.uri().path())
        .is_some_and(|method| method.streams && !method.is_health);
    let grace_over = async {
        shutdown.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    let response = tokio::select! {
        response = next.run(request) => response,
        () = grace_over => return refuse(error::shutting_down()),
    };
    if !streams && !is_event_stream(&response) {
        return response;
    }
    // The client resumes the stream at another replica.
    let shutting_down = move || {
        let shutdown = shutdown.clone();
        async move { shutdown.cancelled().await }
            .map(|()| error::shutting_down())
            .boxed()
    };
    response.map(|body| TerminatingBody::wrap(body, shutting_down))
}

fn is_event_stream(response: &Response) -> bool {
    response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|content| content.as_bytes().starts_with(EVENT_STREAM))
}
