//! Watching orders over REST.

use contracts::query::v1::WatchOrderRequest;
use reqwest::Client;
use serde_json::{Value, json};

use crate::peers::{
    BREAKS, NEVER, NO_CHANGES, ORDER_ID, Observed, TestServer, serve_all, serve_gateway,
    unused_address,
};
use crate::rest::{get, problem};

/// The fields of one event.
type Event = Vec<(String, String)>;

/// Parses the events of a complete response.
fn events(text: &str) -> Vec<Event> {
    let field = |line: &str| {
        let (name, value) = line.split_once(": ").expect("a field");
        (name.to_owned(), value.to_owned())
    };
    text.split("\n\n")
        .filter(|event| !event.is_empty())
        .map(|event| event.lines().map(field).collect())
        .collect()
}

fn last_watch(observed: &Observed) -> WatchOrderRequest {
    let mut watch = observed.watch.lock();
    watch.take().expect("the watch reached the service")
}

async fn reconnect(gateway: &TestServer, path: &str, last_event_id: &str) -> reqwest::Response {
    Client::new()
        .get(gateway.url(path))
        .header("Last-Event-ID", last_event_id)
        .send()
        .await
        .expect("it listens")
}

#[tokio::test]
async fn changes_are_events_until_the_order_is_final() {
    let (gateway, _peers, observed) = serve_all().await;
    let response = get(
        &gateway,
        &format!("/v1/orders/{ORDER_ID}/watch?after_version=4"),
    )
    .await;
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.text().await.expect("it ends");
    let events_received = events(&text);
    assert_eq!(events_received.len(), 2, "{text}");
    for (event, (version, status)) in events_received.iter().zip([
        ("5", "ORDER_STATUS_CONFIRMED"),
        ("6", "ORDER_STATUS_DELIVERED"),
    ]) {
        let [(id, its_version), (data, json)] = event.as_slice() else {
            panic!("unexpected fields: {event:?}");
        };
        assert_eq!((id.as_str(), its_version.as_str()), ("id", version));
        assert_eq!(data, "data");
        let change: Value = serde_json::from_str(json).expect("it is JSON");
        assert_eq!(change["order"]["version"], version);
        assert_eq!(change["order"]["status"], status);
        assert_eq!(change["events"], json!([]));
    }
    let expected = WatchOrderRequest {
        order_id: ORDER_ID.into(),
        after_version: 4,
    };
    assert_eq!(last_watch(&observed), expected);
}

#[tokio::test]
async fn a_reconnect_continues_after_the_last_event() {
    let (gateway, _peers, observed) = serve_all().await;
    let path = format!("/v1/orders/{ORDER_ID}/watch?after_version=4");
    let response = reconnect(&gateway, &path, "7").await;
    let text = response.text().await.expect("it ends");
    assert!(text.starts_with("id: 8\n"), "{text}");
    assert_eq!(last_watch(&observed).after_version, 7);

    let refused = problem(reconnect(&gateway, &path, "seven").await, 400).await;
    assert_eq!(refused["violations"][0]["field"], "last-event-id");
    // No change will follow: after this status a browser does not reconnect.
    let no_changes = get(&gateway, &format!("/v1/orders/{NO_CHANGES}/watch")).await;
    assert_eq!(no_changes.status().as_u16(), 204);
}

#[tokio::test]
async fn an_error_before_the_first_event_is_a_problem_response() {
    let (gateway, _peers, _) = serve_all().await;
    let missing = problem(get(&gateway, "/v1/orders/unknown/watch").await, 404).await;
    assert_eq!(missing["code"], "NOT_FOUND");
    let path = format!("/v1/orders/{ORDER_ID}/watch?after_version=x&from=y");
    let refused = problem(get(&gateway, &path).await, 400).await;
    assert_eq!(refused["violations"][0]["field"], "after_version");
    assert_eq!(refused["violations"][1]["field"], "from");

    let gateway = serve_gateway(unused_address().await, Default::default()).await;
    let path = format!("/v1/orders/{ORDER_ID}/watch");
    problem(get(&gateway, &path).await, 503).await;
}

#[tokio::test]
async fn a_later_error_is_the_last_event() {
    let (gateway, _peers, _) = serve_all().await;
    let response = get(&gateway, &format!("/v1/orders/{BREAKS}/watch")).await;
    let text = response.text().await.expect("it ends");
    let events_received = events(&text);
    let [first, last] = events_received.as_slice() else {
        panic!("not two events: {text}");
    };
    assert_eq!(first[0], ("id".to_owned(), "1".to_owned()));
    assert_eq!(last[0], ("event".to_owned(), "problem".to_owned()));
    let problem: Value = serde_json::from_str(&last[1].1).expect("it is JSON");
    assert_eq!(
        (&problem["status"], &problem["code"]),
        (&json!(503), &json!("UNAVAILABLE"))
    );
}

#[tokio::test]
async fn the_watch_ends_with_its_client_and_with_the_gateway() {
    let (gateway, _peers, observed) = serve_all().await;
    let path = format!("/v1/orders/{NEVER}/watch");
    let mut response = get(&gateway, &path).await;
    let first = response.chunk().await.expect("the stream is open");
    assert!(first.is_some_and(|chunk| chunk.starts_with(b"id: 1\n")));
    drop(response);
    observed.dropped.notified().await;

    let mut response = get(&gateway, &path).await;
    assert!(
        response
            .chunk()
            .await
            .expect("the stream is open")
            .is_some()
    );
    let ((), end) = tokio::join!(gateway.stop(), response.chunk());
    assert_eq!(end.expect("the stream ends without an error"), None);
    observed.dropped.notified().await;
}
