//! A fake sandbox service, and helpers to serve and call it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use chassis::Process;
use chassis::error::{self, RETRY_AFTER};
use chassis::grpc::{Limits, Peer, Server};
use contracts::sandbox::v1::sandbox_service_client::SandboxServiceClient;
use contracts::sandbox::v1::sandbox_service_server::{SandboxService, SandboxServiceServer};
use contracts::sandbox::v1::{
    GetBehaviourRequest, GetBehaviourResponse, LedgerBooking, LedgerPayment, ListBookingsRequest,
    ListPaymentsRequest, SetBehaviourRequest, SetBehaviourResponse,
};
use http::uri::Authority;
use tokio::sync::Notify;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

/// Limit on the wait for an expected state.
pub const TIMEOUT: Duration = Duration::from_secs(10);

type Entries<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// SetBehaviour fails as UNAVAILABLE the first `failures` times; ListPayments sends one entry, and another after
/// `more`; ListBookings never answers.
#[derive(Clone, Default)]
pub struct Fake {
    pub failures: u32,
    /// Calls of SetBehaviour.
    pub calls: Arc<AtomicU32>,
    /// ListBookings has begun.
    pub begun: Arc<Notify>,
    pub more: Arc<Notify>,
}

#[tonic::async_trait]
impl SandboxService for Fake {
    type ListPaymentsStream = Entries<LedgerPayment>;
    type ListBookingsStream = Entries<LedgerBooking>;

    async fn list_payments(
        &self,
        _request: Request<ListPaymentsRequest>,
    ) -> Result<Response<Self::ListPaymentsStream>, Status> {
        let entry = || Ok(LedgerPayment::default());
        let more = Arc::clone(&self.more);
        let (sender, later) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            more.notified().await;
            let _ = sender.send(entry()).await;
        });
        let later = tokio_stream::wrappers::ReceiverStream::new(later);
        let entries = tokio_stream::once(entry()).chain(later);
        Ok(Response::new(Box::pin(entries)))
    }

    async fn list_bookings(
        &self,
        _request: Request<ListBookingsRequest>,
    ) -> Result<Response<Self::ListBookingsStream>, Status> {
        self.begun.notify_one();
        std::future::pending().await
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

    async fn get_behaviour(
        &self,
        _request: Request<GetBehaviourRequest>,
    ) -> Result<Response<GetBehaviourResponse>, Status> {
        Ok(Response::new(GetBehaviourResponse::default()))
    }
}

pub fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

pub async fn serve(fake: &Fake) -> (Authority, Process) {
    serve_with(fake, Limits::default()).await
}

pub async fn serve_with(fake: &Fake, limits: Limits) -> (Authority, Process) {
    let process = Process::new();
    let address = serve_on(any_port(), fake, limits, &process).await;
    (authority(address), process)
}

pub async fn serve_on(
    address: SocketAddr,
    fake: &Fake,
    limits: Limits,
    process: &Process,
) -> SocketAddr {
    let server = Server::bind("sandbox", address)
        .await
        .expect("the port is free");
    let address = server.local_addr();
    server
        .with_limits(limits)
        .add_service(SandboxServiceServer::new(fake.clone()))
        .serve(process)
        .expect("the process is new");
    address
}

pub fn authority(address: SocketAddr) -> Authority {
    address
        .to_string()
        .parse()
        .expect("a socket address is an authority")
}

/// An address without a listener: its port was free a moment ago.
pub async fn unused_address() -> Authority {
    authority(
        Server::bind("unused", any_port())
            .await
            .expect("some port is free")
            .local_addr(),
    )
}

pub async fn set_behaviour(peer: Peer) -> Result<(), Status> {
    SandboxServiceClient::new(peer)
        .set_behaviour(SetBehaviourRequest::default())
        .await
        .map(drop)
}

/// Waits until `reached` returns true, at most [`TIMEOUT`].
pub async fn wait_until(mut reached: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !reached().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, waiting)
        .await
        .expect("the state is reached");
}
