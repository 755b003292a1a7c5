//! gRPC calls through the gateway.

use std::sync::atomic::Ordering;
use std::time::Duration;

use chassis::grpc::Limits;
use contracts::orders::v1::order_service_client::OrderServiceClient;
use contracts::orders::v1::{CancelOrderRequest, PlaceOrderRequest};
use contracts::query::v1::query_service_client::QueryServiceClient;
use contracts::query::v1::{GetOrderRequest, GetStockRequest, WatchOrderRequest};
use gateway::{INVENTORY, ORDERS};
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_types::StatusExt as _;

use crate::peers::{
    ECHO, FLAKY, NEVER, ORDER_ID, Observed, any_port, serve_all, serve_gateway,
    serve_gateway_following, serve_peers, unused_address,
};

fn get(order_id: &str) -> Request<GetOrderRequest> {
    Request::new(GetOrderRequest {
        order_id: order_id.to_owned(),
        min_version: 3,
        ..Default::default()
    })
}

async fn query(channel: &Channel, order_id: &str) -> Result<i64, Code> {
    let response = QueryServiceClient::new(channel.clone())
        .get_order(get(order_id))
        .await;
    response
        .map(|response| response.into_inner().order.expect("it has an order").total)
        .map_err(|status| status.code())
}

#[tokio::test]
async fn a_response_is_forwarded_with_its_metadata() {
    let (gateway, peers, _) = serve_all().await;
    let mut client = QueryServiceClient::new(gateway.channel().await);
    let mut request = get(ORDER_ID);
    request
        .metadata_mut()
        .insert(ECHO, "hello".parse().expect("it is valid metadata"));
    let response = client.get_order(request).await.expect("the order exists");
    assert_eq!(
        response.metadata().get(ECHO).map(|value| value.as_bytes()),
        Some(&b"hello"[..])
    );
    let order = response.into_inner().order.expect("it has an order");
    assert_eq!((order.order_id.as_str(), order.version), (ORDER_ID, 3));
    drop(client);
    gateway.stop().await;
    peers.stop().await;
}

#[tokio::test]
async fn an_error_is_forwarded_with_its_details() {
    let (gateway, _peers, _) = serve_all().await;
    let mut client = OrderServiceClient::new(gateway.channel().await);
    let status = client
        .place_order(PlaceOrderRequest::default())
        .await
        .expect_err("it is empty");
    assert_eq!(status.code(), Code::InvalidArgument);
    let violations = status
        .get_details_bad_request()
        .expect("it has field violations")
        .field_violations;
    assert!(violations.len() >= 4, "{violations:?}");

    let status = client
        .cancel_order(CancelOrderRequest::default())
        .await
        .expect_err("it is over");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(
        status
            .get_details_error_info()
            .expect("it has a reason")
            .reason,
        "ALREADY_FINAL"
    );
}

#[tokio::test]
async fn a_peer_that_is_down_is_unavailable_with_a_delay() {
    let gateway = serve_gateway(unused_address().await, Limits::default()).await;
    let mut client = OrderServiceClient::new(gateway.channel().await);
    let status = client
        .place_order(PlaceOrderRequest::default())
        .await
        .expect_err("nothing listens there");
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "orders is unavailable")
    );
    let retry = status.get_details_retry_info().expect("it has a delay");
    assert_eq!(retry.retry_delay, Some(Duration::from_secs(1)));
}

#[tokio::test]
async fn a_restarted_peer_is_reached_at_once() {
    let (gateway, peers, observed) = serve_all().await;
    let channel = gateway.channel().await;
    assert!(query(&channel, ORDER_ID).await.is_ok());
    let address = peers.address;
    peers.stop().await;
    let _restarted = serve_peers(address, &observed).await;
    for _ in 0..10 {
        assert!(query(&channel, ORDER_ID).await.is_ok());
    }
}

