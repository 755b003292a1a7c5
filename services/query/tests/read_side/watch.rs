//! `WatchOrder`.

use std::process::ExitCode;
use std::time::Duration;

use chassis::Process;
use chassis::grpc::{Peer, Server};
use contracts::Orders;
use contracts::orders::v1::OrderStatus;
use contracts::query::v1::query_service_client::QueryServiceClient;
use contracts::query::v1::{GetOrderRequest, WatchOrderRequest, WatchOrderResponse};
use tonic::{Code, Request, Status, Streaming};

use crate::events::{self, event_records, new_id};
use crate::fixture::{ReadSideFixture, RunningReadSide, eventually};

const SERVICE: &str = "ordermesh.query.v1.QueryService";

fn request(order_id: &str, after_version: u64) -> WatchOrderRequest {
    WatchOrderRequest {
        order_id: order_id.into(),
        after_version,
    }
}

async fn watch(
    running: &RunningReadSide,
    order_id: &str,
    after_version: u64,
) -> Result<Streaming<WatchOrderResponse>, Status> {
    let mut client = running.client.clone();
    let changes = client.watch_order(request(order_id, after_version)).await?;
    Ok(changes.into_inner())
}

/// The versions of the events in a change, which belong to its order and end with its version.
fn versions(change: &WatchOrderResponse) -> Vec<u64> {
    let order = change.order.as_ref().unwrap();
    assert_eq!(order.lines, []);
    let versions: Vec<_> = change
        .events
        .iter()
        .map(|event| event.metadata.as_ref().unwrap())
        .inspect(|metadata| assert_eq!(metadata.aggregate_id, order.order_id))
        .map(|metadata| metadata.aggregate_version)
        .collect();
    assert_eq!(versions.last(), Some(&order.version));
    versions
}

