//! Calls: retries, deadlines, limits.

use std::sync::atomic::Ordering;
use std::time::Duration;

use chassis::Process;
use chassis::grpc::{Limits, Peer, Server, server};
use contracts::sandbox::v1::sandbox_service_client::SandboxServiceClient;
use contracts::sandbox::v1::{ListBookingsRequest, ListPaymentsRequest, SetBehaviourRequest};
use tokio_stream::StreamExt as _;
use tonic::{Code, Request};

use crate::fake::{
    Fake, TIMEOUT, any_port, serve, serve_with, set_behaviour, unused_address, wait_until,
};

#[tokio::test]
async fn an_idempotent_call_is_retried_once() {
    for (failures, calls, succeeds) in [(0, 1, true), (1, 2, true), (2, 2, false)] {
        let fake = Fake {
            failures,
            ..Fake::default()
        };
        let (address, _process) = serve(&fake).await;
        let outcome = set_behaviour(Peer::connect_lazy("sandbox", &[address]).retrying()).await;
        assert_eq!(
            outcome.is_ok(),
            succeeds,
            "{failures} failures: {outcome:?}"
        );
        assert_eq!(
            fake.calls.load(Ordering::Relaxed),
            calls,
            "{failures} failures"
        );
    }
}

#[tokio::test]
async fn a_call_that_is_not_idempotent_is_not_retried() {
    let fake = Fake {
        failures: 1,
        ..Fake::default()
    };
    let (address, _process) = serve(&fake).await;
    let status = set_behaviour(Peer::connect_lazy("sandbox", &[address]))
        .await
        .expect_err("the first call fails");
    assert_eq!(status.message(), "the ledger is unavailable");
    assert_eq!(fake.calls.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn retries_stay_within_their_budget() {
    let fake = Fake {
        failures: u32::MAX,
        ..Fake::default()
    };
    let (address, _process) = serve(&fake).await;
    let peer = Peer::connect_lazy("sandbox", &[address]).retrying();
    const CALLS: u32 = 1000;
    for _ in 0..CALLS {
        let status = set_behaviour(peer.clone())
            .await
            .expect_err("every call fails");
        assert_eq!(status.code(), Code::Unavailable);
    }
    let retries = fake.calls.load(Ordering::Relaxed) - CALLS;
    assert!((1..CALLS / 2).contains(&retries), "{retries} retries");
}

#[tokio::test]
async fn a_replica_that_is_down_fails_no_call() {
    let fake = Fake::default();
    let (address, _process) = serve(&fake).await;
    let peer = Peer::connect_lazy("sandbox", &[unused_address().await, address]);
    for _ in 0..50 {
        set_behaviour(peer.clone())
            .await
            .expect("one replica is there");
    }
    assert_eq!(fake.calls.load(Ordering::Relaxed), 50);
}

#[tokio::test]
async fn a_peer_without_a_server_is_unavailable() {
    let status = set_behaviour(Peer::connect_lazy("sandbox", &[unused_address().await]))
        .await
        .expect_err("no server listens");
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "sandbox is unavailable")
    );
}

#[tokio::test]
async fn a_stream_ends_with_its_deadline() {
    let (address, _process) = serve(&Fake::default()).await;
    let mut client = SandboxServiceClient::new(Peer::connect_lazy("sandbox", &[address]));
    let mut request = Request::new(ListPaymentsRequest {});
    request.set_timeout(Duration::from_millis(200));
    let mut entries = client
        .list_payments(request)
        .await
        .expect("it begins in time")
        .into_inner();
    assert!(entries.next().await.expect("there is one entry").is_ok());
    let end = tokio::time::timeout(TIMEOUT, entries.next())
        .await
        .expect("it ends in time");
    let status = end.expect("it says why").expect_err("it is no entry");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(entries.next().await.is_none());
}

