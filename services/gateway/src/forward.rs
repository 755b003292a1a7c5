//! Forwards gRPC calls without decoding them.

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use chassis::grpc::{Peer, is_grpc};
use http::{StatusCode, Version};
use tonic::body::Body;
use tower::ServiceExt as _;

/// The routes of `service`, which `peer` serves.
pub(crate) fn routes(service: &str, peer: Peer) -> Router {
    Router::new()
        .route(&format!("/{service}/{{method}}"), post(forward))
        .with_state(peer)
}

/// Forwards one call with its metadata and deadline, and returns the peer's response with its trailers unchanged.
async fn forward(State(peer): State<Peer>, request: Request) -> Response {
    // gRPC needs trailers, which only HTTP/2 provides here. HTTP/1.1 also has headers that must not be forwarded.
    if request.version() != Version::HTTP_2 || !is_grpc(request.headers()) {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    match peer.oneshot(request.map(Body::new)).await {
        Ok(response) => response.into_response(),
        Err(never) => match never {},
    }
}
