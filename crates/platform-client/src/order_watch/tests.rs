//! The watch against an API whose streams break.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use contracts::core::v1::Metadata;
use contracts::orders::v1::{OrderEvent, OrderStatus};
use contracts::query::v1::query_service_server::{QueryService, QueryServiceServer};
use contracts::query::v1::{
    GetOrderHistoryRequest, GetOrderHistoryResponse, GetOrderRequest, GetOrderResponse,
    GetStockRequest, GetStockResponse, ListOrdersRequest, ListOrdersResponse, OrderView,
};
use futures::stream::{self, Stream};
use tonic::Response;

use super::*;
use crate::Api;

type Answers = Pin<Box<dyn Stream<Item = Result<WatchOrderResponse, Status>> + Send>>;

/// What one stream answers.
type Stretch = Vec<Result<WatchOrderResponse, Status>>;

/// Answers with one stretch after the other.
#[derive(Clone)]
struct Query {
    stretches: Arc<Mutex<VecDeque<Stretch>>>,
    /// The version from which each stream was asked for.
    asked: Arc<Mutex<Vec<u64>>>,
}

#[tonic::async_trait]
impl QueryService for Query {
    type WatchOrderStream = Answers;

    async fn watch_order(
        &self,
        request: Request<WatchOrderRequest>,
    ) -> Result<Response<Answers>, Status> {
        let after = request.into_inner().after_version;
        self.asked.lock().unwrap().push(after);
        let stretch = self.stretches.lock().unwrap().pop_front();
        let stretch = stretch.ok_or_else(|| Status::not_found("order not found"))?;
        Ok(Response::new(Box::pin(stream::iter(stretch))))
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

/// A watch of an order from behind version 0 on, and what it asks for.
async fn given(stretches: Vec<Stretch>) -> (Watch, Arc<Mutex<Vec<u64>>>) {
    let query = Query {
        stretches: Arc::new(Mutex::new(stretches.into())),
        asked: Arc::default(),
    };
    let asked = Arc::clone(&query.asked);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server = tonic::transport::Server::builder().add_service(QueryServiceServer::new(query));
    tokio::spawn(server.serve_with_incoming(incoming));
    let clients = Api::at(address.parse().unwrap()).connect();
    (Watch::new(clients, Uuid::now_v7(), 0), asked)
}

/// The versions of all events until the end.
async fn versions(watch: &mut Watch) -> anyhow::Result<Vec<u64>> {
    let mut versions = Vec::new();
    while let Some(change) = watch.next().await? {
        let metadata = change.events.into_iter().filter_map(|event| event.metadata);
        versions.extend(metadata.map(|metadata| metadata.aggregate_version));
    }
    Ok(versions)
}

#[tokio::test]
async fn a_stream_that_breaks_is_resumed_behind_what_was_seen() {
    let (mut watch, asked) = given(vec![
        vec![
            Ok(change(OrderStatus::Pending, 1..=2)),
            Err(Status::unavailable("the server goes")),
        ],
        vec![Err(Status::unknown("broken pipe"))],
        vec![
            // The server may tell again what got lost on its way.
            Ok(change(OrderStatus::Pending, 2..=3)),
            Ok(change(OrderStatus::Delivered, 4..=5)),
        ],
    ])
    .await;
    assert_eq!(versions(&mut watch).await.unwrap(), [1, 2, 3, 4, 5]);
    assert_eq!(*asked.lock().unwrap(), [0, 2, 2]);
}

#[tokio::test]
async fn a_stream_whose_time_is_over_is_followed_by_another() {
    let over = || vec![Err(Status::deadline_exceeded("the deadline has passed"))];
    let end = vec![Ok(change(OrderStatus::Cancelled, 1..=1))];
    let (mut watch, _) = given(vec![over(), over(), end]).await;
    assert_eq!(versions(&mut watch).await.unwrap(), [1]);
    assert!(watch.failing.is_none(), "it is no failure");
}

#[tokio::test]
async fn an_order_that_is_not_there_ends_the_watch() {
    let (mut watch, _) = given(Vec::new()).await;
    let error = versions(&mut watch).await.unwrap_err();
    assert!(format!("{error:#}").contains("NOT_FOUND"), "{error:#}");
}