#[tokio::test]
async fn a_read_is_retried_after_a_transient_error() {
    let (gateway, _peers, observed) = serve_all().await;
    assert!(query(&gateway.channel().await, FLAKY).await.is_ok());
    assert_eq!(observed.flaky.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn the_deadline_reaches_the_service_and_cancels_its_work() {
    let (gateway, _peers, observed) = serve_all().await;
    let mut client = QueryServiceClient::new(gateway.peer());

    let mut request = get(ORDER_ID);
    request.set_timeout(Duration::from_secs(5));
    let order = client
        .get_order(request)
        .await
        .expect("the order exists")
        .into_inner()
        .order;
    let given_ms = order.expect("it has an order").total;
    assert!((1..5000).contains(&given_ms), "{given_ms}");

    let mut request = get(NEVER);
    request.set_timeout(Duration::from_millis(200));
    let status = client
        .get_order(request)
        .await
        .expect_err("it never answers");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    observed.dropped.notified().await;
}

#[tokio::test]
async fn a_call_without_a_deadline_gets_the_default() {
    let observed = Observed::default();
    let peers = serve_peers(any_port(), &observed).await;
    let limits = Limits {
        default_deadline: Duration::from_millis(200),
        ..Limits::default()
    };
    let gateway = serve_gateway(peers.address, limits).await;
    assert_eq!(
        query(&gateway.channel().await, NEVER).await,
        Err(Code::DeadlineExceeded)
    );
    observed.dropped.notified().await;
}

fn watch(order_id: &str) -> Request<WatchOrderRequest> {
    Request::new(WatchOrderRequest {
        order_id: order_id.to_owned(),
        after_version: 0,
    })
}

#[tokio::test]
async fn a_stream_is_forwarded_beyond_the_default_deadline() {
    let observed = Observed::default();
    let peers = serve_peers(any_port(), &observed).await;
    let limits = Limits {
        default_deadline: Duration::from_millis(100),
        ..Limits::default()
    };
    let gateway = serve_gateway(peers.address, limits).await;
    let channel = gateway.channel().await;
    let mut client = QueryServiceClient::new(channel.clone());
    let mut changes = client
        .watch_order(watch(NEVER))
        .await
        .expect("it begins")
        .into_inner();
    let first = changes.message().await.expect("it succeeds");
    let order = first.expect("there is a change").order;
    assert_eq!(order.expect("it has an order").version, 1);
    // A unary call that ends at the default deadline shows that this time has passed.
    assert_eq!(query(&channel, NEVER).await, Err(Code::DeadlineExceeded));
    observed.dropped.notified().await;
    let second = tokio::time::timeout(Duration::ZERO, changes.message()).await;
    assert!(second.is_err(), "the stream ended: {second:?}");
    // The stream of the service ends when the client drops its stream.
    drop(changes);
    observed.dropped.notified().await;
}

#[tokio::test]
async fn an_explicit_deadline_limits_the_whole_stream() {
    let (gateway, _peers, observed) = serve_all().await;
    let mut client = QueryServiceClient::new(gateway.peer());
    let mut request = watch(NEVER);
    request.set_timeout(Duration::from_millis(200));
    let mut changes = client
        .watch_order(request)
        .await
        .expect("it begins in time")
        .into_inner();
    assert!(changes.message().await.expect("it succeeds").is_some());
    let end = changes.message().await.expect_err("its time is up");
    assert_eq!(end.code(), Code::DeadlineExceeded);
    observed.dropped.notified().await;
}

#[tokio::test]
async fn a_stream_ends_with_the_gateway() {
    let (gateway, _peers, _) = serve_all().await;
    let mut client = QueryServiceClient::new(gateway.peer());
    let mut changes = client
        .watch_order(watch(NEVER))
        .await
        .expect("it begins")
        .into_inner();
    assert!(changes.message().await.expect("it succeeds").is_some());
    let ((), end) = tokio::join!(gateway.stop(), changes.message());
    let end = end.expect_err("it is not over");
    assert_eq!(end.code(), Code::Unavailable);
    assert!(end.get_details_retry_info().is_some());
}

#[tokio::test]
async fn a_cancelled_call_is_cancelled_in_the_service() {
    let (gateway, _peers, observed) = serve_all().await;
    let channel = gateway.channel().await;
    let call = tokio::spawn(async move { query(&channel, NEVER).await });
    observed.begun.notified().await;
    call.abort();
    observed.dropped.notified().await;
}

#[tokio::test]
async fn calls_beyond_the_limit_are_refused_at_once() {
    let observed = Observed::default();
    let peers = serve_peers(any_port(), &observed).await;
    let gateway = serve_gateway(
        peers.address,
        Limits {
            in_flight: 1,
            ..Limits::default()
        },
    )
    .await;
    let channel = gateway.channel().await;
    let first = tokio::spawn({
        let channel = channel.clone();
        async move { query(&channel, NEVER).await }
    });
    observed.begun.notified().await;

    let mut client = QueryServiceClient::new(channel.clone());
    let status = client
        .get_stock(GetStockRequest::default())
        .await
        .expect_err("the limit is reached");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.get_details_retry_info().is_some());
    let response = reqwest::get(gateway.url("/v1/stock/a"))
        .await
        .expect("it listens");
    assert_eq!(response.status().as_u16(), 429);
    assert_eq!(response.headers()["retry-after"], "1");

    // When the first call is gone, another is accepted.
    first.abort();
    observed.dropped.notified().await;
    until(async || client.get_stock(GetStockRequest::default()).await.is_ok()).await;
}

#[tokio::test]
async fn an_oversized_request_is_refused() {
    let (gateway, _peers, _) = serve_all().await;
    let mut client = OrderServiceClient::new(gateway.channel().await);
    let order = PlaceOrderRequest {
        customer_id: "x".repeat(2 * 1024 * 1024),
        ..Default::default()
    };
    let status = client
        .place_order(order)
        .await
        .expect_err("it is too large");
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    assert_eq!(
        status
            .get_details_error_info()
            .expect("it has a reason")
            .reason,
        "REQUEST_TOO_LARGE"
    );
}

#[tokio::test]
async fn a_method_that_does_not_exist_is_unimplemented() {
    let (gateway, _peers, _) = serve_all().await;
    let channel = gateway.channel().await;
    for path in [
        "/ordermesh.query.v1.QueryService/Nothing",
        "/ordermesh.nothing.v1.Nothing/Nothing",
    ] {
        let mut client = tonic::client::Grpc::new(channel.clone());
        client.ready().await.expect("it is connected");
        let codec = tonic_prost::ProstCodec::<GetStockRequest, GetStockRequest>::default();
        let path = http::uri::PathAndQuery::from_static(path);
        let status = client
            .unary(Request::new(GetStockRequest::default()), path, codec)
            .await;
        assert_eq!(
            status.expect_err("there is none").code(),
            Code::Unimplemented
        );
    }
}

#[tokio::test]
async fn reflection_lists_the_public_services() {
    let (gateway, _peers, _) = serve_all().await;
    let mut client = ServerReflectionClient::new(gateway.channel().await);
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let file = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol(
            "ordermesh.orders.v1.OrderService".into(),
        )),
    };
    let answers = client
        .server_reflection_info(tokio_stream::iter([list, file]))
        .await
        .expect("it is served");
    let mut answers = answers.into_inner();
    let response = answers
        .next()
        .await
        .expect("it answers")
        .expect("it succeeds");
    let Some(MessageResponse::ListServicesResponse(services)) = response.message_response else {
        panic!("unexpected response: {response:?}");
    };
    let mut names: Vec<_> = services
        .service
        .into_iter()
        .map(|service| service.name)
        .collect();
    names.sort();
    let expected = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "ordermesh.inventory.v1.InventoryService",
        "ordermesh.orders.v1.OrderService",
        "ordermesh.query.v1.QueryService",
    ];
    assert_eq!(names, expected);
    let response = answers
        .next()
        .await
        .expect("it answers")
        .expect("it succeeds");
    assert!(
        matches!(
            response.message_response,
            Some(MessageResponse::FileDescriptorResponse(_))
        ),
        "{response:?}"
    );
}

