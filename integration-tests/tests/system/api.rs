//! The API as its clients use it: watching and waiting for orders, lists by time, the OpenAPI document, deadlines.

use std::net::SocketAddr;
use std::process::Child;
use std::time::Duration;

use contracts::orders::v1::order_service_client::OrderServiceClient;
use contracts::orders::v1::{
    CancelOrderRequest, OrderStatus, PlaceOrderRequest, PlaceOrderResponse, PlaceOrderWait,
};
use contracts::query::v1::query_service_client::QueryServiceClient;
use contracts::query::v1::{ListOrdersRequest, WatchOrderRequest, WatchOrderResponse};
use contracts::{Service, Topic};
use harness::eventually;
use harness::servers;
use harness::system::{SERVICES, System, order_of};
use prost::Message as _;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde_json::Value;
use tokio::net::TcpStream;
use tonic::{Code, Request, Status};
use uuid::Uuid;

#[test]
fn an_order_is_watched_from_its_placing_to_its_delivery() {
    let mut system = System::new();
    system.start_until_ready("all");
    system.stock("mug", 10);
    let mut request = order_of(&[("mug", 2)]);
    request.wait = PlaceOrderWait::Durable.into();
    let id = system.place(request).unwrap().order_id;
    // Both watches begin when only the acknowledgement is known.
    let events = system.curl(&[], &url(&system, &format!("/v1/orders/{id}/watch")));
    let changes = watch(&system, &id, 0);

    let received = versions(&changes);
    let last = changes.last().unwrap().order.clone().unwrap();
    assert_eq!(received, (1..=last.version).collect::<Vec<_>>());
    assert_eq!(last.status(), OrderStatus::Delivered);
    assert_eq!(last.lines, []);

    let events = server_sent_events(&text(events));
    let data: Vec<Value> = events
        .iter()
        .map(|(_, data)| serde_json::from_str(data).unwrap())
        .collect();
    let received: Vec<_> = data
        .iter()
        .flat_map(|change| change["events"].as_array().unwrap())
        .map(|event| event["metadata"]["aggregateVersion"].as_str().unwrap())
        .collect();
    let expected: Vec<_> = (1..=last.version)
        .map(|version| version.to_string())
        .collect();
    assert_eq!(received, expected);
    for ((id, _), change) in events.iter().zip(&data) {
        assert_eq!(*id, change["order"]["version"].as_str().unwrap());
    }
    assert_eq!(
        data.last().unwrap()["order"]["status"],
        "ORDER_STATUS_DELIVERED"
    );

    // Resumed in the middle, and at the end.
    let rest = versions(&watch(&system, &id, 3));
    assert_eq!(rest, (4..=last.version).collect::<Vec<_>>());
    assert_eq!(watch(&system, &id, last.version), []);
    let observed = format!("Last-Event-ID: {}", last.version);
    let path = format!("/v1/orders/{id}/watch?after_version=1");
    let resumed = system.curl(
        &["-H", &observed, "-w", "%{http_code}"],
        &url(&system, &path),
    );
    assert_eq!(text(resumed), "204");
}

#[test]
fn a_call_waits_until_its_order_is_confirmed() {
    let mut system = System::new();
    let without_payments: Vec<_> = SERVICES
        .into_iter()
        .filter(|service| *service != "payments")
        .collect();
    for service in &without_payments {
        system.start(service);
    }
    for service in &without_payments {
        system.wait_until_ready(service);
    }
    system.stock("mug", 10);
    let mut request = order_of(&[("mug", 1)]);
    request.wait = PlaceOrderWait::Confirmed.into();
    let late = place_within(&system, request.clone(), Duration::from_secs(2)).unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
    system.wait_for_status(&request.order_id, OrderStatus::AwaitingPayment);

    // The same call waits again, now for a result that exists.
    system.start("payments");
    let placed = place_within(&system, request.clone(), Duration::from_secs(60)).unwrap();
    assert_eq!(placed.order_id, request.order_id);
    let confirmed = [
        OrderStatus::Confirmed,
        OrderStatus::Shipped,
        OrderStatus::Delivered,
    ];
    assert!(confirmed.contains(&placed.status()), "{placed:?}");
    let observed = system.order(&placed.order_id, placed.version).unwrap();
    assert!(confirmed.contains(&observed.status()), "{observed:?}");

    system.wait_until_ready("payments");
    let mut refused = order_of(&[("unicorn", 1)]);
    refused.wait = PlaceOrderWait::Confirmed.into();
    let refused = place_within(&system, refused, Duration::from_secs(60)).unwrap();
    assert_eq!(refused.status(), OrderStatus::Rejected);
    system.audit_at_rest(None);
}

