//! The loader against a fake API that injects faults.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;

use chassis::error;
use contracts::orders::v1::order_service_server::{OrderService, OrderServiceServer};
use contracts::orders::v1::{CancelOrderRequest, CancelOrderResponse, OrderStatus};
use parking_lot::Mutex;
use platform_client::Api;
use tonic::{Request, Response};

use super::*;
use crate::baskets::BasketFile;
use crate::journal::{self, BasketResult};

const LINES: &str = "basket_id,customer_id,sku,description,quantity,amount_cents
1,ada,mug,Mug,3,100
1,ada,hat,Hat,0,50
1,ada,pen,Pen,1,7
2,bob,mug,Mug,0,1
3,cyd,mug,Mug,2,9
";

/// Faults of the API before it answers correctly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Places the order, but returns an error.
    LoseAnswer,
    /// Refuses the id as stale and unknown.
    Stale,
}

/// Places orders by the field rules of the contracts.
#[derive(Default)]
struct FakeApi {
    /// The faults still to come, by customer.
    faults: Mutex<HashMap<String, Vec<Fault>>>,
    placed: Mutex<HashMap<String, PlaceOrderRequest>>,
    calls: Mutex<Vec<PlaceOrderRequest>>,
}

/// The gRPC service of the fake API.
struct FakeOrderService(Arc<FakeApi>);

#[tonic::async_trait]
impl OrderService for FakeOrderService {
    async fn place_order(
        &self,
        request: Request<PlaceOrderRequest>,
    ) -> Result<Response<PlaceOrderResponse>, Status> {
        let request = request.into_inner();
        self.0.calls.lock().push(request.clone());
        error::validate(&request)?;
        let fault = self
            .0
            .faults
            .lock()
            .get_mut(&request.customer_id)
            .and_then(Vec::pop);
        if fault == Some(Fault::Stale) {
            return Err(error::rejected(orders::reasons::STALE_UNKNOWN, "too old"));
        }
        let order_id = request.order_id.clone();
        let first = self
            .0
            .placed
            .lock()
            .entry(order_id.clone())
            .or_insert(request.clone())
            .clone();
        if first != request {
            return Err(error::already_exists("ORDER_ID_REUSED", "another body"));
        }
        if fault == Some(Fault::LoseAnswer) {
            return Err(error::unavailable("orders", Duration::ZERO));
        }
        Ok(Response::new(PlaceOrderResponse {
            order_id,
            status: OrderStatus::Pending.into(),
            version: 1,
        }))
    }

    async fn cancel_order(
        &self,
        _request: Request<CancelOrderRequest>,
    ) -> Result<Response<CancelOrderResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

async fn start_server(api: &Arc<FakeApi>) -> Clients {
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server = tonic::transport::Server::builder()
        .add_service(OrderServiceServer::new(FakeOrderService(Arc::clone(api))));
    tokio::spawn(server.serve_with_incoming(incoming));
    Api::at(address.parse().unwrap()).connect()
}

async fn load(
    api: &Arc<FakeApi>,
    path: &Path,
    patience: Duration,
) -> (Result<PlacedOrders, Error>, Arc<Journal>) {
    let file = BasketFile::parse("b.csv", LINES.as_bytes()).unwrap();
    let journal = loop {
        match Journal::open(path, &file) {
            // The writer thread of the previous load releases the lock a moment later.
            Err(journal::Error::InUse { .. }) => tokio::task::yield_now().await,
            opened => break Arc::new(opened.unwrap()),
        }
    };
    let settings = LoadSettings {
        concurrency: NonZeroUsize::new(4).unwrap(),
        per_second: None,
        patience,
        probe_every: None,
    };
    let progress = Arc::new(Progress::new("test", file.baskets.len()));
    let stop = CancellationToken::new();
    let clients = start_server(api).await;
    (
        place(
            &file.baskets,
            &journal,
            &clients,
            &settings,
            &progress,
            &stop,
        )
        .await,
        journal,
    )
}

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn refused_lines_are_dropped_and_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let api = Arc::new(FakeApi::default());
    let (placed, journal) = load(&api, &folder.path().join("journal"), LONG).await;
    assert_eq!(placed.unwrap().orders.len(), 2);

    let first = journal.history().basket("1");
    assert_eq!(
        first.result,
        Some(BasketResult::Acknowledged {
            lines: 2,
            cents: 107
        })
    );
    assert_eq!(first.refused_lines.keys().collect::<Vec<_>>(), [&3]);
    assert!(
        first.refused_lines[&3].starts_with("quantity "),
        "{first:?}"
    );
    let second = journal.history().basket("2");
    assert!(
        matches!(second.result, Some(BasketResult::Refused { .. })),
        "{second:?}"
    );
    assert_eq!(second.refused_lines.keys().collect::<Vec<_>>(), [&5]);

