//! REST calls through the gateway.

use chassis::grpc::Limits;
use contracts::orders::v1::OrderStatus;
use contracts::query::v1::ListOrdersRequest;
use reqwest::{Client, Response};
use serde_json::{Value, json};

use crate::peers::{NEVER, ORDER_ID, TestServer, serve_all, serve_gateway, unused_address};

fn order() -> Value {
    json!({
        "customerId": "c-1",
        "contact": {
            "email": "c@example.org",
            "address": {"name": "C", "street": "S 1", "postalCode": "1", "city": "X", "country": "DE"},
        },
        "lines": [{"sku": "a", "quantity": 2, "unitPrice": "150"}],
        "currency": "EUR",
    })
}

pub async fn get(gateway: &TestServer, path: &str) -> Response {
    Client::new()
        .get(gateway.url(path))
        .send()
        .await
        .expect("it listens")
}

async fn post(
    gateway: &TestServer,
    path: &str,
    key: Option<&str>,
    body: impl Into<reqwest::Body>,
) -> Response {
    let mut request = Client::new().post(gateway.url(path)).body(body);
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    request.send().await.expect("it listens")
}

pub async fn problem(response: Response, status: u16) -> Value {
    assert_eq!(response.status().as_u16(), status);
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    let problem: Value = response.json().await.expect("it is JSON");
    assert_eq!(problem["status"], status);
    problem
}

#[tokio::test]
async fn an_order_is_placed_under_its_idempotency_key() {
    let (gateway, _peers, _) = serve_all().await;
    let response = post(&gateway, "/v1/orders", Some(ORDER_ID), order().to_string()).await;
    assert_eq!(response.status().as_u16(), 201);
    assert_eq!(
        response.headers()["location"],
        format!("/v1/orders/{ORDER_ID}")
    );
    let body: Value = response.json().await.expect("it is JSON");
    assert_eq!(
        body,
        json!({"orderId": ORDER_ID, "status": "ORDER_STATUS_PENDING", "version": "1"})
    );

    let mut durable = order();
    durable["wait"] = json!("PLACE_ORDER_WAIT_DURABLE");
    durable["orderId"] = json!(ORDER_ID);
    let response = post(&gateway, "/v1/orders", Some(ORDER_ID), durable.to_string()).await;
    assert_eq!(response.status().as_u16(), 202);
}

#[tokio::test]
async fn a_key_that_contradicts_the_body_is_refused() {
    let (gateway, _peers, _) = serve_all().await;
    let mut body = order();
    body["orderId"] = json!("01890a5d-ac96-774b-bcce-b302099a8058");
    let problem = problem(
        post(&gateway, "/v1/orders", Some(ORDER_ID), body.to_string()).await,
        400,
    )
    .await;
    assert_eq!(problem["violations"][0]["field"], "order_id");
}

