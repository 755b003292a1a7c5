use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use contracts::orders::v1::OrderStatus;
use contracts::query::v1::query_service_server::{QueryService, QueryServiceServer};
use contracts::query::v1::{
    GetOrderHistoryRequest, GetOrderHistoryResponse, GetOrderResponse, GetStockRequest,
    GetStockResponse, ListOrdersRequest, ListOrdersResponse, WatchOrderRequest, WatchOrderResponse,
};
use platform_client::Api;
use tonic::{Request, Response, Status};

use super::*;
use crate::journal::{self, Fact};

fn acknowledged(cents: i64) -> AcknowledgedOrder {
    AcknowledgedOrder {
        order_id: Uuid::now_v7(),
        cents,
    }
}

fn reported(status: OrderStatus, total: i64) -> OrderView {
    OrderView {
        status: status.into(),
        total,
        currency: CURRENCY.to_owned(),
        ..OrderView::default()
    }
}

fn compare(orders: &[(AcknowledgedOrder, Option<OrderView>)]) -> Verification {
    let mut verification = Verification::default();
    for (order, reported) in orders {
        verification.add(*order, reported.as_ref());
    }
    verification
}

fn text(verification: &Verification) -> String {
    let rows = verification.rows().into_iter();
    rows.map(|row| row.join(" ") + "\n").collect()
}

#[test]
fn orders_that_are_final_with_their_totals_pass() {
    let verification = compare(&[
        (acknowledged(5), Some(reported(OrderStatus::Delivered, 5))),
        (acknowledged(7), Some(reported(OrderStatus::Rejected, 7))),
        (acknowledged(0), Some(reported(OrderStatus::Cancelled, 0))),
    ]);
    assert!(verification.passed(), "{verification:?}");
    assert_eq!(
        text(&verification),
        "✓ final 3 of 3 acknowledged orders\n\
         ✓ money  0.12 USD reported, 0.12 USD in the accepted lines\n"
    );
    assert!(compare(&[]).passed());
}

#[test]
fn every_difference_is_found_and_named() {
    let foreign = OrderView {
        currency: "EUR".to_owned(),
        ..reported(OrderStatus::Delivered, 5)
    };
    for (reported, expected) in [
        (None, "missing"),
        (
            Some(reported(OrderStatus::AwaitingPayment, 5)),
            "still awaiting payment",
        ),
        (
            Some(reported(OrderStatus::Delivered, 4)),
            "0.04 USD instead of 0.05 USD",
        ),
        (
            Some(reported(OrderStatus::Shipped, 6)),
            "still shipped; 0.06 USD instead of 0.05 USD",
        ),
        (Some(foreign), "0.05 EUR instead of 0.05 USD"),
    ] {
        let order = acknowledged(5);
        let verification = compare(&[(order, reported)]);
        assert!(!verification.passed(), "{expected}");
        let named = format!("{}: {expected}\n", order.order_id);
        let text = text(&verification);
        assert!(text.ends_with(&named), "{text}");
    }
}

#[test]
fn differences_that_cancel_each_other_out_are_found_and_only_the_first_are_listed() {
    let orders: Vec<_> = (0..10)
        .map(|index| {
            let total = if index % 2 == 0 { 4 } else { 6 };
            let reported = reported(OrderStatus::Delivered, total);
            (acknowledged(5), Some(reported))
        })
        .collect();
    let verification = compare(&orders);
    assert_eq!(verification.reported_cents, verification.accepted_cents);
    assert_eq!(verification.differing, 10);
    let listed = verification.examples.iter().map(|found| found.order_id);
    let first = orders.iter().map(|(order, _)| order.order_id);
    assert!(listed.eq(first.take(MAX_EXAMPLES)));
}

