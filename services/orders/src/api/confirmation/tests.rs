//! Tests with a scripted query service.

use std::collections::VecDeque;
use std::sync::Arc;

use chassis::Process;
use chassis::grpc::Server;
use contracts::query::v1::query_service_server::{QueryService, QueryServiceServer};
use contracts::query::v1::{
    GetOrderHistoryRequest, GetOrderHistoryResponse, GetOrderRequest, GetOrderResponse,
    GetStockRequest, GetStockResponse, ListOrdersRequest, ListOrdersResponse, OrderView,
    WatchOrderResponse,
};
use parking_lot::Mutex;
use tonic::Response;
use tonic::codegen::BoxStream;

use super::*;

const LONG_TIMEOUT: Duration = Duration::from_secs(10);

/// The scripted result of one watch: an initial error, or changes and then an optional error. Without one, the stream
/// stays open.
#[derive(Clone)]
struct ScriptedWatch {
    initial_error: Option<Status>,
    changes: Vec<(u64, OrderStatus)>,
    final_error: Option<Status>,
}

/// The results of the watches in order, and the versions after which the watches began.
#[derive(Clone, Default)]
struct ScriptedQuery {
    watches: Arc<Mutex<VecDeque<ScriptedWatch>>>,
    began_after: Arc<Mutex<Vec<u64>>>,
}

#[tonic::async_trait]
impl QueryService for ScriptedQuery {
    type WatchOrderStream = BoxStream<WatchOrderResponse>;

    async fn watch_order(
        &self,
        request: Request<WatchOrderRequest>,
    ) -> Result<Response<Self::WatchOrderStream>, Status> {
        let after = request.into_inner().after_version;
        self.began_after.lock().push(after);
        let watch = self.watches.lock().pop_front();
        let watch = watch.expect("the test scripts every watch");
        if let Some(error) = watch.initial_error {
            return Err(error);
        }
        let changes = watch.changes.into_iter().map(|(version, status)| {
            let order = OrderView {
                version,
                status: status.into(),
                ..Default::default()
            };
            Ok(WatchOrderResponse {
                order: Some(order),
                events: Vec::new(),
            })
        });
        use tokio_stream::StreamExt as _;
        let changes = tokio_stream::iter(changes);
        Ok(Response::new(match watch.final_error {
            Some(error) => Box::pin(changes.chain(tokio_stream::once(Err(error)))),
            None => Box::pin(changes.chain(tokio_stream::pending())),
        }))
    }

    async fn get_order(
        &self,
        _request: Request<GetOrderRequest>,
    ) -> Result<Response<GetOrderResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn list_orders(
        &self,
        _request: Request<ListOrdersRequest>,
    ) -> Result<Response<ListOrdersResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn get_order_history(
        &self,
        _request: Request<GetOrderHistoryRequest>,
    ) -> Result<Response<GetOrderHistoryResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn get_stock(
        &self,
        _request: Request<GetStockRequest>,
    ) -> Result<Response<GetStockResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }
}

/// Waits for the confirmation of an order that was placed with this version and status.
async fn wait(
    query: &ScriptedQuery,
    version: u64,
    status: OrderStatus,
    timeout: Duration,
) -> Result<(u64, OrderStatus), Code> {
    let process = Process::new();
    let server = Server::bind("query", ([127, 0, 0, 1], 0).into())
        .await
        .unwrap();
    let address = server.local_addr().to_string().parse().unwrap();
    server
        .add_service(QueryServiceServer::new(query.clone()))
        .serve(&process)
        .unwrap();
    let client = QueryServiceClient::new(Peer::connect_lazy("query", &[address]));
    let placed = PlaceOrderResponse {
        order_id: "o".into(),
        status: status.into(),
        version,
    };
    wait_until_settled(&client, placed, Deadline::after(timeout))
        .await
        .map(|confirmed| (confirmed.version, confirmed.status()))
        .map_err(|status| status.code())
}

fn scripted(watches: impl IntoIterator<Item = ScriptedWatch>) -> ScriptedQuery {
    ScriptedQuery {
        watches: Arc::new(Mutex::new(watches.into_iter().collect())),
        ..ScriptedQuery::default()
    }
}

fn watch_of(changes: &[(u64, OrderStatus)]) -> ScriptedWatch {
    ScriptedWatch {
        initial_error: None,
        changes: changes.to_vec(),
        final_error: None,
    }
}

#[tokio::test]
async fn a_settled_order_is_not_watched() {
    for status in [
        OrderStatus::Confirmed,
        OrderStatus::Shipped,
        OrderStatus::Delivered,
        OrderStatus::Cancelled,
        OrderStatus::Rejected,
    ] {
        let query = scripted([]);
        let outcome = wait(&query, 5, status, LONG_TIMEOUT).await;
        assert_eq!(outcome, Ok((5, status)));
    }
}

#[tokio::test]
async fn a_failed_watch_is_resumed_from_the_last_version() {
    let not_found_yet = ScriptedWatch {
        initial_error: Some(error::not_found("order")),
        ..watch_of(&[])
    };
    let broken = ScriptedWatch {
        final_error: Some(error::shutting_down()),
        ..watch_of(&[(2, OrderStatus::Pending), (3, OrderStatus::AwaitingPayment)])
    };
    let last = watch_of(&[
        (4, OrderStatus::Cancelling),
        (6, OrderStatus::Rejected),
        (7, OrderStatus::Pending),
    ]);
    let query = scripted([not_found_yet, broken, last]);
    let outcome = wait(&query, 1, OrderStatus::Pending, LONG_TIMEOUT).await;
    assert_eq!(outcome, Ok((6, OrderStatus::Rejected)));
    assert_eq!(*query.began_after.lock(), [1, 1, 3]);
}

#[tokio::test]
async fn the_wait_ends_at_the_deadline() {
    let query = scripted([watch_of(&[(2, OrderStatus::AwaitingPayment)])]);
    let short = Duration::from_millis(200);
    let outcome = wait(&query, 1, OrderStatus::Pending, short).await;
    assert_eq!(outcome, Err(Code::DeadlineExceeded));
}

#[tokio::test]
async fn a_permanent_error_is_returned() {
    let full = ScriptedWatch {
        initial_error: Some(error::exhausted(error::RETRY_AFTER)),
        ..watch_of(&[])
    };
    let outcome = wait(&scripted([full]), 1, OrderStatus::Pending, LONG_TIMEOUT).await;
    assert_eq!(outcome, Err(Code::ResourceExhausted));
}
