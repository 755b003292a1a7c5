//! The read API over tables that the projector filled.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use chassis::grpc::Deadline;
use contracts::orders::v1::OrderStatus;
use contracts::query::v1::{
    EventsPosition, GetOrderHistoryRequest, GetOrderRequest, GetStockRequest, ListOrdersRequest,
};
use contracts::{Inventory, Orders, Service};
use tonic::{Code, Request};

use crate::events::{self, SKU, created, event_records, metadata, new_id, new_record};
use crate::fixture::{ReadSideFixture, RunningReadSide};

fn get(order_id: &str, min_version: u64) -> GetOrderRequest {
    GetOrderRequest {
        order_id: order_id.into(),
        min_version,
        min_position: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_its_history_and_stock_are_read_back() {
    let fixture = ReadSideFixture::new(1).await;
    let mut running = fixture.start();
    let id = new_id();
    fixture.commit(&event_records::<Orders>(&id, 1, events::order("anne", 3)));
    fixture.commit(&event_records::<Inventory>(SKU, 1, events::stock(&id, 10)));
    fixture.wait_until_applied().await;

    let order = running
        .client
        .get_order(get(&id, 0))
        .await
        .unwrap()
        .into_inner()
        .order
        .unwrap();
    assert_eq!(order.order_id, id);
    assert_eq!(order.status(), OrderStatus::Delivered);
    assert_eq!(order.lines, events::lines(3));
    assert_eq!(
        (order.total, order.currency.as_str(), order.version),
        (1500, "GBP", 8)
    );
    let ms = |time: Option<prost_types::Timestamp>| {
        let time = time.unwrap();
        time.seconds * 1000 + i64::from(time.nanos) / 1_000_000 - events::START_MS
    };
    assert_eq!(
        (
            ms(order.placed_at),
            ms(order.confirmed_at),
            ms(order.updated_at)
        ),
        (1, 6, 8)
    );

    let request = GetOrderHistoryRequest {
        order_id: id.clone(),
    };
    let history = running
        .client
        .get_order_history(request)
        .await
        .unwrap()
        .into_inner()
        .events;
    assert_eq!(history.len(), 8);
    assert_eq!(
        history
            .iter()
            .map(|event| event.metadata.as_ref().unwrap().aggregate_version)
            .collect::<Vec<_>>(),
        (1..=8).collect::<Vec<_>>()
    );

    let request = GetStockRequest {
        sku: SKU.into(),
        min_version: 3,
    };
    let stock = running
        .client
        .get_stock(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (
            stock.on_hand,
            stock.reserved,
            stock.available,
            stock.deducted
        ),
        (8, 0, 8, 2)
    );
    assert_eq!((stock.received, stock.version), (10, 3));
    running.stop();
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_and_unknown_requests_are_refused() {
    let fixture = ReadSideFixture::new(1).await;
    let mut running = fixture.start();
    running.wait_until_ready().await;
    let client = &mut running.client;
    let list = |page_token: &str| ListOrdersRequest {
        page_token: page_token.into(),
        ..Default::default()
    };
    assert_eq!(
        client
            .get_order(get(&new_id(), 0))
            .await
            .unwrap_err()
            .code(),
        Code::NotFound
    );
    assert_eq!(
        client
            .get_order(get("order 1", 0))
            .await
            .unwrap_err()
            .code(),
        Code::InvalidArgument
    );
    assert_eq!(
        client
            .get_order(get(&new_id(), u64::MAX))
            .await
            .unwrap_err()
            .code(),
        Code::InvalidArgument
    );
    let history = GetOrderHistoryRequest { order_id: new_id() };
    assert_eq!(
        client.get_order_history(history).await.unwrap_err().code(),
        Code::NotFound
    );
    for sku in ["unknown", "\0"] {
        let stock = GetStockRequest {
            sku: sku.into(),
            min_version: 0,
        };
        assert_eq!(
            client.get_stock(stock).await.unwrap_err().code(),
            Code::NotFound
        );
    }
    let bad_page = client.list_orders(list("nonsense!")).await.unwrap_err();
    assert_eq!(bad_page.code(), Code::InvalidArgument);
    assert!(String::from_utf8_lossy(bad_page.details()).contains("page_token"));
    let customer = ListOrdersRequest {
        customer_id: "\0".into(),
        ..Default::default()
    };
    assert_eq!(
        client
            .list_orders(customer)
            .await
            .unwrap()
            .into_inner()
            .orders,
        []
    );
    let mut nowhere = get(&new_id(), 0);
    nowhere.min_position = Some(EventsPosition {
        partition: 1,
        offset: 0,
    });
    assert_eq!(
        client.get_order(nowhere).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    running.stop();
    fixture.close().await;
}

/// Every page of a list, in order.
async fn pages(running: &mut RunningReadSide, mut request: ListOrdersRequest) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    loop {
        let page = running
            .client
            .list_orders(request.clone())
            .await
            .unwrap()
            .into_inner();
        pages.push(
            page.orders
                .into_iter()
                .map(|order| order.order_id)
                .collect(),
        );
        if page.next_page_token.is_empty() {
            return pages;
        }
        request.page_token = page.next_page_token;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_contain_every_order_once() {
    let fixture = ReadSideFixture::new(1).await;
    let mut running = fixture.start();
    // Several orders at each time; every third one is confirmed, every fifth one is Bob's.
    let mut orders = Vec::new();
    let mut records = Vec::new();
    for number in 0..100_usize {
        let id = new_id();
        let customer = if number % 5 == 0 { "bob" } else { "anne" };
        let mut first = metadata(&id, 1);
        first.time_ms += i64::try_from(number / 7).unwrap();
        records.push(new_record::<Orders>(first, created(customer, 1)));
        if number % 3 == 0 {
            records.push(new_record::<Orders>(metadata(&id, 2), events::confirmed()));
        }
        orders.push((number / 7, id, number));
    }
    fixture.commit(&records);
    fixture.wait_until_applied().await;
    orders.sort_unstable_by(|one, other| other.cmp(one));

    let (pending, confirmed) = (OrderStatus::Pending as i32, OrderStatus::Confirmed as i32);
    for (statuses, customer) in [
        (vec![], ""),
        (vec![pending], ""),
        (vec![confirmed, pending, confirmed], ""),
        (vec![], "bob"),
        (vec![confirmed], "bob"),
        (vec![], "carol"),
    ] {
        let wanted: Vec<_> = orders
            .iter()
            .filter(|(_, _, number)| customer.is_empty() || (customer == "bob" && number % 5 == 0))
            .filter(|(_, _, number)| {
                let status = if number % 3 == 0 { confirmed } else { pending };
                statuses.is_empty() || statuses.contains(&status)
            })
            .map(|(_, id, _)| id.clone())
            .collect();
        for page_size in [1, 7, 20, 50, 500] {
            let request = ListOrdersRequest {
                statuses: statuses.clone(),
                customer_id: customer.into(),
                page_size,
                ..Default::default()
            };
            let pages = pages(&mut running, request).await;
            let (last, full) = pages.split_last().unwrap();
            assert!(full.iter().all(|page| page.len() == page_size as usize));
            assert!(last.len() <= page_size as usize && (full.is_empty() || !last.is_empty()));
            assert_eq!(
                pages.concat(),
                wanted,
                "{statuses:?} {customer:?} by {page_size}"
            );
        }
    }
    running.stop();
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_combine_time_bounds_with_other_filters() {
    let fixture = ReadSideFixture::new(1).await;
    let mut running = fixture.start();
    let (pending, confirmed) = (OrderStatus::Pending as i32, OrderStatus::Confirmed as i32);
    // Two orders of every millisecond.
    let mut orders = Vec::new();
    let mut records = Vec::new();
    for number in 0..40_i64 {
        let id = new_id();
        let customer = if number % 4 < 2 { "bob" } else { "anne" };
        let mut first = metadata(&id, 1);
        first.time_ms = events::START_MS + number / 2;
        records.push(new_record::<Orders>(first, created(customer, 1)));
        if number % 3 == 0 {
            records.push(new_record::<Orders>(metadata(&id, 2), events::confirmed()));
        }
        orders.push((number / 2, id, number));
    }
    fixture.commit(&records);
    fixture.wait_until_applied().await;
    orders.sort_unstable_by(|one, other| other.cmp(one));

    let at = |ms: i64, nanos: i32| {
        let ms = events::START_MS + ms;
        let in_second = i32::try_from(ms % 1000).unwrap() * 1_000_000;
        prost_types::Timestamp {
            seconds: ms / 1000,
            nanos: in_second + nanos,
        }
    };
    // The expected milliseconds.
    for (from, before, within) in [
        (Some(at(5, 0)), None, 5..20),
        (None, Some(at(5, 0)), 0..5),
        (Some(at(5, 0)), Some(at(7, 0)), 5..7),
        (Some(at(5, 1)), Some(at(7, 1)), 6..8),
        (Some(at(5, 0)), Some(at(5, 0)), 5..5),
        (Some(at(5, 0)), Some(at(5, 1)), 5..6),
        (
            Some(prost_types::Timestamp::default()),
            Some(at(9_000_000_000, 0)),
            0..20,
        ),
    ] {
        for (statuses, customer) in [
            (vec![], ""),
            (vec![confirmed, pending], ""),
            (vec![confirmed], "bob"),
        ] {
            let wanted: Vec<_> = orders
                .iter()
                .filter(|(ms, ..)| within.contains(ms))
                .filter(|(_, _, number)| customer.is_empty() || number % 4 < 2)
                .filter(|(_, _, number)| statuses != [confirmed] || number % 3 == 0)
                .map(|(_, id, _)| id.clone())
                .collect();
            for page_size in [1, 3, 50] {
                let request = ListOrdersRequest {
                    statuses: statuses.clone(),
                    customer_id: customer.into(),
                    page_size,
                    placed_from: from,
                    placed_before: before,
                    ..Default::default()
                };
                assert_eq!(
                    pages(&mut running, request).await.concat(),
                    wanted,
                    "{from:?} {before:?} {statuses:?} {customer:?} by {page_size}"
                );
            }
        }
    }
    let backwards = ListOrdersRequest {
        placed_from: Some(at(5, 1)),
        placed_before: Some(at(5, 0)),
        ..Default::default()
    };
    let refused = running.client.list_orders(backwards).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(String::from_utf8_lossy(refused.details()).contains("placed_before"));
    running.stop();
    fixture.close().await;
}

/// Orders that are placed or change between two pages are neither skipped nor repeated.
#[tokio::test(flavor = "multi_thread")]
async fn pages_are_stable_while_orders_change() {
    let fixture = ReadSideFixture::new(1).await;
    let mut running = fixture.start();
    let ids: Vec<_> = (0..30).map(|_| new_id()).collect();
    fixture.commit(
        &ids.iter()
            .map(|id| new_record::<Orders>(metadata(id, 1), created("anne", 1)))
            .collect::<Vec<_>>(),
    );
    fixture.wait_until_applied().await;
    let mut seen = Vec::new();
    let mut request = ListOrdersRequest {
        page_size: 4,
        ..Default::default()
    };
    for id in &ids {
        let page = running
            .client
            .list_orders(request.clone())
            .await
            .unwrap()
            .into_inner();
        seen.extend(page.orders.into_iter().map(|order| order.order_id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
        let mut fresh = metadata(&new_id(), 1);
        fresh.time_ms += 1_000;
        fixture.commit(&[
            new_record::<Orders>(fresh, created("anne", 1)),
            new_record::<Orders>(metadata(id, 2), events::confirmed()),
        ]);
        fixture.wait_until_applied().await;
    }
    assert_eq!(seen.len(), ids.len());
    assert_eq!(
        seen.into_iter().collect::<HashSet<_>>(),
        ids.into_iter().collect()
    );
    running.stop();
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_waits_for_the_version_it_asks_for() {
    let fixture = ReadSideFixture::new(1).await;
    let mut running = fixture.start();
    running.wait_until_ready().await;
    let id = new_id();
    let mut client = running.client.clone();
    let request = get(&id, 6);
    let read = tokio::spawn(async move { client.get_order(request).await });
    // Also when the projector of another process applies it: this one's projector owns no partition.
    let other = fixture.start();
    other.wait_until_ready().await;
    let mut other_client = other.client.clone();
    let request = get(&id, 6);
    let other_read = tokio::spawn(async move { other_client.get_order(request).await });
    for (version, event) in (1..).zip(events::order("anne", 1)) {
        assert!(!read.is_finished());
        fixture.commit(&event_records::<Orders>(&id, version, [event]));
    }
    for read in [read, other_read] {
        let order = read.await.unwrap().unwrap().into_inner().order.unwrap();
        assert_eq!((order.version, order.lines.len()), (6, 1));
    }
    let stock = GetStockRequest {
        sku: SKU.into(),
        min_version: 2,
    };
    let mut client = running.client.clone();
    let read = tokio::spawn(async move { client.get_stock(stock).await });
    fixture.commit(&event_records::<Inventory>(SKU, 1, events::stock(&id, 10)));
    assert!(read.await.unwrap().unwrap().into_inner().version >= 2);

    // A version that never comes.
    let timeout = Duration::from_millis(300);
    let mut request = Request::new(get(&id, 7));
    request.extensions_mut().insert(Deadline::after(timeout));
    let start = Instant::now();
    assert_eq!(
        running.client.get_order(request).await.unwrap_err().code(),
        Code::DeadlineExceeded
    );
    assert!(
        start.elapsed() >= timeout / 2,
        "it waited {:?}",
        start.elapsed()
    );
    other.stop();
    running.stop();
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_waits_for_the_position_it_asks_for() {
    let fixture = ReadSideFixture::new(1).await;
    let mut running = fixture.start();
    running.wait_until_ready().await;
    let (id, unknown) = (new_id(), new_id());
    fixture.commit(&event_records::<Orders>(&id, 1, [created("anne", 1)]));
    // The record is followed by its marker, two aborted records and another marker.
    let mut at = get(&unknown, 0);
    at.min_position = Some(EventsPosition {
        partition: 0,
        offset: 5,
    });
    let mut client = running.client.clone();
    let request = at.clone();
    let read = tokio::spawn(async move { client.get_order(request).await });
    fixture.abort(&event_records::<Orders>(
        &unknown,
        1,
        [created("anne", 1), events::confirmed()],
    ));
    assert_eq!(read.await.unwrap().unwrap_err().code(), Code::NotFound);
    assert_eq!(fixture.position(Service::Orders, 0).await, 5);

    at.min_position = Some(EventsPosition {
        partition: 0,
        offset: 6,
    });
    let mut request = Request::new(at);
    request
        .extensions_mut()
        .insert(Deadline::after(Duration::from_millis(300)));
    assert_eq!(
        running.client.get_order(request).await.unwrap_err().code(),
        Code::DeadlineExceeded
    );
    running.stop();
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_is_unavailable_without_its_database() {
    let mut fixture = ReadSideFixture::new(1).await;
    let server = fixture.use_unreachable_database();
    let mut running = fixture.start();
    for _ in 0..3 {
        assert_eq!(
            running
                .client
                .get_order(get(&new_id(), 0))
                .await
                .unwrap_err()
                .code(),
            Code::Unavailable
        );
    }
    running.stop();
    fixture.use_database(server);
    fixture.close().await;
}
