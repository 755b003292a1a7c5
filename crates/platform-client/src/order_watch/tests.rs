//! The watch with an API whose streams break.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use contracts::core::v1::Metadata;
use contracts::orders::v1::{OrderEvent, OrderStatus};
use contracts::query::v1::query_service_server::{QueryService, QueryServiceServer};
use contracts::query::v1::{
    GetOrderHistoryRequest, GetOrderHistoryResponse, GetOrderRequest, GetOrderResponse,
    GetStockRequest, GetStockResponse, ListOrdersRequest, ListOrdersResponse, OrderView,
};
use futures::stream::{self, Stream};
use parking_lot::Mutex;
use tonic::Response;

use super::*;
use crate::Api;

type Answers = Pin<Box<dyn Stream<Item = Result<WatchOrderResponse, Status>> + Send>>;

/// The responses of one stream.
type StreamResponses = Vec<Result<WatchOrderResponse, Status>>;

/// Serves one stream after the other.
#[derive(Clone)]
struct Query {
    streams: Arc<Mutex<VecDeque<StreamResponses>>>,
    /// `after_version` of each request.
    requested_versions: Arc<Mutex<Vec<u64>>>,
}

#[tonic::async_trait]
impl QueryService for Query {
    type WatchOrderStream = Answers;

    async fn watch_order(
        &self,
        request: Request<WatchOrderRequest>,
    ) -> Result<Response<Answers>, Status> {
        let after = request.into_inner().after_version;
        self.requested_versions.lock().push(after);
        let responses = self.streams.lock().pop_front();
        let responses = responses.ok_or_else(|| Status::not_found("order not found"))?;
        Ok(Response::new(Box::pin(stream::iter(responses))))
    }

    async fn get_order(
        &self,
        _request: Request<GetOrderRequest>,
    ) -> Result<Response<GetOrderResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn list_orders(
        &self,
        _request: Request<ListOrdersRequest>,
    ) -> Result<Response<ListOrdersResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn get_order_history(
        &self,
        _request: Request<GetOrderHistoryRequest>,
    ) -> Result<Response<GetOrderHistoryResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn get_stock(
        &self,
        _request: Request<GetStockRequest>,
    ) -> Result<Response<GetStockResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

fn change(status: OrderStatus, versions: std::ops::RangeInclusive<u64>) -> WatchOrderResponse {
    WatchOrderResponse {
        order: Some(OrderView {
            status: status.into(),
            version: *versions.end(),
            ..Default::default()
        }),
        events: versions
            .map(|version| OrderEvent {
                metadata: Some(Metadata {
                    aggregate_version: version,
                    ..Default::default()
                }),
                event: None,
            })
            .collect(),
    }
}

/// A watch of an order after version 0, and the versions that it requests.
async fn start_watch(streams: Vec<StreamResponses>) -> (Watch, Arc<Mutex<Vec<u64>>>) {
    let query = Query {
        streams: Arc::new(Mutex::new(streams.into())),
        requested_versions: Arc::default(),
    };
    let requested_versions = Arc::clone(&query.requested_versions);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server = tonic::transport::Server::builder().add_service(QueryServiceServer::new(query));
    tokio::spawn(server.serve_with_incoming(incoming));
    let clients = Api::at(address.parse().unwrap()).connect();
    (Watch::new(clients, Uuid::now_v7(), 0), requested_versions)
}

/// The versions of all events until the watch ends.
async fn versions(watch: &mut Watch) -> anyhow::Result<Vec<u64>> {
    let mut versions = Vec::new();
    while let Some(change) = watch.next().await? {
        let metadata = change.events.into_iter().filter_map(|event| event.metadata);
        versions.extend(metadata.map(|metadata| metadata.aggregate_version));
    }
    Ok(versions)
}

#[tokio::test]
async fn a_broken_stream_is_resumed_after_the_last_received_version() {
    let (mut watch, requested_versions) = start_watch(vec![
        vec![
            Ok(change(OrderStatus::Pending, 1..=2)),
            Err(Status::unavailable("the server goes")),
        ],
        vec![Err(Status::unknown("broken pipe"))],
        vec![
            // The server may repeat versions.
            Ok(change(OrderStatus::Pending, 2..=3)),
            Ok(change(OrderStatus::Delivered, 4..=5)),
        ],
    ])
    .await;
    assert_eq!(versions(&mut watch).await.unwrap(), [1, 2, 3, 4, 5]);
    assert_eq!(*requested_versions.lock(), [0, 2, 2]);
}

#[tokio::test]
async fn a_stream_that_reaches_its_deadline_is_replaced() {
    let over = || vec![Err(Status::deadline_exceeded("the deadline has passed"))];
    let end = vec![Ok(change(OrderStatus::Cancelled, 1..=1))];
    let (mut watch, _) = start_watch(vec![over(), over(), end]).await;
    assert_eq!(versions(&mut watch).await.unwrap(), [1]);
    assert!(watch.outage.is_none(), "it is no failure");
}

#[tokio::test]
async fn an_unknown_order_ends_the_watch() {
    let (mut watch, _) = start_watch(Vec::new()).await;
    let error = versions(&mut watch).await.unwrap_err();
    assert!(format!("{error:#}").contains("NOT_FOUND"), "{error:#}");
}
