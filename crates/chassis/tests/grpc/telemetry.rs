//! The spans and metrics of calls.

use std::sync::{Arc, Once};
use std::time::Duration;

use chassis::grpc::Peer;
use chassis::{Process, metrics};
use contracts::sandbox::v1::ListPaymentsRequest;
use contracts::sandbox::v1::sandbox_service_client::SandboxServiceClient;
use observability::{TraceParent, names};
use opentelemetry::trace::{SpanKind, Status, TracerProvider as _};
use opentelemetry::{Context, Value};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, Span, SpanData, SpanProcessor};
use parking_lot::Mutex;
use tonic::Request;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tracing::Instrument as _;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::fake::{Fake, serve, set_behaviour, unused_address, wait_until};

const SET_BEHAVIOUR: &str = "/ordermesh.sandbox.v1.SandboxService/SetBehaviour";
const LIST_PAYMENTS: &str = "/ordermesh.sandbox.v1.SandboxService/ListPayments";

/// Collects the spans that have ended.
#[derive(Clone, Debug, Default)]
struct SpanCollector(Arc<Mutex<Vec<SpanData>>>);

impl SpanProcessor for SpanCollector {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.lock().push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl SpanCollector {
    /// Collects the spans of this thread, which runs the whole test. `roots` says whether new traces are recorded.
    fn install(roots: bool) -> (Self, DefaultGuard) {
        let collector = Self::default();
        let root = if roots {
            Sampler::AlwaysOn
        } else {
            Sampler::AlwaysOff
        };
        let provider = SdkTracerProvider::builder()
            .with_span_processor(collector.clone())
            .with_sampler(Sampler::ParentBased(Box::new(root)))
            .build();
        let traces = Targets::new().with_target(names::TRACE_TARGET, tracing::Level::INFO);
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        // One filter in front of the layer, as in a process: a per-layer filter would lose spans.
        let subscriber = tracing_subscriber::registry().with(layer).with(traces);
        // A call site first reached on a thread without a subscriber, as in other tests, may be cached as disabled: a
        // global default prevents that.
        static GLOBAL_DEFAULT: Once = Once::new();
        GLOBAL_DEFAULT.call_once(|| {
            tracing::subscriber::set_global_default(tracing_subscriber::registry())
                .expect("it is the only one");
        });
        (collector, tracing::subscriber::set_default(subscriber))
    }

    fn spans(&self) -> Vec<SpanData> {
        self.0.lock().clone()
    }

