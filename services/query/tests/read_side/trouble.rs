//! What the projector does when the ground moves.

use contracts::{Orders, Service, Topic};
use rdkafka::admin::AdminOptions;
use rdkafka::{Offset, TopicPartitionList};
use registry::Schemas;

use crate::events::{self, life, new_id};
use crate::stand::{Stand, eventually};

/// The position is the fence: whoever finds it elsewhere writes nothing and begins anew from where it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_moved_position_fences_the_projector() {
    let stand = Stand::new(1).await;
    let running = stand.start();
    let id = new_id();
    let order = events::order("anne", 1);
    stand.commit(&life::<Orders>(&id, 1, order[..2].to_vec()));
    stand.applied().await;

    sqlx::query("UPDATE positions SET next_offset = 0 WHERE topic = $1")
        .bind(stand.topic(Service::Orders))
        .execute(&stand.pool)
        .await
        .unwrap();
    stand.commit(&life::<Orders>(&id, 3, order[2..].to_vec()));
    stand.applied().await;
    assert_eq!(running.metric("ordermesh_query_fenced_total"), 1.0);
    assert_eq!(stand.number("SELECT version FROM orders").await, 6);
    assert_eq!(stand.number("SELECT count(*) FROM order_events").await, 6);
    // Six applied; the two from before the fence came again.
    assert_eq!(running.metric("ordermesh_query_events_total"), 8.0);
    running.stop();
    stand.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_made_again_and_nothing_is_lost_or_doubled() {
    let stand = Stand::new(1).await;
    let running = stand.start();
    let id = new_id();
    for (version, event) in (1..).zip(events::order("anne", 3)) {
        stand.commit(&life::<Orders>(&id, version, [event]));
        sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'ordermesh-query'",
        )
        .execute(&stand.pool)
        .await
        .unwrap();
    }
    stand.applied().await;
    assert!(running.metric("ordermesh_query_database_failures_total") >= 1.0);
    assert_eq!(stand.number("SELECT version FROM orders").await, 8);
    assert_eq!(stand.number("SELECT count(*) FROM order_events").await, 8);
    running.ready().await;
    running.stop();
    stand.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_shows_in_the_readiness() {
    let mut stand = Stand::new(1).await;
    let server = stand.point_at_nothing();
    let running = stand.start();
    eventually("a failure is counted", async || {
        running.metric("ordermesh_query_database_failures_total") >= 2.0
    })
    .await;
    let report = running.readiness.report();
    assert_eq!(
        report.components["projector"].as_deref(),
        Some("the database failed")
    );
    running.stop();
    stand.point_at(server);
    stand.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_away_shows_in_the_readiness() {
    let mut stand = Stand::new(1).await;
    let kafka = std::mem::replace(&mut stand.kafka, "127.0.0.1:1".into());
    let running = stand.start();
    eventually("it says that the log is away", async || {
        let report = running.readiness.report();
        report.components["projector"].as_deref() == Some("the log does not answer")
    })
    .await;
    running.stop();
    stand.kafka = kafka;
    stand.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_log_stops_the_projector() {
    let stand = Stand::new(1).await;
    let running = stand.start();
    stand.commit(&life::<Orders>(&new_id(), 1, events::order("anne", 1)));
    stand.applied().await;
    running.stop();

    sqlx::query("UPDATE positions SET next_offset = 1000, last_offset = NULL WHERE topic = $1")
        .bind(stand.topic(Service::Orders))
        .execute(&stand.pool)
        .await
        .unwrap();
    let error = stand.start().failed().await;
    let topic = stand.topic(Service::Orders);
    assert!(
        error.contains(&format!("position 1000 of {topic} [0] lies outside")),
        "{error}"
    );
    assert!(error.contains("holds 0 to 7"), "{error}");
    stand.close().await;
}

/// Its offsets alone would let it pass.
#[tokio::test(flavor = "multi_thread")]
async fn a_longer_log_of_the_same_name_stops_the_projector() {
    let stand = Stand::new(1).await;
    let running = stand.start();
    stand.commit(&life::<Orders>(&new_id(), 1, events::order("anne", 1)));
    stand.applied().await;
    running.stop();

    stand.recreate(Service::Orders).await;
    for _ in 0..3 {
        stand.commit(&life::<Orders>(&new_id(), 1, events::order("berta", 1)));
    }
    let before = stand.position(Service::Orders, 0).await;
    let error = stand.start().failed().await;
    let topic = stand.topic(Service::Orders);
    assert!(
        error.contains(&format!("{topic} [0] is not the log")),
        "{error}"
    );
    assert_eq!(stand.position(Service::Orders, 0).await, before);
    assert_eq!(stand.number("SELECT count(*) FROM orders").await, 1);
    stand.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_its_beginning_stops_the_projector() {
    let stand = Stand::new(1).await;
    stand.commit(&life::<Orders>(&new_id(), 1, events::order("anne", 1)));
    let topic = stand.topic(Service::Orders);
    let mut before = TopicPartitionList::new();
    before
        .add_partition_offset(&topic, 0, Offset::Offset(3))
        .unwrap();
    stand
        .admin()
        .delete_records(&before, &AdminOptions::new())
        .await
        .unwrap();
    let error = stand.start().failed().await;
    assert!(
        error.contains(&format!("position 0 of {topic} [0] lies outside")),
        "{error}"
    );
    assert_eq!(stand.number("SELECT count(*) FROM orders").await, 0);
    stand.close().await;
}

/// A registry that was replaced must not make poison of the whole log.
#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_registry_stops_the_projector() {
    let stand = Stand::new(1).await;
    let running = stand.start();
    stand.commit(&life::<Orders>(&new_id(), 1, events::order("anne", 1)));
    stand.applied().await;
    running.stop();

    stand.commit(&life::<Orders>(&new_id(), 1, events::order("anne", 1)));
    let replaced = Schemas::fixed(&Service::ALL.map(|service| (service, Topic::Events, 1)));
    let error = stand.start_with(replaced).failed().await;
    assert!(error.contains("no longer knows schema 100"), "{error}");
    assert_eq!(stand.parked().await, []);

    let running = stand.start();
    stand.applied().await;
    assert_eq!(stand.number("SELECT count(*) FROM orders").await, 2);
    running.stop();
    stand.close().await;
}

/// A read model is the fold of one log: another cluster, another prefix or another number of partitions is refused
/// before anything of it is mixed in.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_model_of_another_log_stops_the_projector() {
    let mut stand = Stand::new(1).await;
    let running = stand.start();
    stand.commit(&life::<Orders>(&new_id(), 1, events::order("anne", 1)));
    stand.applied().await;
    running.stop();

    let refused = async |stand: &Stand, what: &str| {
        let error = stand.start().failed().await;
        assert!(error.contains("the fold of another log"), "{error}");
        assert!(error.contains(what), "{what}: {error}");
        assert_eq!(stand.number("SELECT count(*) FROM positions").await, 4);
        assert_eq!(stand.number("SELECT count(*) FROM orders").await, 1);
    };
    let prefix = std::mem::replace(&mut stand.prefix, "another-".into());
    refused(&stand, r#"prefix "another-""#).await;
    stand.prefix = prefix;
    stand.partitions = 2;
    refused(&stand, "2 partitions").await;
    stand.partitions = 1;
    sqlx::query("UPDATE origin SET cluster_id = 'elsewhere'")
        .execute(&stand.pool)
        .await
        .unwrap();
    refused(&stand, "cluster elsewhere").await;
    stand.close().await;
}