#[tokio::test]
async fn only_acknowledged_baskets_of_the_file_are_verified() {
    let header = "basket_id,customer_id,sku,description,quantity,amount_cents\n";
    let lines = "1,c,s,d,1,7\n2,c,s,d,1,8\n3,c,s,d,1,9\n4,c,s,d,1,10\n";
    let mut file = BasketFile::parse("b.csv", format!("{header}{lines}").as_bytes()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let journal = journal::Journal::open(&folder.path().join("journal"), &file).unwrap();
    let orders = [acknowledged(7), acknowledged(9), acknowledged(10)];
    let mut facts = vec![
        Fact::Chosen {
            basket: "2".into(),
            order_id: Uuid::now_v7(),
        },
        Fact::Refused {
            basket: "2".into(),
            reason: "no".into(),
        },
    ];
    for (basket, order) in ["1", "3", "4"].into_iter().zip(orders) {
        facts.push(Fact::Acknowledged {
            basket: basket.into(),
            order_id: order.order_id,
            status: "pending".into(),
            version: 1,
            lines: 1,
            cents: order.cents,
        });
    }
    journal.record(facts).await.unwrap();
    file.truncate(3);
    assert_eq!(
        acknowledged_orders(&file, &journal.history()),
        orders[..2],
        "without the refused basket, and without the one beyond the limit"
    );
}

/// An API that reports an order as pending a few times before it is delivered.
struct FakeApi {
    total: i64,
    pending: AtomicUsize,
}

#[tonic::async_trait]
impl QueryService for FakeApi {
    type WatchOrderStream = stream::Empty<Result<WatchOrderResponse, Status>>;

    async fn get_order(
        &self,
        _: Request<GetOrderRequest>,
    ) -> Result<Response<GetOrderResponse>, Status> {
        let left = self.pending.load(Ordering::Relaxed);
        self.pending
            .store(left.saturating_sub(1), Ordering::Relaxed);
        let status = match left {
            0 => OrderStatus::Delivered,
            1 => OrderStatus::Pending,
            2 => return Err(chassis::error::not_found("order")),
            _ => return Err(chassis::error::unavailable("query", Duration::ZERO)),
        };
        Ok(Response::new(GetOrderResponse {
            order: Some(reported(status, self.total)),
        }))
    }

    async fn list_orders(
        &self,
        _: Request<ListOrdersRequest>,
    ) -> Result<Response<ListOrdersResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn watch_order(
        &self,
        _: Request<WatchOrderRequest>,
    ) -> Result<Response<Self::WatchOrderStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn get_order_history(
        &self,
        _: Request<GetOrderHistoryRequest>,
    ) -> Result<Response<GetOrderHistoryResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn get_stock(
        &self,
        _: Request<GetStockRequest>,
    ) -> Result<Response<GetStockResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

/// Clients of a [`FakeApi`].
async fn clients(pending: usize) -> Clients {
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let api = FakeApi {
        total: 5,
        pending: pending.into(),
    };
    let server = tonic::transport::Server::builder().add_service(QueryServiceServer::new(api));
    tokio::spawn(server.serve_with_incoming(incoming));
    Api::at(address.parse().unwrap()).connect()
}

async fn verify_one(pending: usize, patience: Duration) -> Verification {
    let progress = Progress::new("test", 1);
    verify(
        &[acknowledged(5)],
        &clients(pending).await,
        patience,
        &progress,
    )
    .await
    .unwrap()
}

#[tokio::test]
async fn an_order_is_read_until_it_is_final() {
    let verification = verify_one(4, Duration::from_secs(30)).await;
    assert!(verification.passed(), "{verification:?}");
}

#[tokio::test]
async fn when_the_time_is_over_the_order_is_taken_as_it_is() {
    // The call that fails first is retried.
    for (pending, wrong) in [(1, "still pending"), (2, "missing"), (4, "missing")] {
        let verification = verify_one(pending, Duration::ZERO).await;
        assert_eq!(verification.examples[0].wrong, wrong);
    }
}

#[tokio::test]
async fn an_api_that_keeps_failing_is_an_error() {
    let clients = clients(usize::MAX).await;
    for retry_time in [Duration::ZERO, Duration::from_millis(200)] {
        let began = Instant::now();
        let order = read_until_final(&clients, Uuid::now_v7(), began, retry_time).await;
        let message = order.unwrap_err().to_string();
        assert!(message.contains("UNAVAILABLE"), "{message}");
        assert!(began.elapsed() >= retry_time);
    }
}