#[tokio::test]
async fn every_violation_of_the_request_is_reported() {
    let (gateway, _peers, _) = serve_all().await;
    let mut body = order();
    body["lines"][0]["quantity"] = json!(0);
    body["currency"] = json!("EURO");
    let problem = problem(
        post(&gateway, "/v1/orders", None, body.to_string()).await,
        400,
    )
    .await;
    assert_eq!(problem["code"], "INVALID_ARGUMENT");
    let fields: Vec<_> = problem["violations"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|v| v["field"].clone())
        .collect();
    assert!(
        fields.contains(&json!("lines[0].quantity")) && fields.contains(&json!("currency")),
        "{fields:?}"
    );
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_refused() {
    let (gateway, _peers, _) = serve_all().await;
    for body in [
        &b"{"[..],
        b"{\"customerId\": \"\xff\"}",
        b"{\"colour\": \"red\"}",
        b"[]",
        b"",
    ] {
        let problem = problem(post(&gateway, "/v1/orders", None, body.to_vec()).await, 400).await;
        assert_eq!(problem["violations"][0]["field"], "body");
    }
}

#[tokio::test]
async fn an_oversized_body_is_refused_with_and_without_content_length() {
    let (gateway, _peers, _) = serve_all().await;
    let large = vec![b' '; 2 * 1024 * 1024];
    let with_length = post(&gateway, "/v1/orders", None, large.clone()).await;
    assert_eq!(
        problem(with_length, 413).await["reason"],
        "REQUEST_TOO_LARGE"
    );

    // Chunked, without a length. Written by hand, because reqwest always sends a length here.
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(gateway.address)
        .await
        .expect("it listens");
    let head = "POST /v1/orders HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("it is read");
    let chunk = format!("{:x}\r\n{}\r\n", 600_000, " ".repeat(600_000));
    for _ in 0..2 {
        // The server may answer and close before it has read everything.
        if stream.write_all(chunk.as_bytes()).await.is_err() {
            break;
        }
    }
    let mut line = [0; 12];
    stream.read_exact(&mut line).await.expect("it answers");
    assert_eq!(String::from_utf8_lossy(&line), "HTTP/1.1 413");
}

#[tokio::test]
async fn rejections_carry_their_reason() {
    let (gateway, _peers, _) = serve_all().await;
    let cancel = json!({"customerId": "c-1"}).to_string();
    let response = post(
        &gateway,
        &format!("/v1/orders/{ORDER_ID}/cancel"),
        None,
        cancel,
    )
    .await;
    let refused = problem(response, 409).await;
    assert_eq!(
        (&refused["code"], &refused["reason"]),
        (&json!("FAILED_PRECONDITION"), &json!("ALREADY_FINAL"))
    );

    let mut body = order();
    body["customerId"] = json!("other-body");
    let refused = problem(
        post(&gateway, "/v1/orders", Some(ORDER_ID), body.to_string()).await,
        409,
    )
    .await;
    assert_eq!(
        (&refused["code"], &refused["reason"]),
        (&json!("ALREADY_EXISTS"), &json!("ID_REUSED"))
    );
}

#[tokio::test]
async fn orders_and_stock_are_read() {
    let (gateway, _peers, _) = serve_all().await;
    let response = get(&gateway, &format!("/v1/orders/{ORDER_ID}?min_version=5")).await;
    assert_eq!(response.headers()["content-type"], "application/json");
    let body: Value = response.json().await.expect("it is JSON");
    assert_eq!(body["order"]["version"], "5");
    assert_eq!(body["order"]["status"], "ORDER_STATUS_CONFIRMED");

    let history: Value = get(&gateway, &format!("/v1/orders/{ORDER_ID}/history"))
        .await
        .json()
        .await
        .expect("JSON");
    assert_eq!(history, json!({"events": []}));
    let stock: Value = get(&gateway, "/v1/stock/caf%C3%A9%20%2F1")
        .await
        .json()
        .await
        .expect("it is JSON");
    assert_eq!(
        (&stock["sku"], &stock["onHand"]),
        (&json!("café /1"), &json!("7"))
    );
    let missing = problem(get(&gateway, "/v1/orders/unknown").await, 404).await;
    assert_eq!(
        (&missing["code"], &missing["detail"]),
        (&json!("NOT_FOUND"), &json!("order not found"))
    );
}

#[tokio::test]
async fn orders_are_listed_by_status_in_pages() {
    let (gateway, _peers, observed) = serve_all().await;
    let path = "/v1/orders?status=confirmed,SHIPPED&status=ORDER_STATUS_PENDING&customer_id=c&page_size=7&page_token=t\
                &placed_from=2026-11-24T08:00:00Z&placed_before=2026-11-24T10:00:00.5%2B01:00";
    assert_eq!(get(&gateway, path).await.status().as_u16(), 200);
    let expected = ListOrdersRequest {
        statuses: [
            OrderStatus::Confirmed,
            OrderStatus::Shipped,
            OrderStatus::Pending,
        ]
        .map(i32::from)
        .to_vec(),
        customer_id: "c".into(),
        page_size: 7,
        page_token: "t".into(),
        placed_from: Some(prost_types::Timestamp {
            seconds: 1_795_507_200,
            nanos: 0,
        }),
        placed_before: Some(prost_types::Timestamp {
            seconds: 1_795_510_800,
            nanos: 500_000_000,
        }),
    };
    assert_eq!(observed.list.lock().take(), Some(expected));

    let refused = problem(
        get(
            &gateway,
            "/v1/orders?status=lost&placed_from=yesterday&page_size=x&page=2",
        )
        .await,
        400,
    )
    .await;
    let fields: Vec<_> = refused["violations"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|v| v["field"].clone())
        .collect();
    assert_eq!(fields, ["status", "page_size", "placed_from", "page"]);
}

#[tokio::test]
async fn errors_of_the_router_are_problem_details() {
    let (gateway, _peers, _) = serve_all().await;
    problem(get(&gateway, "/v2/orders").await, 404).await;
    problem(get(&gateway, "/v1/orders/%FF").await, 400).await;
    let response = Client::new()
        .delete(gateway.url("/v1/orders"))
        .send()
        .await
        .expect("it listens");
    assert_eq!(response.headers()["allow"], "POST,GET,HEAD");
    problem(response, 405).await;
    let response = post(
        &gateway,
        "/ordermesh.orders.v1.OrderService/PlaceOrder",
        None,
        "{}",
    )
    .await;
    problem(response, 415).await;
}

#[tokio::test]
async fn a_timeout_and_an_unavailable_service_have_their_own_status() {
    let (gateway, _peers, _) = serve_all().await;
    let request = Client::new()
        .get(gateway.url(&format!("/v1/orders/{NEVER}")))
        .header("grpc-timeout", "100m");
    let response = request.send().await.expect("it listens");
    assert_eq!(problem(response, 504).await["code"], "DEADLINE_EXCEEDED");

    let gateway = serve_gateway(unused_address().await, Limits::default()).await;
    let response = get(&gateway, "/v1/stock/a").await;
    assert_eq!(response.headers()["retry-after"], "1");
    let unavailable = problem(response, 503).await;
    assert_eq!(unavailable["detail"], "query is unavailable");
}
