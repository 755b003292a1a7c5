//! From the log into the tables.

use contracts::orders::v1::{OrderEvent, OrderStatus, OrderStockReserved, order_event};
use contracts::payments::v1::PaymentStatus;
use contracts::shipping::v1::ShipmentStatus;
use contracts::{Inventory, Orders, Payments, Record as _, Service, Shipping};
use prost::Message as _;

use crate::events::{self, SKU, created, life, metadata, new_id, new_record};
use crate::fixture::{ReadSideFixture, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_event_reaches_its_table() {
    let fixture = ReadSideFixture::new(1).await;
    let running = fixture.start();
    let ids = [new_id(), new_id()];
    let mut records = Vec::new();
    for id in &ids {
        records.extend(life::<Orders>(id, 1, events::order("anne", 3)));
        records.extend(life::<Payments>(id, 1, events::payment()));
        records.extend(life::<Shipping>(id, 1, events::shipment()));
    }
    records.extend(life::<Inventory>(SKU, 1, events::stock(&ids[0], 10)));
    fixture.commit(&records);
    fixture.applied().await;

    assert_eq!(
        fixture
            .number("SELECT count(*) FROM orders WHERE version = 8 AND total = 1500")
            .await,
        2
    );
    assert_eq!(fixture.number("SELECT count(*) FROM order_lines").await, 6);
    assert_eq!(
        fixture.number("SELECT count(*) FROM order_events").await,
        16
    );
    assert_eq!(
        fixture.number("SELECT max(status)::int8 FROM orders").await,
        OrderStatus::Delivered as i64
    );
    assert_eq!(
        fixture
            .number("SELECT sum(status)::int8 FROM payments WHERE amount = 500")
            .await,
        2 * PaymentStatus::Settled as i64
    );
    assert_eq!(
        fixture
            .number("SELECT sum(status)::int8 FROM shipments WHERE tracking_number = 'T1'")
            .await,
        2 * ShipmentStatus::Delivered as i64
    );
    let stock: (i64, i64, i64, i64, i64) =
        sqlx::query_as("SELECT on_hand, reserved, received, deducted, version FROM stock")
            .fetch_one(&fixture.pool)
            .await
            .unwrap();
    assert_eq!(stock, (8, 0, 10, 2, 3));
    assert_eq!(fixture.parked().await, []);
    assert!(running.readiness.is_ready());
    assert_eq!(running.metric("ordermesh_query_events_total"), 31.0);

    running.stop();
    fixture.close().await;
}

/// I10, and a quiet partition's position passes the markers.
#[tokio::test(flavor = "multi_thread")]
async fn aborted_records_never_appear_and_positions_pass_their_markers() {
    let fixture = ReadSideFixture::new(1).await;
    let running = fixture.start();
    let (kept, ghost) = (new_id(), new_id());
    fixture.commit(&life::<Orders>(&kept, 1, [created("anne", 1)]));
    // The same version is decided again after the abort, in another way.
    fixture.abort(&[
        new_record::<Orders>(metadata(&kept, 2), events::confirmed()),
        new_record::<Orders>(metadata(&ghost, 1), created("nobody", 1)),
    ]);
    let reserved = OrderStockReserved {
        deadline_ms: events::START_MS,
    };
    fixture.commit(&life::<Orders>(
        &kept,
        2,
        [order_event::Event::OrderStockReserved(reserved)],
    ));
    fixture.applied().await;
    // Nothing but an aborted transaction at the end of the log.
    fixture.abort(&life::<Orders>(&ghost, 1, [created("nobody", 1)]));
    let end = fixture.end(Service::Orders, 0).await;
    // Two visible records; two, one and one of the others; and every transaction's marker.
    assert_eq!(end, 2 + 3 + 4);
    fixture.applied().await;

    assert_eq!(fixture.number("SELECT count(*) FROM orders").await, 1);
    assert_eq!(
        fixture.number("SELECT status::int8 FROM orders").await,
        OrderStatus::AwaitingPayment as i64
    );
    assert_eq!(fixture.number("SELECT count(*) FROM order_events").await, 2);
    let offsets: Vec<i64> =
        sqlx::query_scalar(r#"SELECT "offset" FROM order_events ORDER BY version"#)
            .fetch_all(&fixture.pool)
            .await
            .unwrap();
    assert_eq!(offsets, [0, 5]);

    running.stop();
    fixture.close().await;
}

/// I9: what is applied stays applied, once, over any number of restarts.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_where_it_stopped() {
    let fixture = ReadSideFixture::new(1).await;
    let id = new_id();
    for (version, event) in (1..).zip(events::order("anne", 2)) {
        let running = fixture.start();
        fixture.commit(&life::<Orders>(&id, version, [event]));
        fixture.applied().await;
        assert_eq!(
            running.metric("ordermesh_query_events_total"),
            1.0,
            "events before version {version} came again"
        );
        running.stop();
    }
    assert_eq!(fixture.number("SELECT version FROM orders").await, 7);
    assert_eq!(fixture.number("SELECT count(*) FROM order_events").await, 7);
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_events_are_skipped() {
    let fixture = ReadSideFixture::new(1).await;
    let running = fixture.start();
    let id = new_id();
    let records = life::<Orders>(&id, 1, events::order("anne", 2));
    fixture.commit(&records);
    fixture.applied().await;
    fixture.commit(&records);
    fixture.commit(&life::<Inventory>(SKU, 1, events::stock(&id, 10)));
    fixture.commit(&life::<Inventory>(
        SKU,
        2,
        events::stock(&id, 10).into_iter().skip(1),
    ));
    fixture.applied().await;
    assert_eq!(fixture.number("SELECT version FROM orders").await, 7);
    assert_eq!(fixture.number("SELECT count(*) FROM order_events").await, 7);
    assert_eq!(fixture.number("SELECT on_hand FROM stock").await, 8);
    assert_eq!(fixture.parked().await, []);
    running.stop();
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_parks_its_order_over_a_restart_and_others_flow() {
    let fixture = ReadSideFixture::new(1).await;
    let running = fixture.start();
    let (torn, whole) = (new_id(), new_id());
    let order = events::order("anne", 1);
    fixture.commit(&life::<Orders>(&torn, 1, order[..2].to_vec()));
    fixture.commit(&life::<Orders>(&torn, 4, order[3..4].to_vec()));
    fixture.commit(&life::<Orders>(&whole, 1, order.clone()));
    fixture.applied().await;
    running.stop();

    // The parked set is read back: the missing version alone does not bring the order back.
    let running = fixture.start();
    fixture.commit(&life::<Orders>(&torn, 3, order[2..3].to_vec()));
    fixture.applied().await;
    let versions: Vec<i64> = sqlx::query_scalar("SELECT version FROM orders ORDER BY version")
        .fetch_all(&fixture.pool)
        .await
        .unwrap();
    assert_eq!(versions, [2, 6]);
    assert_eq!(
        fixture.parked().await,
        [(torn, 3, 2, "version 4 follows version 2".to_owned())]
    );
    assert_eq!(running.metric("ordermesh_query_events_total"), 1.0);
    running.stop();
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_cannot_be_applied_are_set_aside_and_block_nobody() {
    let fixture = ReadSideFixture::new(1).await;
    let running = fixture.start();
    let ids = [new_id(), new_id(), new_id(), new_id()];
    let good = new_id();

    let mut garbage = new_record::<Orders>(metadata(&ids[0], 1), created("anne", 1));
    garbage.value.truncate(20);
    let mut keyless = new_record::<Orders>(metadata(&good, 1), created("anne", 1));
    keyless.key = String::new();
    let mut strange = new_record::<Orders>(metadata(&good, 1), created("anne", 1));
    strange.key.clone_from(&ids[1]);
    let nul = new_record::<Orders>(metadata(&ids[2], 1), created("an\0ne", 1));
    let mut foreign = new_record::<Orders>(metadata(&ids[3], 1), created("anne", 1));
    foreign.value[..6].copy_from_slice(&registry::frame_header(4_711));
    let nul_sku = new_record::<Inventory>(metadata("A\0B", 1), events::stock(&good, 1).remove(0));

    fixture.commit(&[garbage, keyless, strange, nul, foreign, nul_sku]);
    fixture.commit(&life::<Orders>(&good, 1, events::order("anne", 1)));
    fixture.applied().await;

    assert_eq!(fixture.number("SELECT count(*) FROM orders").await, 1);
    assert_eq!(fixture.number("SELECT version FROM orders").await, 6);
    let parked: Vec<(i64, String)> =
        sqlx::query_as("SELECT first_offset, error FROM parked ORDER BY topic DESC, first_offset")
            .fetch_all(&fixture.pool)
            .await
            .unwrap();
    let reasons = [
        "cannot be decoded",
        "is not the aggregate",
        "is not the aggregate",
        "NUL",
        "schema 4711",
        "NUL",
    ];
    assert_eq!(parked.len(), reasons.len(), "{parked:?}");
    for ((_, error), reason) in parked.iter().zip(reasons) {
        assert!(error.contains(reason), "{error:?} does not say {reason:?}");
    }
    running.stop();
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_waits_for_the_registry_and_for_an_upgrade() {
    const UNRESOLVED: u32 = 900;
    const NEWER: u32 = 901;
    let fixture = ReadSideFixture::new(1).await;
    let learn = |id, resolution| {
        fixture
            .schemas
            .learn(Service::Orders, contracts::Topic::Events, id, resolution);
    };
    learn(UNRESOLVED, registry::Resolution::Pending);
    learn(NEWER, registry::Resolution::Newer);
    let running = fixture.start();
    let id = new_id();
    let order = events::order("anne", 1);
    let mut records = life::<Orders>(&id, 1, order.clone());
    records[1].value[..6].copy_from_slice(&registry::frame_header(UNRESOLVED));
    // A newer schema is no obstacle as long as the event is one we know.
    records[2].value[..6].copy_from_slice(&registry::frame_header(NEWER));
    fixture.commit(&records);
    fixture.commit(&life::<Inventory>(SKU, 1, events::stock(&id, 10)));
    eventually("what comes before is applied", async || {
        fixture.position(Service::Orders, 0).await == 1
    })
    .await;
    eventually("other topics flow", async || {
        fixture.position(Service::Inventory, 0).await == 4
    })
    .await;
    assert_eq!(running.metric("ordermesh_query_waiting_partitions"), 1.0);
    learn(UNRESOLVED, registry::Resolution::Known);
    fixture.applied().await;
    assert_eq!(fixture.number("SELECT version FROM orders").await, 6);

    // An event of a kind that this binary does not know.
    let mut unknown = registry::frame_header(NEWER).to_vec();
    OrderEvent {
        metadata: Some(metadata(&id, 7)),
        event: None,
    }
    .encode(&mut unknown)
    .unwrap();
    let at = fixture.position(Service::Orders, 0).await;
    fixture.commit(&[events::Sealed {
        service: Service::Orders,
        key: id.clone(),
        value: unknown,
    }]);
    let other = new_id();
    fixture.commit(&life::<Orders>(&other, 1, order));
    eventually("it waits", async || {
        running.metric("ordermesh_query_waiting_partitions") == 1.0
    })
    .await;
    assert_eq!(fixture.position(Service::Orders, 0).await, at);
    assert_eq!(fixture.parked().await, []);
    // With a version that this binary contains, an event without content is poison.
    learn(NEWER, registry::Resolution::Known);
    fixture.applied().await;
    assert_eq!(
        fixture.parked().await,
        [(id, at, 1, "metadata or event is missing".to_owned())]
    );
    assert_eq!(
        fixture
            .number("SELECT count(*) FROM orders WHERE version = 6")
            .await,
        2
    );
    assert_eq!(running.metric("ordermesh_query_waiting_partitions"), 0.0);
    running.stop();
    fixture.close().await;
}

/// The history holds the records as they stand in the log.
#[tokio::test(flavor = "multi_thread")]
async fn history_keeps_the_bytes_of_the_log() {
    let fixture = ReadSideFixture::new(1).await;
    let running = fixture.start();
    let id = new_id();
    let records = life::<Orders>(&id, 1, events::order("anne", 2));
    fixture.commit(&records);
    fixture.applied().await;
    let kept: Vec<(String, Vec<u8>)> =
        sqlx::query_as("SELECT kind, record FROM order_events ORDER BY version")
            .fetch_all(&fixture.pool)
            .await
            .unwrap();
    assert_eq!(kept.len(), records.len());
    for ((kind, record), sent) in kept.iter().zip(&records) {
        assert_eq!(record, &sent.value[registry::frame::HEADER_LEN..]);
        let (_, event) = OrderEvent::decode(record.as_slice())
            .unwrap()
            .into_parts()
            .unwrap();
        assert_eq!(kind, contracts::Body::kind(&event));
    }
    running.stop();
    fixture.close().await;
}