#[tokio::test]
async fn a_stream_without_a_deadline_outlasts_the_default() {
    let fake = Fake::default();
    let limits = Limits {
        default_deadline: Duration::from_millis(100),
        ..Limits::default()
    };
    let (address, _process) = serve_with(&fake, limits).await;
    let mut client = SandboxServiceClient::new(Peer::connect_lazy("sandbox", &[address]));
    let mut entries = client
        .list_payments(ListPaymentsRequest {})
        .await
        .expect("it begins")
        .into_inner();
    assert!(entries.next().await.expect("there is one entry").is_ok());
    // A later call that ends by the default deadline shows that this time has passed.
    let status = client
        .list_bookings(ListBookingsRequest {})
        .await
        .expect_err("it never answers");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    fake.more.notify_one();
    let entry = tokio::time::timeout(TIMEOUT, entries.next())
        .await
        .expect("it comes");
    assert!(entry.expect("there is another entry").is_ok());
}

#[test]
fn a_broken_stream_ends_unavailable() {
    // A runtime that is dropped closes its sockets, as a process that is killed does.
    let server_runtime = tokio::runtime::Runtime::new().expect("there are threads left");
    let (address, _process) = server_runtime.block_on(serve(&Fake::default()));
    let client_runtime = tokio::runtime::Runtime::new().expect("there are threads left");
    let mut entries = client_runtime.block_on(async {
        SandboxServiceClient::new(Peer::connect_lazy("sandbox", &[address]))
            .list_payments(ListPaymentsRequest {})
            .await
            .expect("it begins")
            .into_inner()
    });
    let first = client_runtime.block_on(entries.next());
    assert!(first.expect("there is one entry").is_ok());
    server_runtime.shutdown_background();
    let end = client_runtime.block_on(async {
        tokio::time::timeout(TIMEOUT, entries.next())
            .await
            .expect("it ends")
    });
    let status = end.expect("it says why").expect_err("it is no entry");
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "sandbox is unavailable")
    );
}

#[tokio::test]
async fn a_stream_holds_its_permit_until_it_ends() {
    let limits = Limits {
        in_flight: 1,
        ..Limits::default()
    };
    let (address, _process) = serve_with(&Fake::default(), limits).await;
    let peer = Peer::connect_lazy("sandbox", &[address]);
    let mut client = SandboxServiceClient::new(peer.clone());
    let entries = client
        .list_payments(ListPaymentsRequest {})
        .await
        .expect("the permit is free");
    let status = set_behaviour(peer.clone())
        .await
        .expect_err("the permit is taken");
    assert_eq!(status.code(), Code::ResourceExhausted);

    drop(entries);
    wait_until(async || set_behaviour(peer.clone()).await.is_ok()).await;
}

#[tokio::test]
async fn a_malformed_timeout_is_rejected() {
    let (address, _process) = serve(&Fake::default()).await;
    let channel =
        tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("it is a URL");
    let mut client = SandboxServiceClient::new(channel.connect().await.expect("it listens"));
    let mut request = Request::new(SetBehaviourRequest::default());
    request.metadata_mut().insert(
        "grpc-timeout",
        "soon".parse().expect("it is valid metadata"),
    );
    assert_eq!(
        client
            .set_behaviour(request)
            .await
            .expect_err("it is no timeout")
            .code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn start_up_errors_name_the_server() {
    let process = Process::new();
    let first = Server::bind("sandbox", any_port())
        .await
        .expect("some port is free");
    let error = Server::bind("twin", first.local_addr())
        .await
        .expect_err("the port is taken");
    assert!(
        matches!(&error, server::Error::Bind { server: "twin", .. }),
        "{error:?}"
    );
    assert!(
        error.to_string().contains(&first.local_addr().to_string()),
        "{error}"
    );

    first.serve(&process).expect("the process is new");
    let second = Server::bind("sandbox", any_port())
        .await
        .expect("some port is free");
    let error = second.serve(&process).expect_err("the name is taken");
    assert!(
        matches!(
            error,
            server::Error::Metrics {
                server: "sandbox",
                ..
            }
        ),
        "{error:?}"
    );
}
