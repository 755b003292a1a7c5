//! A query service that says what a test has written down.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use chassis::Process;
use chassis::grpc::Server;
use contracts::query::v1::query_service_server::{QueryService, QueryServiceServer};
use contracts::query::v1::{
    GetOrderHistoryRequest, GetOrderHistoryResponse, GetOrderRequest, GetOrderResponse,
    GetStockRequest, GetStockResponse, ListOrdersRequest, ListOrdersResponse, OrderView,
    WatchOrderResponse,
};
use tonic::Response;
use tonic::codegen::BoxStream;

use super::*;

const LONG: Duration = Duration::from_secs(10);

/// What one watch tells: versions and statuses, then how it breaks off; it goes on for ever without that.
#[derive(Clone)]
struct Part {
    refused: Option<Status>,
    changes: Vec<(u64, OrderStatus)>,
    broken: Option<Status>,
}

/// One part for each watch, and the versions after which watches began.
#[derive(Clone, Default)]
struct Script {
    parts: Arc<Mutex<VecDeque<Part>>>,
    began_after: Arc<Mutex<Vec<u64>>>,
}

#[tonic::async_trait]
impl QueryService for Script {
    type WatchOrderStream = BoxStream<WatchOrderResponse>;

    async fn watch_order(
        &self,
        request: Request<WatchOrderRequest>,
    ) -> Result<Response<Self::WatchOrderStream>, Status> {
        let after = request.into_inner().after_version;
        self.began_after.lock().unwrap().push(after);
        let part = self.parts.lock().unwrap().pop_front();
        let part = part.expect("the test has written a part for each watch");
        if let Some(refused) = part.refused {
            return Err(refused);
        }
        let changes = part.changes.into_iter().map(|(version, status)| {
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
        Ok(Response::new(match part.broken {
            Some(broken) => Box::pin(changes.chain(tokio_stream::once(Err(broken)))),
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

/// Awaits the confirmation of an order that is placed with this version and status.
async fn confirmation(
    script: &Script,
    version: u64,
    status: OrderStatus,
    patience: Duration,
) -> Result<(u64, OrderStatus), Code> {
    let process = Process::new();
    let server = Server::bind("query", ([127, 0, 0, 1], 0).into())
        .await
        .unwrap();
    let address = server.local_addr().to_string().parse().unwrap();
    server
        .add_service(QueryServiceServer::new(script.clone()))
        .serve(&process)
        .unwrap();
    let query = QueryServiceClient::new(Peer::connect_lazy("query", &[address]));
    let placed = PlaceOrderResponse {
        order_id: "o".into(),
        status: status.into(),
        version,
    };
    await_it(&query, placed, Deadline::after(patience))
        .await
        .map(|confirmed| (confirmed.version, confirmed.status()))
        .map_err(|status| status.code())
}

fn script(parts: impl IntoIterator<Item = Part>) -> Script {
    Script {
        parts: Arc::new(Mutex::new(parts.into_iter().collect())),
        ..Script::default()
    }
}

fn told(changes: &[(u64, OrderStatus)]) -> Part {
    Part {
        refused: None,
        changes: changes.to_vec(),
        broken: None,
    }
}

#[tokio::test]
async fn what_is_settled_is_not_watched() {
    for status in [
        OrderStatus::Confirmed,
        OrderStatus::Shipped,
        OrderStatus::Delivered,
        OrderStatus::Cancelled,
        OrderStatus::Rejected,
    ] {
        let script = script([]);
        let outcome = confirmation(&script, 5, status, LONG).await;
        assert_eq!(outcome, Ok((5, status)));
    }
}

#[tokio::test]
async fn a_watch_that_breaks_off_goes_on_where_it_was() {
    let not_seen_yet = Part {
        refused: Some(error::not_found("order")),
        ..told(&[])
    };
    let broken = Part {
        broken: Some(error::shutting_down()),
        ..told(&[(2, OrderStatus::Pending), (3, OrderStatus::AwaitingPayment)])
    };
    let last = told(&[
        (4, OrderStatus::Cancelling),
        (6, OrderStatus::Rejected),
        (7, OrderStatus::Pending),
    ]);
    let script = script([not_seen_yet, broken, last]);
    let outcome = confirmation(&script, 1, OrderStatus::Pending, LONG).await;
    assert_eq!(outcome, Ok((6, OrderStatus::Rejected)));
    assert_eq!(*script.began_after.lock().unwrap(), [1, 1, 3]);
}

#[tokio::test]
async fn what_does_not_come_in_time_is_not_waited_for() {
    let script = script([told(&[(2, OrderStatus::AwaitingPayment)])]);
    let short = Duration::from_millis(200);
    let outcome = confirmation(&script, 1, OrderStatus::Pending, short).await;
    assert_eq!(outcome, Err(Code::DeadlineExceeded));
}

#[tokio::test]
async fn what_does_not_pass_is_told() {
    let full = Part {
        refused: Some(error::exhausted(error::RETRY_AFTER)),
        ..told(&[])
    };
    let outcome = confirmation(&script([full]), 1, OrderStatus::Pending, LONG).await;
    assert_eq!(outcome, Err(Code::ResourceExhausted));
}
