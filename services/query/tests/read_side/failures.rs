//! The projector when the database, the log or the registry fails or is replaced.

use contracts::{Orders, Service, Topic};
use rdkafka::admin::AdminOptions;
use rdkafka::{Offset, TopicPartitionList};
use registry::Schemas;

use crate::events::{self, event_records, new_id};
use crate::fixture::{ReadSideFixture, eventually};

/// The position fences: a projector that finds an unexpected position writes nothing and starts again from it.
#[tokio::test(flavor = "multi_thread")]
async fn a_moved_position_fences_the_projector() {
    let fixture = ReadSideFixture::new(1).await;
    let running = fixture.start();
    let id = new_id();
    let order = events::order("anne", 1);
    fixture.commit(&event_records::<Orders>(&id, 1, order[..2].to_vec()));
    fixture.wait_until_applied().await;

    sqlx::query("UPDATE positions SET next_offset = 0 WHERE topic = $1")
        .bind(fixture.topic(Service::Orders))
        .execute(&fixture.pool)
        .await
        .unwrap();
    fixture.commit(&event_records::<Orders>(&id, 3, order[2..].to_vec()));
    fixture.wait_until_applied().await;
    assert_eq!(running.metric_sum("ordermesh_query_fenced_total"), 1.0);
    assert_eq!(fixture.number("SELECT version FROM orders").await, 6);
    assert_eq!(fixture.number("SELECT count(*) FROM order_events").await, 6);
    // Six applied; the two from before the fencing were repeated.
    assert_eq!(running.metric_sum("ordermesh_query_events_total"), 8.0);
    running.stop();
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_database_connection_neither_loses_nor_repeats_events() {
    let fixture = ReadSideFixture::new(1).await;
    let running = fixture.start();
    let id = new_id();
    for (version, event) in (1..).zip(events::order("anne", 3)) {
        fixture.commit(&event_records::<Orders>(&id, version, [event]));
        sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'ordermesh-query'",
        )
        .execute(&fixture.pool)
        .await
        .unwrap();
    }
    fixture.wait_until_applied().await;
    assert!(running.metric_sum("ordermesh_query_database_failures_total") >= 1.0);
    assert_eq!(fixture.number("SELECT version FROM orders").await, 8);
    assert_eq!(fixture.number("SELECT count(*) FROM order_events").await, 8);
    running.wait_until_ready().await;
    running.stop();
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_database_makes_the_projector_not_ready() {
    let mut fixture = ReadSideFixture::new(1).await;
    let server = fixture.use_unreachable_database();
    let running = fixture.start();
    eventually("a failure is counted", async || {
        running.metric_sum("ordermesh_query_database_failures_total") >= 2.0
    })
    .await;
    let report = running.readiness.report();
    assert_eq!(
        report.components["projector"].as_deref(),
        Some("the database failed")
    );
    running.stop();
    fixture.use_database(server);
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_broker_makes_the_projector_not_ready() {
    let mut fixture = ReadSideFixture::new(1).await;
    let kafka = std::mem::replace(&mut fixture.kafka, "127.0.0.1:1".into());
    let running = fixture.start();
    eventually(
        "the readiness reports that the log does not answer",
        async || {
            let report = running.readiness.report();
            report.components["projector"].as_deref() == Some("the log does not answer")
        },
    )
    .await;
    running.stop();
    fixture.kafka = kafka;
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_log_stops_the_projector() {
    let fixture = ReadSideFixture::new(1).await;
    let running = fixture.start();
    fixture.commit(&event_records::<Orders>(
        &new_id(),
        1,
        events::order("anne", 1),
    ));
    fixture.wait_until_applied().await;
    running.stop();

    sqlx::query("UPDATE positions SET next_offset = 1000, last_offset = NULL WHERE topic = $1")
        .bind(fixture.topic(Service::Orders))
        .execute(&fixture.pool)
        .await
        .unwrap();
    let error = fixture.start().wait_for_failure().await;
    let topic = fixture.topic(Service::Orders);
    assert!(
        error.contains(&format!("position 1000 of {topic} [0] lies outside")),
        "{error}"
    );
    assert!(error.contains("holds 0 to 7"), "{error}");
    fixture.close().await;
}

/// Its offsets alone do not reveal that it is another log.
#[tokio::test(flavor = "multi_thread")]
async fn a_longer_log_of_the_same_name_stops_the_projector() {
    let fixture = ReadSideFixture::new(1).await;
    let running = fixture.start();
    fixture.commit(&event_records::<Orders>(
        &new_id(),
        1,
        events::order("anne", 1),
    ));
    fixture.wait_until_applied().await;
    running.stop();

    fixture.recreate_topic(Service::Orders).await;
    for _ in 0..3 {
        fixture.commit(&event_records::<Orders>(
            &new_id(),
            1,
            events::order("berta", 1),
        ));
    }
    let before = fixture.position(Service::Orders, 0).await;
    let error = fixture.start().wait_for_failure().await;
    let topic = fixture.topic(Service::Orders);
    assert!(
        error.contains(&format!("{topic} [0] is not the log")),
        "{error}"
    );
    assert_eq!(fixture.position(Service::Orders, 0).await, before);
    assert_eq!(fixture.number("SELECT count(*) FROM orders").await, 1);
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_its_beginning_stops_the_projector() {
    let fixture = ReadSideFixture::new(1).await;
    fixture.commit(&event_records::<Orders>(
        &new_id(),
        1,
        events::order("anne", 1),
    ));
    let topic = fixture.topic(Service::Orders);
    let mut before = TopicPartitionList::new();
    before
        .add_partition_offset(&topic, 0, Offset::Offset(3))
        .unwrap();
    fixture
        .admin()
        .delete_records(&before, &AdminOptions::new())
        .await
        .unwrap();
    let error = fixture.start().wait_for_failure().await;
    assert!(
        error.contains(&format!("position 0 of {topic} [0] lies outside")),
        "{error}"
    );
    assert_eq!(fixture.number("SELECT count(*) FROM orders").await, 0);
    fixture.close().await;
}

/// A replaced registry must not turn every record into poison.
#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_registry_stops_the_projector() {
    let fixture = ReadSideFixture::new(1).await;
    let running = fixture.start();
    fixture.commit(&event_records::<Orders>(
        &new_id(),
        1,
        events::order("anne", 1),
    ));
    fixture.wait_until_applied().await;
    running.stop();

    fixture.commit(&event_records::<Orders>(
        &new_id(),
        1,
        events::order("anne", 1),
    ));
    let replaced = Schemas::fixed(&Service::ALL.map(|service| (service, Topic::Events, 1)));
    let error = fixture.start_with(replaced).wait_for_failure().await;
    assert!(error.contains("no longer knows schema 100"), "{error}");
    assert_eq!(fixture.parked().await, []);

    let running = fixture.start();
    fixture.wait_until_applied().await;
    assert_eq!(fixture.number("SELECT count(*) FROM orders").await, 2);
    running.stop();
    fixture.close().await;
}

/// A read model is the fold of one log: another cluster, another prefix or another number of partitions is refused
/// before any of its events is applied.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_model_of_another_log_stops_the_projector() {
    let mut fixture = ReadSideFixture::new(1).await;
    let running = fixture.start();
    fixture.commit(&event_records::<Orders>(
        &new_id(),
        1,
        events::order("anne", 1),
    ));
    fixture.wait_until_applied().await;
    running.stop();

    let refused = async |fixture: &ReadSideFixture, what: &str| {
        let error = fixture.start().wait_for_failure().await;
        assert!(error.contains("the fold of another log"), "{error}");
        assert!(error.contains(what), "{what}: {error}");
        assert_eq!(fixture.number("SELECT count(*) FROM positions").await, 4);
        assert_eq!(fixture.number("SELECT count(*) FROM orders").await, 1);
    };
    let prefix = std::mem::replace(&mut fixture.prefix, "another-".into());
    refused(&fixture, r#"prefix "another-""#).await;
    fixture.prefix = prefix;
    fixture.partitions = 2;
    refused(&fixture, "2 partitions").await;
    fixture.partitions = 1;
    sqlx::query("UPDATE origin SET cluster_id = 'elsewhere'")
        .execute(&fixture.pool)
        .await
        .unwrap();
    refused(&fixture, "cluster elsewhere").await;
    fixture.close().await;
}