#[test]
fn orders_are_listed_by_the_time_they_were_placed() {
    let mut system = System::new();
    system.start_until_ready("all");
    system.stock("mug", 10);
    let mut orders = Vec::new();
    for _ in 0..3 {
        let id = system.place(order_of(&[("mug", 1)])).unwrap().order_id;
        // Separates the orders by several transactions.
        orders.push(system.wait_for_status(&id, OrderStatus::Delivered));
    }
    let ids: Vec<_> = orders.iter().map(|order| order.order_id.clone()).collect();
    let middle = ListOrdersRequest {
        statuses: vec![OrderStatus::Delivered.into()],
        customer_id: "ada".into(),
        placed_from: orders[1].placed_at,
        placed_before: orders[2].placed_at,
        ..Default::default()
    };
    assert_eq!(list(&system, middle.clone()), [ids[1].clone()]);
    let newer = ListOrdersRequest {
        placed_before: None,
        ..middle.clone()
    };
    assert_eq!(list(&system, newer), [ids[2].clone(), ids[1].clone()]);
    let other_customer = ListOrdersRequest {
        placed_before: middle.placed_from,
        ..middle
    };
    assert_eq!(list(&system, other_customer), Vec::<String>::new());

    let shown = text(system.curl(&[], &url(&system, &format!("/v1/orders/{}", ids[1]))));
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let placed_at = shown["order"]["placedAt"].as_str().unwrap();
    let path = format!("/v1/orders?status=delivered&placed_from={placed_at}");
    let listed = text(system.curl(&[], &url(&system, &path)));
    assert!(
        !listed.contains(&ids[0]) && listed.contains(&ids[1]),
        "{listed}"
    );
}

#[test]
fn the_answer_to_a_cancellation_depends_on_the_order_status() {
    let mut system = System::new();
    system.start_until_ready("all");
    system.stock("mug", 1);
    let delivered = system.place(order_of(&[("mug", 1)])).unwrap().order_id;
    system.wait_for_status(&delivered, OrderStatus::Delivered);
    let rejected = system.place(order_of(&[("unicorn", 1)])).unwrap().order_id;
    system.wait_for_status(&rejected, OrderStatus::Rejected);
    let cancel = |order_id: &str, customer_id: &str| {
        let request = CancelOrderRequest {
            order_id: order_id.into(),
            customer_id: customer_id.into(),
        };
        system
            .block_on(OrderServiceClient::new(system.channel()).cancel_order(request))
            .map(|answer| answer.into_inner().status())
            .map_err(|status| (status.code(), status.message().to_owned()))
    };
    let too_late = |status: &str| Err((Code::FailedPrecondition, format!("the order is {status}")));
    let unknown = Err((Code::NotFound, "order not found".to_owned()));
    assert_eq!(cancel(&delivered, "ada"), too_late("delivered"));
    assert_eq!(cancel(&rejected, "ada"), too_late("rejected"));
    // Another customer does not learn that the order exists.
    assert_eq!(cancel(&delivered, "bob"), unknown);
    assert_eq!(cancel(&Uuid::now_v7().to_string(), "ada"), unknown);
}

#[test]
fn the_document_is_served() {
    let mut system = System::new();
    system.start("gateway");
    // Without the orders service the gateway is not ready, but it serves its document.
    eventually("the gateway reports why it is not ready", || {
        let received = system.readiness("gateway");
        received.contains("orders does not serve").then_some(())
    });
    let document = text(system.curl(&[], &url(&system, "/openapi.json")));
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["paths"]["/v1/orders/{id}/watch"]["get"].is_object());
}

#[test]
fn a_call_whose_deadline_has_passed_writes_nothing() {
    let mut system = System::new();
    for service in SERVICES {
        system.start(service);
    }
    for service in SERVICES {
        system.wait_until_ready(service);
    }
    let before = commands(&system);
    let body = "{\"customerId\":\"ada\",\"currency\":\"EUR\",\"contact\":{\"address\":{\"name\":\"Ada\",\
        \"street\":\"1\",\"postalCode\":\"1\",\"city\":\"Berlin\",\"country\":\"DE\"}},\
        \"lines\":[{\"sku\":\"mug\",\"quantity\":1,\"unitPrice\":\"100\"}]}";
    let options = ["-H", "grpc-timeout: 0m", "-d", body];
    let answer = text(system.curl(&options, &url(&system, "/v1/orders")));
    assert!(answer.contains("DEADLINE_EXCEEDED"), "{answer}");

    // Raw gRPC over HTTP/2, to the gateway and to orders: a gRPC client would not send such a call.
    let orders = system.variable("ORDERMESH_ORDERS").parse().unwrap();
    let mut placed = order_of(&[("mug", 1)]);
    for wait in [PlaceOrderWait::Created, PlaceOrderWait::Durable] {
        placed.wait = wait.into();
        for address in [system.public, orders] {
            let answer = system.block_on(place_without_time(address, &placed));
            assert_eq!(answer.unwrap(), "4", "DEADLINE_EXCEEDED of {address}");
        }
    }
    assert_eq!(
        system.order(&placed.order_id, 0).unwrap_err().code(),
        Code::NotFound
    );
    assert_eq!(commands(&system), before);

    // A call with enough time adds one command and its marker.
    placed.wait = 0;
    system.place(placed.clone()).unwrap();
    system.wait_for_status(&placed.order_id, OrderStatus::Rejected);
    assert!(commands(&system) > before);
}

