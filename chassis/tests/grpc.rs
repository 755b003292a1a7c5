//! The server and client stacks against each other, on loopback ports chosen by the system.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use chassis::Process;
use chassis::error::{self, RETRY_AFTER};
use chassis::grpc::{Limits, Peer, Server, server};
use contracts::sandbox::v1::sandbox_service_client::SandboxServiceClient;
use contracts::sandbox::v1::sandbox_service_server::{SandboxService, SandboxServiceServer};
use contracts::sandbox::v1::{
    LedgerBooking, LedgerPayment, ListBookingsRequest, ListPaymentsRequest, SetBehaviourRequest,
    SetBehaviourResponse,
};
use http::uri::Authority;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Request, Response, Status};

/// How long a test waits for what is about to happen.
const SOON: Duration = Duration::from_secs(10);

type Entries<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// SetBehaviour is unavailable the first `failures` times; ListPayments sends one entry and then waits for ever.
#[derive(Clone, Default)]
struct Fake {
    failures: u32,
    calls: Arc<AtomicU32>,
}

#[tonic::async_trait]
impl SandboxService for Fake {
    type ListPaymentsStream = Entries<LedgerPayment>;
    type ListBookingsStream = Entries<LedgerBooking>;

    async fn list_payments(
        &self,
        _request: Request<ListPaymentsRequest>,
    ) -> Result<Response<Self::ListPaymentsStream>, Status> {
        let one = tokio_stream::once(Ok(LedgerPayment::default()));
        Ok(Response::new(Box::pin(one.chain(tokio_stream::pending()))))
    }

    async fn list_bookings(
        &self,
        _request: Request<ListBookingsRequest>,
    ) -> Result<Response<Self::ListBookingsStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::empty())))
    }

    async fn set_behaviour(
        &self,
        _request: Request<SetBehaviourRequest>,
    ) -> Result<Response<SetBehaviourResponse>, Status> {
        if self.calls.fetch_add(1, Ordering::Relaxed) < self.failures {
            return Err(error::unavailable("the ledger", RETRY_AFTER));
        }
        Ok(Response::new(SetBehaviourResponse {}))
    }
}

fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

async fn serve(fake: &Fake) -> (Authority, Process) {
    let process = Process::new();
    let server = Server::bind("sandbox", any_port())
        .await
        .expect("some port is free");
    let address = authority(server.local_addr());
    server
        .add_service(SandboxServiceServer::new(fake.clone()))
        .serve(&process)
        .expect("the process is new");
    (address, process)
}

fn authority(address: SocketAddr) -> Authority {
    address
        .to_string()
        .parse()
        .expect("a socket address is an authority")
}

/// Nobody listens there: the port was free a moment ago.
async fn nobody() -> Authority {
    authority(
        Server::bind("nobody", any_port())
            .await
            .expect("some port is free")
            .local_addr(),
    )
}

async fn set_behaviour(peer: Peer) -> Result<(), Status> {
    SandboxServiceClient::new(peer)
        .set_behaviour(SetBehaviourRequest::default())
        .await
        .map(drop)
}

#[tokio::test]
async fn a_call_that_may_be_repeated_is_repeated_once() {
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
async fn another_call_is_not() {
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
async fn retries_end_with_their_budget() {
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
async fn a_replica_that_is_down_costs_no_call() {
    let fake = Fake::default();
    let (address, _process) = serve(&fake).await;
    let peer = Peer::connect_lazy("sandbox", &[nobody().await, address]);
    for _ in 0..50 {
        set_behaviour(peer.clone())
            .await
            .expect("one replica is there");
    }
    assert_eq!(fake.calls.load(Ordering::Relaxed), 50);
}

#[tokio::test]
async fn nobody_there_is_unavailable() {
    let status = set_behaviour(Peer::connect_lazy("sandbox", &[nobody().await]))
        .await
        .expect_err("nobody is there");
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
    let end = tokio::time::timeout(SOON, entries.next())
        .await
        .expect("it ends in time");
    let status = end.expect("it says why").expect_err("it is no entry");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(entries.next().await.is_none());
}

#[tokio::test]
async fn a_stream_keeps_its_place_until_it_ends() {
    let process = Process::new();
    let limits = Limits {
        in_flight: 1,
        ..Limits::default()
    };
    let server = Server::bind("sandbox", any_port())
        .await
        .expect("some port is free");
    let peer = Peer::connect_lazy("sandbox", &[authority(server.local_addr())]);
    let service = SandboxServiceServer::new(Fake::default());
    server
        .with_limits(limits)
        .add_service(service)
        .serve(&process)
        .expect("the process is new");

    let mut client = SandboxServiceClient::new(peer.clone());
    let entries = client
        .list_payments(ListPaymentsRequest {})
        .await
        .expect("the place is free");
    let status = set_behaviour(peer.clone())
        .await
        .expect_err("the place is taken");
    assert_eq!(status.code(), Code::ResourceExhausted);

    drop(entries);
    let free_again = async {
        while set_behaviour(peer.clone()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, free_again)
        .await
        .expect("the place is free again");
}

#[tokio::test]
async fn a_timeout_that_cannot_be_read_is_refused() {
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
            .expect_err("it is no time")
            .code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn what_keeps_a_server_from_starting_is_named() {
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