#[tokio::test]
async fn health_follows_readiness_until_the_end() {
    let (gateway, _peers, _) = serve_all().await;
    let mut client = HealthClient::new(gateway.channel().await);
    let request = HealthCheckRequest {
        service: "ordermesh.orders.v1.OrderService".into(),
    };
    let mut watch = client
        .watch(request)
        .await
        .expect("it is served")
        .into_inner();
    let mut wait_for = async |wanted: ServingStatus| {
        while let Some(response) = watch.next().await {
            if response.expect("it is served").status() == wanted {
                return true;
            }
        }
        false
    };
    assert!(wait_for(ServingStatus::Serving).await);
    let database = gateway.process.readiness().component("database");
    assert!(wait_for(ServingStatus::NotServing).await);
    database.ready();
    assert!(wait_for(ServingStatus::Serving).await);
    // An open health watch does not delay the shutdown.
    gateway.stop().await;
}

#[tokio::test]
async fn a_service_is_as_healthy_as_the_peer_behind_it() {
    let address = unused_address().await;
    let gateway = serve_gateway(address, Limits::default()).await;
    let client = HealthClient::new(gateway.channel().await);
    let is = async |service: &str, wanted: ServingStatus| {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let response = client.clone().check(request).await;
        response.expect("it is served").into_inner().status() == wanted
    };
    const SERVICE: &str = "ordermesh.orders.v1.OrderService";
    until(async || is(SERVICE, ServingStatus::NotServing).await).await;
    until(async || is("", ServingStatus::Serving).await).await;

    let peers = serve_peers(address, &Observed::default()).await;
    until(async || is(SERVICE, ServingStatus::Serving).await).await;
    let database = peers.process.readiness().component("database");
    until(async || is(SERVICE, ServingStatus::NotServing).await).await;
    database.ready();
    until(async || is(SERVICE, ServingStatus::Serving).await).await;
    peers.stop().await;
    until(async || is(SERVICE, ServingStatus::NotServing).await).await;
    assert!(is("", ServingStatus::Serving).await);
}

