//! Orders that are watched over REST.

use contracts::query::v1::WatchOrderRequest;
use reqwest::Client;
use serde_json::{Value, json};

use crate::peers::{
    BREAKS, NEVER, ORDER_ID, OVER, Running, Seen, nobody, serve_all, serve_gateway,
};
use crate::rest::{get, problem};

/// The fields of one event.
type Event = Vec<(String, String)>;

/// Events until the answer ends.
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

fn watched(seen: &Seen) -> WatchOrderRequest {
    let mut watch = seen.watch.lock().expect("no test panics in there");
    watch.take().expect("it came through")
}

async fn come_back(gateway: &Running, path: &str, last_event_id: &str) -> reqwest::Response {
    Client::new()
        .get(gateway.url(path))
        .header("Last-Event-ID", last_event_id)
        .send()
        .await
        .expect("it listens")
}

#[tokio::test]
async fn changes_are_events_until_the_order_is_final() {
    let (gateway, _peers, seen) = serve_all().await;
    let answer = get(
        &gateway,
        &format!("/v1/orders/{ORDER_ID}/watch?after_version=4"),
    )
    .await;
    assert_eq!(answer.status().as_u16(), 200);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let text = answer.text().await.expect("it ends");
    let told = events(&text);
    assert_eq!(told.len(), 2, "{text}");
    for (event, (version, status)) in told.iter().zip([
        ("5", "ORDER_STATUS_CONFIRMED"),
        ("6", "ORDER_STATUS_DELIVERED"),
    ]) {
        let [(id, its_version), (data, json)] = event.as_slice() else {
            panic!("another form: {event:?}");
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
    assert_eq!(watched(&seen), expected);
}

#[tokio::test]
async fn who_comes_back_goes_on_after_the_last_event() {
    let (gateway, _peers, seen) = serve_all().await;
    let path = format!("/v1/orders/{ORDER_ID}/watch?after_version=4");
    let answer = come_back(&gateway, &path, "7").await;
    let text = answer.text().await.expect("it ends");
    assert!(text.starts_with("id: 8\n"), "{text}");
    assert_eq!(watched(&seen).after_version, 7);

    let refused = problem(come_back(&gateway, &path, "seven").await, 400).await;
    assert_eq!(refused["violations"][0]["field"], "last-event-id");
    // Nothing will follow: a browser does not come back after this.
    let over = get(&gateway, &format!("/v1/orders/{OVER}/watch")).await;
    assert_eq!(over.status().as_u16(), 204);
}

#[tokio::test]
async fn what_goes_wrong_before_the_first_event_is_a_problem() {
    let (gateway, _peers, _) = serve_all().await;
    let missing = problem(get(&gateway, "/v1/orders/unknown/watch").await, 404).await;
    assert_eq!(missing["code"], "NOT_FOUND");
    let path = format!("/v1/orders/{ORDER_ID}/watch?after_version=x&from=y");
    let refused = problem(get(&gateway, &path).await, 400).await;
    assert_eq!(refused["violations"][0]["field"], "after_version");
    assert_eq!(refused["violations"][1]["field"], "from");

    let gateway = serve_gateway(nobody().await, Default::default()).await;
    let path = format!("/v1/orders/{ORDER_ID}/watch");
    problem(get(&gateway, &path).await, 503).await;
}

#[tokio::test]
async fn what_goes_wrong_later_is_the_last_event() {
    let (gateway, _peers, _) = serve_all().await;
    let answer = get(&gateway, &format!("/v1/orders/{BREAKS}/watch")).await;
    let text = answer.text().await.expect("it ends");
    let told = events(&text);
    let [first, last] = told.as_slice() else {
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
async fn a_reader_that_leaves_and_a_gateway_that_ends_free_the_watch() {
    let (gateway, _peers, seen) = serve_all().await;
    let path = format!("/v1/orders/{NEVER}/watch");
    let mut answer = get(&gateway, &path).await;
    let first = answer.chunk().await.expect("it comes");
    assert!(first.is_some_and(|chunk| chunk.starts_with(b"id: 1\n")));
    drop(answer);
    seen.dropped.notified().await;

    let mut answer = get(&gateway, &path).await;
    assert!(answer.chunk().await.expect("it comes").is_some());
    let ((), end) = tokio::join!(gateway.stop(), answer.chunk());
    assert_eq!(end.expect("it ends in good order"), None);
    seen.dropped.notified().await;
}
