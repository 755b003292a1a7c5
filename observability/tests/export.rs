//! Only spans of recorded traces are exported. One test, because telemetry is set up once per process.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use observability::{Settings, TraceParent, init, names};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319d-b7ad6b7169203331-00";
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

type Received = mpsc::UnboundedSender<Bytes>;

/// A minimal collector: answers with an empty gRPC message.
async fn collect(State(received): State<Received>, request: Bytes) -> impl IntoResponse {
    received.send(request).expect("the test waits for it");
    const EMPTY_MESSAGE: [u8; 5] = [0; 5];
    (
        [
            (CONTENT_TYPE.as_str(), "application/grpc"),
            ("grpc-status", "0"),
        ],
        EMPTY_MESSAGE,
    )
}

async fn collector() -> (String, mpsc::UnboundedReceiver<Bytes>) {
    let (sender, received) = mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("some port is free");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let router = Router::new()
        .route(EXPORT, axum::routing::post(collect))
        .with_state(sender);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, received)
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn spans_of_recorded_traces_reach_the_collector() {
    let (url, mut received) = collector().await;
    let mut settings = Settings::read("export-test", |_| None).expect("defaults are valid");
    settings.otlp_endpoint = Some(url);
    settings.trace_ratio = 0.0;
    let telemetry = init(&settings).expect("it is the first");
    assert!(init(&settings).is_err(), "the second is refused");

    for (parent, name) in [
        (Some(SAMPLED), "wanted"),
        (Some(UNSAMPLED), "unwanted"),
        (None, "unlucky"),
    ] {
        let span =
            tracing::info_span!(target: names::TRACE_TARGET, "work", { names::SPAN_NAME } = name);
        if let Some(parent) = parent {
            TraceParent::parse(parent.as_bytes())
                .expect("it is well formed")
                .adopt(&span);
        }
        let current = span
            .in_scope(TraceParent::current)
            .expect("every span has a context");
        assert_eq!(current.is_sampled(), name == "wanted");
    }
    telemetry.shutdown().await;

    let export = received.recv().await.expect("the shutdown has flushed");
    assert!(contains(&export, "export-test") && contains(&export, "wanted"));
    for absent in ["unwanted", "unlucky"] {
        assert!(!contains(&export, absent), "{absent}");
    }
}
