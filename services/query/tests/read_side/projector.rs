//! The projector: from the log into the tables.

use contracts::orders::v1::{OrderEvent, OrderStatus, OrderStockReserved, order_event};
use contracts::payments::v1::PaymentStatus;
use contracts::shipping::v1::ShipmentStatus;
use contracts::{Inventory, Orders, Payments, Record as _, Service, Shipping};
use prost::Message as _;

use crate::events::{self, SKU, created, event_records, metadata, new_id, new_record};
use crate::fixture::{ReadSideFixture, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_event_reaches_its_table() {
    let fixture = ReadSideFixture::new(1).await;
    let running = fixture.start();
    let ids = [new_id(), new_id()];
    let mut records = Vec::new();
    for id in &ids {
        records.extend(event_records::<Orders>(id, 1, events::order("anne", 3)));
        records.extend(event_records::<Payments>(id, 1, events::payment()));
        records.extend(event_records::<Shipping>(id, 1, events::shipment()));
    }
    records.extend(event_records::<Inventory>(
        SKU,
        1,
        events::stock(&ids[0], 10),
    ));
    fixture.commit(&records);
    fixture.wait_until_applied().await;

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
    assert_eq!(running.metric_sum("ordermesh_query_events_total"), 31.0);

    running.stop();
    fixture.close().await;
}

/// I10; the position of an idle partition passes the markers.
#[tokio::test(flavor = "multi_thread")]
async fn aborted_records_never_appear_and_positions_pass_their_markers() {
    let fixture = ReadSideFixture::new(1).await;
    let running = fixture.start();
    let (committed, aborted) = (new_id(), new_id());
    fixture.commit(&event_records::<Orders>(
        &committed,
        1,
        [created("anne", 1)],
    ));
    // After the abort the same version gets another event.
    fixture.abort(&[
        new_record::<Orders>(metadata(&committed, 2), events::confirmed()),
        new_record::<Orders>(metadata(&aborted, 1), created("berta", 1)),
    ]);
    let reserved = OrderStockReserved {
        deadline_ms: events::START_MS,
    };
    fixture.commit(&event_records::<Orders>(
        &committed,
        2,
        [order_event::Event::OrderStockReserved(reserved)],
    ));
    fixture.wait_until_applied().await;
    // The log ends with an aborted transaction.
    fixture.abort(&event_records::<Orders>(&aborted, 1, [created("berta", 1)]));
    let end = fixture.end(Service::Orders, 0).await;
    // Two committed records, three aborted ones, and four markers.
    assert_eq!(end, 2 + 3 + 4);
    fixture.wait_until_applied().await;

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

/// I9: every event is applied exactly once over any number of restarts.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_continues_at_the_stored_positions() {
    let fixture = ReadSideFixture::new(1).await;
    let id = new_id();
    for (version, event) in (1..).zip(events::order("anne", 2)) {
        let running = fixture.start();
        fixture.commit(&event_records::<Orders>(&id, version, [event]));
        fixture.wait_until_applied().await;
        assert_eq!(
            running.metric_sum("ordermesh_query_events_total"),
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
    let records = event_records::<Orders>(&id, 1, events::order("anne", 2));
    fixture.commit(&records);
    fixture.wait_until_applied().await;
    fixture.commit(&records);
    fixture.commit(&event_records::<Inventory>(SKU, 1, events::stock(&id, 10)));
    fixture.commit(&event_records::<Inventory>(
        SKU,
        2,
        events::stock(&id, 10).into_iter().skip(1),
    ));
    fixture.wait_until_applied().await;
    assert_eq!(fixture.number("SELECT version FROM orders").await, 7);
    assert_eq!(fixture.number("SELECT count(*) FROM order_events").await, 7);
    assert_eq!(fixture.number("SELECT on_hand FROM stock").await, 8);
    assert_eq!(fixture.parked().await, []);
    running.stop();
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_order_stays_parked_after_a_restart_and_others_are_applied() {
    let fixture = ReadSideFixture::new(1).await;
    let running = fixture.start();
    let (incomplete, complete) = (new_id(), new_id());
    let order = events::order("anne", 1);
    fixture.commit(&event_records::<Orders>(
        &incomplete,
        1,
        order[..2].to_vec(),
    ));
    fixture.commit(&event_records::<Orders>(
        &incomplete,
        4,
        order[3..4].to_vec(),
    ));
    fixture.commit(&event_records::<Orders>(&complete, 1, order.clone()));
    fixture.wait_until_applied().await;
    running.stop();

    // The parked keys are loaded: the missing version alone does not unpark the order.
    let running = fixture.start();
    fixture.commit(&event_records::<Orders>(
        &incomplete,
        3,
        order[2..3].to_vec(),
    ));
    fixture.wait_until_applied().await;
    let versions: Vec<i64> = sqlx::query_scalar("SELECT version FROM orders ORDER BY version")
        .fetch_all(&fixture.pool)
        .await
        .unwrap();
    assert_eq!(versions, [2, 6]);
    assert_eq!(
        fixture.parked().await,
        [(incomplete, 3, 2, "version 4 follows version 2".to_owned())]
    );
    assert_eq!(running.metric_sum("ordermesh_query_events_total"), 1.0);
    running.stop();
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_cannot_be_applied_are_parked_and_do_not_block_others() {
    let fixture = ReadSideFixture::new(1).await;
    let running = fixture.start();
    let ids = [new_id(), new_id(), new_id(), new_id()];
    let good = new_id();

    let mut garbage = new_record::<Orders>(metadata(&ids[0], 1), created("anne", 1));
    garbage.value.truncate(20);
    let mut keyless = new_record::<Orders>(metadata(&good, 1), created("anne", 1));
    keyless.key = String::new();
    let mut wrong_key = new_record::<Orders>(metadata(&good, 1), created("anne", 1));
    wrong_key.key.clone_from(&ids[1]);
    let nul = new_record::<Orders>(metadata(&ids[2], 1), created("an\0ne", 1));
    let mut foreign = new_record::<Orders>(metadata(&ids[3], 1), created("anne", 1));
    foreign.value[..6].copy_from_slice(&registry::frame_header(4_711));
    let nul_sku = new_record::<Inventory>(metadata("A\0B", 1), events::stock(&good, 1).remove(0));

    fixture.commit(&[garbage, keyless, wrong_key, nul, foreign, nul_sku]);
    fixture.commit(&event_records::<Orders>(&good, 1, events::order("anne", 1)));
    fixture.wait_until_applied().await;

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
        assert!(
            error.contains(reason),
            "{error:?} does not contain {reason:?}"
        );
    }
    running.stop();
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_the_database_refuses_is_parked_and_the_rest_of_its_batch_is_applied() {
    let fixture = ReadSideFixture::new(1).await;
    let running = fixture.start();
    let (refused, good) = (new_id(), [new_id(), new_id()]);
    fixture.commit(&event_records::<Orders>(
        &good[0],
        1,
        events::order("anne", 1),
    ));
    fixture.wait_until_applied().await;
    // As a value out of range would do.
    for statement in [
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           RAISE EXCEPTION 'value out of range' USING ERRCODE = '22003';
         END $$",
        &format!(
            "CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON orders FOR EACH ROW
             WHEN (NEW.order_id = '{refused}') EXECUTE FUNCTION refuse()"
        ),
    ] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned()))
            .execute(&fixture.pool)
            .await
            .unwrap();
    }

    let mut records = event_records::<Orders>(&refused, 1, events::order("anne", 1));
    records.extend(event_records::<Orders>(
        &good[1],
        1,
        events::order("anne", 1),
    ));
    records.extend(event_records::<Inventory>(
        SKU,
        1,
        events::stock(&good[1], 10),
    ));
    fixture.commit(&records);
    fixture.wait_until_applied().await;

    assert_eq!(
        fixture
            .number("SELECT count(*) FROM orders WHERE version = 6")
            .await,
        2
    );
    assert_eq!(fixture.number("SELECT count(*) FROM stock").await, 1);
    let parked = fixture.parked().await;
    let [(key, _, count, error)] = parked.as_slice() else {
        panic!("one key is parked: {parked:?}");
    };
    assert_eq!((key, *count), (&refused, 6));
    assert!(error.contains("value out of range"), "{error}");
    assert!(running.readiness.is_ready());
    assert_eq!(
        running.metric_sum("ordermesh_query_database_failures_total"),
        0.0
    );
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
    let mut records = event_records::<Orders>(&id, 1, order.clone());
    records[1].value[..6].copy_from_slice(&registry::frame_header(UNRESOLVED));
    // A newer schema does not block the partition as long as the event is known.
    records[2].value[..6].copy_from_slice(&registry::frame_header(NEWER));
    fixture.commit(&records);
    fixture.commit(&event_records::<Inventory>(SKU, 1, events::stock(&id, 10)));
    eventually("the records before it are applied", async || {
        fixture.position(Service::Orders, 0).await == 1
    })
    .await;
    eventually("other topics are applied", async || {
        fixture.position(Service::Inventory, 0).await == 4
    })
    .await;
    assert_eq!(
        running.metric_sum("ordermesh_query_waiting_partitions"),
        1.0
    );
    learn(UNRESOLVED, registry::Resolution::Known);
    fixture.wait_until_applied().await;
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
    fixture.commit(&[events::FramedRecord {
        service: Service::Orders,
        key: id.clone(),
        value: unknown,
    }]);
    let other = new_id();
    fixture.commit(&event_records::<Orders>(&other, 1, order));
    eventually("the partition waits", async || {
        running.metric_sum("ordermesh_query_waiting_partitions") == 1.0
    })
    .await;
    assert_eq!(fixture.position(Service::Orders, 0).await, at);
    assert_eq!(fixture.parked().await, []);
    // With a version that this binary contains, an event without content is poison.
    learn(NEWER, registry::Resolution::Known);
    fixture.wait_until_applied().await;
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
    assert_eq!(
        running.metric_sum("ordermesh_query_waiting_partitions"),
        0.0
    );
    running.stop();
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_holds_the_bytes_of_the_log() {
    let fixture = ReadSideFixture::new(1).await;
    let running = fixture.start();
    let id = new_id();
    let records = event_records::<Orders>(&id, 1, events::order("anne", 2));
    fixture.commit(&records);
    fixture.wait_until_applied().await;
    let committed: Vec<(String, Vec<u8>)> =
        sqlx::query_as("SELECT kind, record FROM order_events ORDER BY version")
            .fetch_all(&fixture.pool)
            .await
            .unwrap();
    assert_eq!(committed.len(), records.len());
    for ((kind, record), sent) in committed.iter().zip(&records) {
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