    /// Waits for the span of this kind: a span ends a little after its answer has arrived.
    async fn span(&self, kind: SpanKind) -> SpanData {
        let found = || self.spans().into_iter().find(|span| span.span_kind == kind);
        wait_until(async || found().is_some()).await;
        found().expect("it was there a moment ago")
    }
}

fn attribute(span: &SpanData, name: &str) -> Option<String> {
    let found = span
        .attributes
        .iter()
        .find(|attribute| attribute.key.as_str() == name);
    found.map(|attribute| attribute.value.to_string())
}

fn root() -> tracing::Span {
    tracing::info_span!(target: names::TRACE_TARGET, "root")
}

#[tokio::test]
async fn a_call_has_a_client_span_and_a_server_span() {
    for (failures, code) in [(0, 0), (1, 14)] {
        let (collector, _guard) = SpanCollector::install(true);
        let fake = Fake {
            failures,
            ..Fake::default()
        };
        let (address, _process) = serve(&fake).await;
        let peer = Peer::connect_lazy("sandbox", std::slice::from_ref(&address));
        let span = root();
        let parent = TraceParent::of(&span).expect("it belongs to a trace");
        let outcome = set_behaviour(peer).instrument(span).await;
        assert_eq!(outcome.is_ok(), code == 0);

        let client = collector.span(SpanKind::Client).await;
        let server = collector.span(SpanKind::Server).await;
        let root = collector.span(SpanKind::Internal).await;
        assert_eq!(client.parent_span_id, root.span_context.span_id());
        assert_eq!(server.parent_span_id, client.span_context.span_id());
        for span in [&client, &server] {
            assert_eq!(span.span_context.trace_id().to_string(), parent.trace_id());
            assert_eq!(span.name, SET_BEHAVIOUR.trim_start_matches('/'));
            for (name, value) in [
                (names::RPC_SYSTEM, "grpc"),
                (names::RPC_SERVICE, "ordermesh.sandbox.v1.SandboxService"),
                (names::RPC_METHOD, "SetBehaviour"),
            ] {
                assert_eq!(attribute(span, name).as_deref(), Some(value), "{name}");
            }
            let codes = span.attributes.iter();
            let codes: Vec<_> = codes
                .filter(|attribute| attribute.key.as_str() == names::RPC_CODE)
                .map(|attribute| &attribute.value)
                .collect();
            assert_eq!(codes, [&Value::I64(code)], "once, and as a number");
            assert_eq!(span.status != Status::Unset, code != 0, "{:?}", span.status);
        }
        assert_eq!(
            attribute(&server, names::SERVER).as_deref(),
            Some("sandbox")
        );
        let port = address.port_u16().map(|port| port.to_string());
        assert_eq!(attribute(&client, names::SERVER_PORT), port);
        assert_eq!(
            attribute(&client, names::SERVER_ADDRESS).as_deref(),
            Some("127.0.0.1")
        );
    }
}

#[tokio::test]
async fn a_call_that_is_not_recorded_makes_no_spans() {
    let (collector, _guard) = SpanCollector::install(false);
    let (address, process) = serve(&Fake::default()).await;
    let peer = Peer::connect_lazy("sandbox", &[address]);
    let called = set_behaviour(peer).instrument(root()).await;
    called.expect("the fake has no failures");
    wait_until(async || server_calls(&process, SET_BEHAVIOUR, "OK") == 1).await;
    assert_eq!(collector.spans().len(), 0);
}

#[tokio::test]
async fn a_call_outside_a_trace_has_no_client_span() {
    let (collector, _guard) = SpanCollector::install(true);
    let (address, _process) = serve(&Fake::default()).await;
    let peer = Peer::connect_lazy("sandbox", &[address]);
    set_behaviour(peer).await.expect("the fake has no failures");
    let server = collector.span(SpanKind::Server).await;
    assert!(!server.parent_span_is_remote, "its trace begins there");
    assert_eq!(collector.spans().len(), 1);
}

#[tokio::test]
async fn health_checks_make_no_spans() {
    let (collector, _guard) = SpanCollector::install(true);
    let (address, process) = serve(&Fake::default()).await;
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("it is a URL");
    let channel = endpoint.connect().await.expect("it listens");
    HealthClient::new(channel)
        .check(HealthCheckRequest::default())
        .await
        .expect("it answers");
    wait_until(async || server_calls(&process, "/grpc.health.v1.Health/Check", "OK") == 1).await;
    assert_eq!(collector.spans().len(), 0);
}

#[tokio::test]
async fn a_malformed_trace_context_is_ignored() {
    let (collector, _guard) = SpanCollector::install(true);
    let (address, _process) = serve(&Fake::default()).await;
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("it is a URL");
    let channel = endpoint.connect().await.expect("it listens");
    let mut request = Request::new(ListPaymentsRequest {});
    let bad = "00-no-trace-01".parse().expect("it is valid metadata");
    request.metadata_mut().insert(names::TRACEPARENT, bad);
    let answer = SandboxServiceClient::new(channel)
        .list_payments(request)
        .await;
    drop(answer.expect("it begins"));
    let server = collector.span(SpanKind::Server).await;
    assert!(!server.parent_span_is_remote);
    assert_eq!(
        attribute(&server, names::RPC_CODE).as_deref(),
        Some("1"),
        "a client that disconnects early cancels the call"
    );
}

#[tokio::test]
async fn calls_are_counted_by_the_client() {
    let (address, _served) = serve(&Fake::default()).await;
    let process = Process::new();
    let peer = Peer::connect_lazy("sandbox", &[address]).measured_by(&process);
    let down = Peer::connect_lazy("down", &[unused_address().await]).measured_by(&process);
    set_behaviour(peer.clone())
        .await
        .expect("the fake has no failures");
    set_behaviour(peer.retrying())
        .await
        .expect("the fake has no failures");
    set_behaviour(down).await.expect_err("no server listens");
    let entries = SandboxServiceClient::new(peer)
        .list_payments(ListPaymentsRequest {})
        .await
        .expect("it begins");
    assert_eq!(
        client_calls(&process, "sandbox", LIST_PAYMENTS, "CANCELLED"),
        0
    );
    drop(entries);

    assert_eq!(client_calls(&process, "sandbox", SET_BEHAVIOUR, "OK"), 2);
    assert_eq!(
        client_calls(&process, "down", SET_BEHAVIOUR, "UNAVAILABLE"),
        1
    );
    assert_eq!(
        client_calls(&process, "sandbox", LIST_PAYMENTS, "CANCELLED"),
        1
    );
}

/// Calls that `process` has made.
fn client_calls(process: &Process, peer: &str, method: &str, code: &str) -> u64 {
    count(
        process,
        metrics::RPC_CLIENT_CALLS.name,
        [peer, method, code],
    )
}

/// Calls that `process` has served.
fn server_calls(process: &Process, method: &str, code: &str) -> u64 {
    count(process, metrics::RPC_CALLS.name, ["sandbox", method, code])
}

fn count(process: &Process, name: &str, labels: [&str; 3]) -> u64 {
    let families = process.registry().gather();
    let family = families.iter().find(|family| family.name() == name);
    let metrics = family.map(|family| family.get_metric()).unwrap_or_default();
    let labelled = metrics.iter().find(|metric| {
        let has = |value| metric.get_label().iter().any(|pair| pair.value() == value);
        labels.into_iter().all(has)
    });
    labelled.map_or(0, |metric| metric.get_counter().get_value() as u64)
}
