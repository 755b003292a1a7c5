//! Fake services whose responses depend on the requested id, and a gateway in front of them.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use chassis::config::Peers;
use chassis::grpc::{Deadline, Limits, Peer, Server};
use chassis::{Process, error};
use contracts::orders::v1::order_service_server::{OrderService, OrderServiceServer};
use contracts::orders::v1::{
    CancelOrderRequest, CancelOrderResponse, OrderStatus, PlaceOrderRequest, PlaceOrderResponse,
    PlaceOrderWait,
};
use contracts::query::v1::query_service_server::{QueryService, QueryServiceServer};
use contracts::query::v1::{
    GetOrderHistoryRequest, GetOrderHistoryResponse, GetOrderRequest, GetOrderResponse,
    GetStockRequest, GetStockResponse, ListOrdersRequest, ListOrdersResponse, OrderView,
    WatchOrderRequest, WatchOrderResponse,
};
use gateway::Gateway;
use http::uri::Authority;
use tokio::sync::Notify;
use tokio_stream::StreamExt as _;
use tonic::codegen::BoxStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

pub const ANY_PORT: &str = "127.0.0.1:0";
pub const ORDER_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
/// GetOrder with this id never responds; WatchOrder with this id never ends after its first change.
pub const NEVER: &str = "never";
/// WatchOrder with this id fails after one change.
pub const BREAKS: &str = "breaks";
/// WatchOrder with this id ends without a change.
pub const NO_CHANGES: &str = "over";
/// GetOrder with this id is unavailable the first time.
pub const FLAKY: &str = "flaky";
/// The header that a fake service returns unchanged.
pub const ECHO: &str = "x-echo";

const DRAIN: Duration = Duration::from_secs(10);

/// What the fake services have received.
#[derive(Clone, Default)]
pub struct Observed {
    /// The last ListOrders.
    pub list: Arc<parking_lot::Mutex<Option<ListOrdersRequest>>>,
    /// The last WatchOrder.
    pub watch: Arc<parking_lot::Mutex<Option<WatchOrderRequest>>>,
    /// Calls for [`FLAKY`].
    pub flaky: Arc<AtomicU32>,
    /// A call for [`NEVER`] has begun.
    pub begun: Arc<Notify>,
    /// A call for [`NEVER`] was dropped.
    pub dropped: Arc<Notify>,
}

#[derive(Clone)]
struct Fake {
    observed: Observed,
}