    let order = api.placed.lock()[&first.order_id.unwrap().to_string()].clone();
    assert_eq!(contracts::rules::order_total(&order.lines), Some(107));
}

#[tokio::test]
async fn a_call_without_answer_is_retried_under_the_same_id() {
    let folder = tempfile::tempdir().unwrap();
    let api = Arc::new(FakeApi::default());
    api.faults
        .lock()
        .insert("ada".into(), vec![Fault::LoseAnswer; 3]);
    let (placed, journal) = load(&api, &folder.path().join("journal"), LONG).await;
    assert_eq!(placed.unwrap().orders.len(), 2);
    assert_eq!(api.placed.lock().len(), 2);
    for basket in ["1", "3"] {
        let result = journal.history().basket(basket).result;
        assert!(
            matches!(result, Some(BasketResult::Acknowledged { .. })),
            "{result:?}"
        );
    }
}

#[tokio::test]
async fn a_resumed_load_keeps_its_order_ids_and_places_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let api = Arc::new(FakeApi::default());
    for customer in ["ada", "cyd"] {
        api.faults
            .lock()
            .insert(customer.into(), vec![Fault::LoseAnswer; 1_000]);
    }
    let (placed, journal) = load(&api, &path, Duration::ZERO).await;
    assert!(matches!(placed, Err(Error::NoAnswer { .. })), "{placed:?}");
    let unanswered = journal.history().basket("1");
    assert!(
        unanswered.result.is_none() && unanswered.order_id.is_some(),
        "{unanswered:?}"
    );
    drop(journal);

    api.faults.lock().clear();
    let (placed, journal) = load(&api, &path, LONG).await;
    assert_eq!(placed.unwrap().orders.len(), 2);
    assert_eq!(journal.history().basket("1").order_id, unanswered.order_id);
    assert_eq!(api.placed.lock().len(), 2);
    drop(journal);

    // Every basket has a final answer: nothing more is sent.
    let calls = api.calls.lock().len();
    let (placed, _journal) = load(&api, &path, LONG).await;
    assert!(placed.unwrap().orders.is_empty());
    assert_eq!(api.calls.lock().len(), calls);
}

#[tokio::test]
async fn a_new_id_is_chosen_only_after_the_old_one_is_stale_and_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let api = Arc::new(FakeApi::default());
    // Faults are taken from the end.
    api.faults
        .lock()
        .insert("cyd".into(), vec![Fault::LoseAnswer, Fault::Stale]);
    let (placed, journal) = load(&api, &folder.path().join("journal"), LONG).await;
    assert_eq!(placed.unwrap().orders.len(), 2);
    let ids: Vec<_> = api
        .calls
        .lock()
        .iter()
        .filter(|call| call.customer_id == "cyd")
        .map(|call| call.order_id.clone())
        .collect();
    assert_eq!(ids.len(), 3);
    assert_ne!(ids[0], ids[1], "the stale id was replaced");
    assert_eq!(ids[1], ids[2], "the call without answer was retried");
    assert_eq!(
        journal
            .history()
            .basket("3")
            .order_id
            .map(|id| id.to_string()),
        Some(ids[2].clone())
    );
}

#[tokio::test]
async fn a_load_fails_when_the_clocks_differ() {
    let folder = tempfile::tempdir().unwrap();
    let api = Arc::new(FakeApi::default());
    api.faults
        .lock()
        .insert("cyd".into(), vec![Fault::Stale; 1_000]);
    let (placed, _journal) = load(&api, &folder.path().join("journal"), LONG).await;
    assert!(matches!(placed, Err(Error::Clocks)), "{placed:?}");
}

#[tokio::test]
async fn an_interrupted_load_sends_nothing() {
    let file = BasketFile::parse("b.csv", LINES.as_bytes()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let journal = Arc::new(Journal::open(&folder.path().join("journal"), &file).unwrap());
    let api = Arc::new(FakeApi::default());
    let settings = LoadSettings {
        concurrency: NonZeroUsize::MIN,
        per_second: None,
        patience: LONG,
        probe_every: None,
    };
    let progress = Arc::new(Progress::new("test", 3));
    let stop = CancellationToken::new();
    stop.cancel();
    let placed = place(
        &file.baskets,
        &journal,
        &start_server(&api).await,
        &settings,
        &progress,
        &stop,
    )
    .await
    .unwrap();
    assert!(placed.interrupted && placed.orders.is_empty());
    assert!(api.calls.lock().is_empty());
}