#[tokio::test]
async fn a_gateway_is_ready_while_its_remote_peers_serve() {
    let address = unused_address().await;
    let gateway = serve_gateway_following(address, Limits::default(), &[ORDERS, INVENTORY]).await;
    let readiness = gateway.process.readiness();
    until(async || !readiness.is_ready()).await;
    let reason = readiness.report().components["gateway"].clone();
    assert_eq!(reason.as_deref(), Some("orders does not serve"));

    let peers = serve_peers(address, &Observed::default()).await;
    until(async || readiness.is_ready()).await;
    let log = peers.process.readiness().component("log");
    until(async || !readiness.is_ready()).await;
    log.ready();
    until(async || readiness.is_ready()).await;
    peers.stop().await;
    until(async || !readiness.is_ready()).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_running_call_is_finished_during_shutdown() {
    let (gateway, _peers, observed) = serve_all().await;
    let peer = gateway.peer();
    let call = tokio::spawn(async move {
        let mut request = get(NEVER);
        request.set_timeout(Duration::from_millis(500));
        QueryServiceClient::new(peer)
            .get_order(request)
            .await
            .map_err(|status| status.code())
    });
    observed.begun.notified().await;
    gateway.stop().await;
    let outcome = call.await.expect("the call does not panic");
    assert_eq!(
        outcome.expect_err("it never answers"),
        Code::DeadlineExceeded
    );
}

#[tokio::test]
async fn calls_are_counted_by_method_and_code() {
    let (gateway, _peers, _) = serve_all().await;
    let channel = gateway.channel().await;
    assert!(query(&channel, ORDER_ID).await.is_ok());
    assert_eq!(query(&channel, "unknown").await, Err(Code::NotFound));
    let response = reqwest::get(gateway.url("/v1/orders/unknown"))
        .await
        .expect("it listens");
    assert_eq!(response.status().as_u16(), 404);
    let response = reqwest::get(gateway.url(&format!("/v1/orders/{ORDER_ID}")))
        .await
        .expect("it listens");
    assert_eq!(response.status().as_u16(), 200);
    drop(response);

    let method = "/ordermesh.query.v1.QueryService/GetOrder";
    let expected = [
        (method, "NOT_FOUND", 1),
        (method, "OK", 1),
        ("GET /v1/orders/{id}", "NOT_FOUND", 1),
        ("GET /v1/orders/{id}", "OK", 1),
    ];
    // A call is counted when its body is complete, which the client may see first.
    let counted = |&(method, code, count)| calls(&gateway.process, method, code) == count;
    until(async || expected.iter().all(counted)).await;
}

/// Waits until `reached` returns true; panics after 10 seconds.
async fn until(mut reached: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !reached().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .expect("the state is reached");
}

fn calls(process: &chassis::Process, method: &str, code: &str) -> u64 {
    let families = process.registry().gather();
    let calls = families
        .iter()
        .find(|family| family.name() == chassis::metrics::RPC_CALLS.name);
    let metrics = calls.map(|family| family.get_metric()).unwrap_or_default();
    let labelled = |metric: &&prometheus::proto::Metric| {
        let has = |name, value| {
            metric
                .get_label()
                .iter()
                .any(|label| label.name() == name && label.value() == value)
        };
        has(chassis::names::LABEL_METHOD, method) && has(chassis::names::LABEL_CODE, code)
    };
    metrics
        .iter()
        .find(labelled)
        .map_or(0, |metric| metric.get_counter().get_value() as u64)
}