/// The versions of all changes until the stream ends.
async fn rest(changes: &mut Streaming<WatchOrderResponse>) -> Vec<Vec<u64>> {
    let mut rest = Vec::new();
    while let Some(change) = changes.message().await.unwrap() {
        rest.push(versions(&change));
    }
    rest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_streams_every_version_from_creation_to_the_final_status() {
    let fixture = ReadSideFixture::new(1).await;
    let running = fixture.start();
    running.wait_until_ready().await;
    // The projector of this one owns no partition: its watchers find changes by polling.
    let other = fixture.start();
    other.wait_until_ready().await;
    let id = new_id();
    let mut watchers = Vec::new();
    for running in [&running, &other] {
        let mut client = running.client.clone();
        let request = request(&id, 0);
        watchers.push(tokio::spawn(async move {
            // Starts before the order is in the read model.
            let mut changes = client.watch_order(request).await.unwrap().into_inner();
            let mut received = Vec::new();
            let mut last = None;
            while let Some(change) = changes.message().await.unwrap() {
                received.extend(versions(&change));
                last = change.order;
            }
            (received, last.unwrap().status())
        }));
    }
    let mut version = 0;
    for batch in events::order("anne", 3).chunks(3) {
        fixture.commit(&event_records::<Orders>(
            &id,
            version + 1,
            batch.iter().cloned(),
        ));
        fixture.wait_until_applied().await;
        version += batch.len() as u64;
    }
    for watcher in watchers {
        let (received, status) = watcher.await.unwrap();
        assert_eq!(received, (1..=version).collect::<Vec<_>>());
        assert_eq!(status, OrderStatus::Delivered);
    }
    other.stop();
    running.stop();
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_is_resumed_where_it_ended() {
    let fixture = ReadSideFixture::new(1).await;
    let running = fixture.start();
    let (done, going) = (new_id(), new_id());
    let all = events::order("anne", 3);
    let last = all.len() as u64;
    fixture.commit(&event_records::<Orders>(&done, 1, all.clone()));
    fixture.commit(&event_records::<Orders>(&going, 1, all[..2].to_vec()));
    fixture.wait_until_applied().await;

    let mut changes = watch(&running, &done, 0).await.unwrap();
    assert_eq!(rest(&mut changes).await, [(1..=last).collect::<Vec<_>>()]);
    let mut changes = watch(&running, &done, 5).await.unwrap();
    assert_eq!(rest(&mut changes).await, [(6..=last).collect::<Vec<_>>()]);
    // The order is final at or before the version that the client has: no change follows.
    for seen in [last, last + 1] {
        let mut changes = watch(&running, &done, seen).await.unwrap();
        assert_eq!(rest(&mut changes).await, Vec::<Vec<u64>>::new());
    }

    // A client that has a newer version than the read model waits for the next one.
    let mut ahead = watch(&running, &going, 3).await.unwrap();
    fixture.commit(&event_records::<Orders>(&going, 3, all[2..3].to_vec()));
    fixture.wait_until_applied().await;
    fixture.commit(&event_records::<Orders>(&going, 4, all[3..4].to_vec()));
    let change = ahead.message().await.unwrap().unwrap();
    assert_eq!(versions(&change), [4]);
    running.stop();
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_gets_all_missed_versions_in_one_change() {
    let fixture = ReadSideFixture::new(1).await;
    let running = fixture.start();
    let id = new_id();
    let all = events::order("anne", 3);
    fixture.commit(&event_records::<Orders>(&id, 1, all[..1].to_vec()));
    fixture.wait_until_applied().await;
    let mut changes = watch(&running, &id, 0).await.unwrap();
    assert_eq!(
        versions(&changes.message().await.unwrap().unwrap()),
        [1],
        "the first change"
    );
    for (version, event) in (2..).zip(&all[1..]) {
        fixture.commit(&event_records::<Orders>(&id, version, [event.clone()]));
        fixture.wait_until_applied().await;
    }
    let missed: Vec<_> = (2..=all.len() as u64).collect();
    assert_eq!(rest(&mut changes).await, [missed]);
    running.stop();
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_and_unknown_orders_are_refused() {
    let fixture = ReadSideFixture::new(1).await;
    let running = fixture.start();
    running.wait_until_ready().await;
    for (order_id, after_version, code) in [
        (new_id().as_str(), 0, Code::NotFound),
        ("order 1", 0, Code::InvalidArgument),
        (new_id().as_str(), u64::MAX, Code::InvalidArgument),
    ] {
        let status = watch(&running, order_id, after_version).await.unwrap_err();
        assert_eq!(status.code(), code, "{order_id} {after_version}");
    }
    running.stop();
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_are_bounded_do_not_block_reads_and_release_their_permit() {
    let fixture = ReadSideFixture::new(1).await;
    let running = fixture.start();
    let id = new_id();
    fixture.commit(&event_records::<Orders>(
        &id,
        1,
        events::order("anne", 1)[..1].to_vec(),
    ));
    fixture.wait_until_applied().await;
    let mut watching = Vec::new();
    let refused = loop {
        match watch(&running, &id, 1).await {
            Ok(mut changes) => watching.push(tokio::spawn(async move { changes.message().await })),
            Err(refused) => break refused,
        }
        assert!(watching.len() < 10_000, "there is no bound");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(watching.len() >= 1_000, "{} watchers", watching.len());

    let mut client = running.client.clone();
    let get = GetOrderRequest {
        order_id: id.clone(),
        ..Default::default()
    };
    for _ in 0..100 {
        assert!(client.get_order(get.clone()).await.is_ok());
    }
    let gone = watching.pop().unwrap();
    gone.abort();
    eventually("a permit is free", async || {
        watch(&running, &id, 1).await.is_ok()
    })
    .await;

    fixture.commit(&event_records::<Orders>(&id, 2, [events::confirmed()]));
    for watcher in watching {
        let change = watcher.await.unwrap().unwrap().unwrap();
        assert_eq!(versions(&change), [2]);
    }
    running.stop();
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_at_its_deadline_and_when_its_server_stops() {
    let fixture = ReadSideFixture::new(1).await;
    let running = fixture.start();
    let id = new_id();
    fixture.commit(&event_records::<Orders>(
        &id,
        1,
        events::order("anne", 1)[..1].to_vec(),
    ));
    fixture.wait_until_applied().await;
    let process = Process::new();
    let server = Server::bind("query", ([127, 0, 0, 1], 0).into())
        .await
        .unwrap();
    let address = server.local_addr().to_string().parse().unwrap();
    let routes = running.routes.clone().into_axum_router().reset_fallback();
    server.add_routes(SERVICE, routes).serve(&process).unwrap();
    let mut client = QueryServiceClient::new(Peer::connect_lazy("query", &[address]));

    let mut bounded = Request::new(request(&id, 1));
    bounded.set_timeout(Duration::from_millis(200));
    let mut changes = client.watch_order(bounded).await.unwrap().into_inner();
    let end = changes.message().await.unwrap_err();
    assert_eq!(end.code(), Code::DeadlineExceeded);

    let mut changes = client
        .watch_order(request(&id, 0))
        .await
        .unwrap()
        .into_inner();
    assert!(changes.message().await.unwrap().is_some());
    let (code, end) = tokio::join!(process.stop(Duration::from_secs(10)), changes.message());
    assert_eq!(code, ExitCode::SUCCESS);
    assert_eq!(end.unwrap_err().code(), Code::Unavailable);
    running.stop();
    fixture.close().await;
}