struct NotifyOnDrop(Arc<Notify>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[tonic::async_trait]
impl QueryService for Fake {
    async fn get_order(
        &self,
        request: Request<GetOrderRequest>,
    ) -> Result<Response<GetOrderResponse>, Status> {
        let echo = request.metadata().get(ECHO).cloned();
        let deadline = request
            .extensions()
            .get::<Deadline>()
            .copied()
            .expect("the stack always sets one");
        let request = request.into_inner();
        if request.order_id == NEVER {
            let _dropped = NotifyOnDrop(Arc::clone(&self.observed.dropped));
            self.observed.begun.notify_one();
            return std::future::pending().await;
        }
        if request.order_id == FLAKY && self.observed.flaky.fetch_add(1, Ordering::Relaxed) == 0 {
            return Err(error::unavailable("the read model", error::RETRY_AFTER));
        }
        if request.order_id == "unknown" {
            return Err(error::not_found("order"));
        }
        let order = OrderView {
            order_id: request.order_id,
            status: OrderStatus::Confirmed.into(),
            version: request.min_version,
            // The deadline that reached this service, for the assertions of tests.
            total: i64::try_from(deadline.remaining().as_millis()).expect("it is short"),
            ..Default::default()
        };
        let mut response = Response::new(GetOrderResponse { order: Some(order) });
        if let Some(echo) = echo {
            response.metadata_mut().insert(ECHO, echo);
        }
        Ok(response)
    }

    async fn list_orders(
        &self,
        request: Request<ListOrdersRequest>,
    ) -> Result<Response<ListOrdersResponse>, Status> {
        *self.observed.list.lock() = Some(request.into_inner());
        Ok(Response::new(ListOrdersResponse::default()))
    }

    type WatchOrderStream = BoxStream<WatchOrderResponse>;

    /// Two changes by default.
    async fn watch_order(
        &self,
        request: Request<WatchOrderRequest>,
    ) -> Result<Response<Self::WatchOrderStream>, Status> {
        let request = request.into_inner();
        *self.observed.watch.lock() = Some(request.clone());
        let change = |number: u64, status: OrderStatus| {
            let order = OrderView {
                order_id: request.order_id.clone(),
                status: status.into(),
                version: request.after_version + number,
                ..Default::default()
            };
            Ok(WatchOrderResponse {
                order: Some(order),
                events: Vec::new(),
            })
        };
        let first = tokio_stream::once(change(1, OrderStatus::Confirmed));
        let changes: Self::WatchOrderStream = match request.order_id.as_str() {
            "unknown" => return Err(error::not_found("order")),
            NO_CHANGES => Box::pin(tokio_stream::empty()),
            BREAKS => Box::pin(first.chain(tokio_stream::once(Err(error::shutting_down())))),
            NEVER => {
                let dropped = NotifyOnDrop(Arc::clone(&self.observed.dropped));
                let never = tokio_stream::pending().map(move |change| {
                    let _ = &dropped;
                    change
                });
                Box::pin(first.chain(never))
            }
            _ => Box::pin(first.chain(tokio_stream::once(change(2, OrderStatus::Delivered)))),
        };
        Ok(Response::new(changes))
    }

    async fn get_order_history(
        &self,
        _request: Request<GetOrderHistoryRequest>,
    ) -> Result<Response<GetOrderHistoryResponse>, Status> {
        Ok(Response::new(GetOrderHistoryResponse::default()))
    }

    async fn get_stock(
        &self,
        request: Request<GetStockRequest>,
    ) -> Result<Response<GetStockResponse>, Status> {
        Ok(Response::new(GetStockResponse {
            sku: request.into_inner().sku,
            on_hand: 7,
            ..Default::default()
        }))
    }
}

#[tonic::async_trait]
impl OrderService for Fake {
    async fn place_order(
        &self,
        request: Request<PlaceOrderRequest>,
    ) -> Result<Response<PlaceOrderResponse>, Status> {
        let order = request.into_inner();
        if order.customer_id == "other-body" {
            return Err(error::already_exists(
                "ID_REUSED",
                "the order id was used for another order",
            ));
        }
        error::validate(&order)?;
        let version = if order.wait() == PlaceOrderWait::Durable {
            0
        } else {
            1
        };
        let status = OrderStatus::Pending.into();
        Ok(Response::new(PlaceOrderResponse {
            order_id: order.order_id,
            status,
            version,
        }))
    }

    async fn cancel_order(
        &self,
        _request: Request<CancelOrderRequest>,
    ) -> Result<Response<CancelOrderResponse>, Status> {
        Err(error::rejected("ALREADY_FINAL", "the order is over"))
    }
}

/// A running server of a test.
pub struct TestServer {
    pub address: SocketAddr,
    pub process: Process,
}

impl TestServer {
    pub async fn stop(self) {
        assert_eq!(self.process.stop(DRAIN).await, ExitCode::SUCCESS);
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(self.url("")).expect("it is a URL");
        endpoint.connect().await.expect("it listens")
    }

    /// Like [`Self::channel`], but an expired deadline always gives DEADLINE_EXCEEDED: tonic's own client timeout gives
    /// CANCELLED.
    pub fn peer(&self) -> Peer {
        Peer::connect_lazy("gateway", &[authority(self.address)])
    }
}

fn authority(address: SocketAddr) -> Authority {
    address
        .to_string()
        .parse()
        .expect("a socket address is an authority")
}

pub fn any_port() -> SocketAddr {
    ANY_PORT.parse().expect("it is an address")
}

/// Orders and query in one process.
pub async fn serve_peers(address: SocketAddr, observed: &Observed) -> TestServer {
    let process = Process::new();
    process.readiness().component("peers").ready();
    let fake = Fake {
        observed: observed.clone(),
    };
    let server = Server::bind("peers", address)
        .await
        .expect("the address is free")
        .add_service(OrderServiceServer::new(fake.clone()))
        .add_service(QueryServiceServer::new(fake));
    let address = server.local_addr();
    server.serve(&process).expect("the process is new");
    TestServer { address, process }
}

/// A gateway with the same address for all peers.
pub async fn serve_gateway(peer: SocketAddr, limits: Limits) -> TestServer {
    serve_gateway_following(peer, limits, &[]).await
}

/// The same; the readiness of the gateway follows the peers in `remote`.
pub async fn serve_gateway_following(
    peer: SocketAddr,
    limits: Limits,
    remote: &[&str],
) -> TestServer {
    let process = Process::new();
    let reach = vec![authority(peer)];
    let peers = Peers {
        orders: reach.clone(),
        inventory: reach.clone(),
        query: reach.clone(),
        sandbox: reach,
    };
    let gateway = Gateway::bind(any_port(), &peers, &process)
        .await
        .expect("some port is free")
        .with_limits(limits);
    let address = gateway.local_addr();
    gateway.serve(&process, remote).expect("the process is new");
    TestServer { address, process }
}

/// A gateway in front of running services.
pub async fn serve_all() -> (TestServer, TestServer, Observed) {
    let observed = Observed::default();
    let peers = serve_peers(any_port(), &observed).await;
    let gateway = serve_gateway(peers.address, Limits::default()).await;
    (gateway, peers, observed)
}

/// An address without a listener: the port was free a moment ago.
pub async fn unused_address() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind(ANY_PORT)
        .await
        .expect("some port is free");
    listener.local_addr().expect("it is bound")
}
