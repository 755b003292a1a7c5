//! Ends what would hold up the end of the process: streams at once, other calls after a while.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use futures::FutureExt as _;
use http::header::CONTENT_TYPE;
use tokio_util::sync::CancellationToken;

use super::refuse;
use super::terminating_body::Ending;
use crate::error;
use crate::grpc::methods;

const EVENT_STREAM: &[u8] = b"text/event-stream";

/// Ends calls when the process shuts down, those that are no streams `grace` later.
pub(super) async fn finish(
    State((shutdown, grace)): State<(CancellationToken, Duration)>,
    request: Request,
    next: Next,
) -> Response {
    // Those of health end with a last word of their own.
    let streams = methods::find(request.uri().path())
        .is_some_and(|method| method.streams && !method.is_health);
    let out_of_time = async {
        shutdown.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    let response = tokio::select! {
        response = next.run(request) => response,
        () = out_of_time => return refuse(error::shutting_down()),
    };
    if !streams && !is_event_stream(&response) {
        return response;
    }
    // Who reads a stream resumes it elsewhere.
    let leaving = move || {
        let shutdown = shutdown.clone();
        async move { shutdown.cancelled().await }
            .map(|()| error::shutting_down())
            .boxed()
    };
    response.map(|body| Ending::wrap(body, leaving))
}

fn is_event_stream(response: &Response) -> bool {
    response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|content| content.as_bytes().starts_with(EVENT_STREAM))
}