/// All changes that a watch returns until it ends.
fn watch(system: &System, order_id: &str, after_version: u64) -> Vec<WatchOrderResponse> {
    let request = WatchOrderRequest {
        order_id: order_id.into(),
        after_version,
    };
    let mut client = QueryServiceClient::new(system.channel());
    system.block_on(async {
        let mut changes = client.watch_order(request).await.unwrap().into_inner();
        let mut received = Vec::new();
        while let Some(change) = changes.message().await.unwrap() {
            received.push(change);
        }
        received
    })
}

fn versions(changes: &[WatchOrderResponse]) -> Vec<u64> {
    changes
        .iter()
        .flat_map(|change| &change.events)
        .map(|event| event.metadata.as_ref().unwrap().aggregate_version)
        .collect()
}

fn place_within(
    system: &System,
    order: PlaceOrderRequest,
    timeout: Duration,
) -> Result<PlaceOrderResponse, Box<Status>> {
    let mut request = Request::new(order);
    request.set_timeout(timeout);
    system
        .block_on(OrderServiceClient::new(system.peer(system.public)).place_order(request))
        .map(tonic::Response::into_inner)
        .map_err(Box::new)
}

fn list(system: &System, request: ListOrdersRequest) -> Vec<String> {
    system
        .block_on(QueryServiceClient::new(system.channel()).list_orders(request))
        .unwrap()
        .into_inner()
        .orders
        .into_iter()
        .map(|order| order.order_id)
        .collect()
}

fn url(system: &System, path: &str) -> String {
    format!("http://{}{path}", system.public)
}

/// The output of a finished request.
fn text(request: Child) -> String {
    let output = request.wait_with_output().expect("a child");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Id and data of each event. Comments, which keep the connection alive, are skipped.
fn server_sent_events(text: &str) -> Vec<(String, String)> {
    text.split("\n\n")
        .filter(|event| event.starts_with("id: "))
        .map(|event| {
            let (id, data) = event.split_once('\n').unwrap();
            let field = |line: &str, name: &str| line.strip_prefix(name).unwrap().to_owned();
            (field(id, "id: "), field(data, "data: "))
        })
        .collect()
}

/// The gRPC code of a call whose deadline has passed before it is sent.
async fn place_without_time(
    address: SocketAddr,
    order: &PlaceOrderRequest,
) -> Result<String, h2::Error> {
    let stream = TcpStream::connect(address).await.expect("it listens");
    let (client, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    let method = "ordermesh.orders.v1.OrderService/PlaceOrder";
    let request = http::Request::post(format!("http://{address}/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "0m")
        .body(())
        .expect("it is a request");
    let (answer, mut body) = client.ready().await?.send_request(request, false)?;
    // Not compressed, the length, the message. The answer may have arrived already and the request stream may be
    // closed.
    let message = order.encode_to_vec();
    let length = u32::try_from(message.len()).expect("it is short");
    let framed = [&[0][..], &length.to_be_bytes(), &message].concat();
    let _ = body.send_data(framed.into(), true);
    let answer = answer.await?;
    let code = answer.headers().get("grpc-status").expect("it has a code");
    Ok(code.to_str().expect("it is text").to_owned())
}

/// Number of offsets in the orders' commands.
fn commands(system: &System) -> i64 {
    let topic = Topic::Commands.of(Service::Orders, system.variable("ORDERMESH_PREFIX"));
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers::variable(servers::env::KAFKA))
        .create()
        .expect("a consumer");
    (0..4)
        .map(|partition| {
            let (_, end) = consumer
                .fetch_watermarks(&topic, partition, Duration::from_secs(10))
                .expect("ends");
            end
        })
        .sum()
}
