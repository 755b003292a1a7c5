//! The metrics of the read side.

use contracts::{Orders, Payments, Service};
use tonic::Request;

use crate::events::{self, event_records, event_records_now, new_id};
use crate::fixture::{ReadSideFixture, RunningReadSide, eventually};

fn reached(running: &RunningReadSide, status: &str) -> f64 {
    let orders = running.metric_value("ordermesh_query_orders_total", &[status]);
    orders.unwrap_or_default()
}

fn timed(running: &RunningReadSide, until: &str) -> f64 {
    let orders = running.metric_value("ordermesh_query_order_seconds", &[until]);
    orders.unwrap_or_default()
}

/// Waits until the counter has the value; it is incremented after the commit.
async fn wait_for_count(running: &RunningReadSide, status: &str, orders: f64) {
    eventually("the orders are counted", async || {
        reached(running, status) == orders
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_counted_once_and_timed_unless_its_events_are_old() {
    let fixture = ReadSideFixture::new(1).await;
    let running = fixture.start();
    let (old, new) = (new_id(), new_id());
    fixture.commit(&event_records::<Orders>(&old, 1, events::order("anne", 1)));
    wait_for_count(&running, "delivered", 1.0).await;
    for status in ["created", "awaiting_payment", "confirmed", "delivered"] {
        assert_eq!(reached(&running, status), 1.0, "{status}");
        assert_eq!(timed(&running, status), 0.0, "{status}");
    }
    let visible = |service: Service| {
        let events = running.metric_value("ordermesh_query_visible_seconds", &[service.name()]);
        events.unwrap_or_default()
    };
    assert_eq!(visible(Service::Orders), 0.0);

    let records = event_records_now::<Orders>(&new, 1, events::order("anne", 1));
    fixture.commit(&records);
    fixture.commit(&records);
    fixture.commit(&event_records_now::<Payments>(&new, 1, events::payment()));
    wait_for_count(&running, "delivered", 2.0).await;
    fixture.wait_until_applied().await;
    eventually("the payment is seen", async || {
        visible(Service::Payments) == 3.0
    })
    .await;
    for until in ["confirmed", "shipped", "delivered"] {
        assert_eq!(reached(&running, until), 2.0, "{until}");
        assert_eq!(timed(&running, until), 1.0, "{until}");
    }
    assert_eq!(timed(&running, "created"), 0.0);
    assert_eq!(visible(Service::Orders), 6.0);
    assert_eq!(visible(Service::Payments), 3.0);
    let value = running.metric_value(
        "ordermesh_query_order_value_minor_total",
        &["GBP", "delivered"],
    );
    assert_eq!(value, Some(1_000.0));
    let lag = || running.metric_value("ordermesh_query_lag_seconds", &["0", "orders"]);
    eventually("the lag is measured", async || lag().is_some()).await;
    let lag = lag();
    assert!(
        lag.is_none_or(|seconds| seconds < 3_600.0),
        "{lag:?}: the age of an event that is applied"
    );
    running.stop();
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_orders_are_shown_with_the_age_of_the_oldest() {
    let fixture = ReadSideFixture::new(1).await;
    let mut running = fixture.start();
    let order = events::order("anne", 1);
    let incomplete = new_id();
    let mut records = event_records::<Orders>(&new_id(), 1, order[..1].to_vec());
    records.extend(event_records_now::<Orders>(
        &new_id(),
        1,
        order[..4].to_vec(),
    ));
    records.extend(event_records_now::<Orders>(
        &incomplete,
        2,
        order[1..2].to_vec(),
    ));
    fixture.commit(&records);
    let open = |running: &RunningReadSide, status: &str| {
        running.metric_value("ordermesh_query_open_orders", &[status])
    };
    eventually("the table metrics were collected", async || {
        open(&running, "pending") == Some(1.0)
            && running.metric_value("ordermesh_query_parked_keys", &[]) == Some(1.0)
    })
    .await;
    assert_eq!(open(&running, "confirmed"), Some(1.0));
    assert_eq!(open(&running, "shipped"), Some(0.0));
    assert_eq!(open(&running, "delivered"), None, "it is final");
    let oldest = |status: &str| {
        let seconds = running.metric_value("ordermesh_query_oldest_open_order_seconds", &[status]);
        seconds.unwrap()
    };
    assert!(oldest("pending") > 86_400.0);
    assert!(oldest("confirmed") < 86_400.0);
    assert_eq!(oldest("shipped"), 0.0);

    let request = contracts::query::v1::GetOrderRequest {
        order_id: incomplete,
        ..Default::default()
    };
    let missing = running.client.get_order(Request::new(request)).await;
    assert_eq!(missing.unwrap_err().code(), tonic::Code::NotFound);
    for statement in ["advance_positions", "commit", "read_order", "store_rows"] {
        let times = running.metric_value("ordermesh_query_statement_seconds", &[statement]);
        assert!(times.is_some_and(|times| times >= 1.0), "{statement}");
    }
    let connections = |state: &str| {
        running
            .metric_value("ordermesh_query_pool_connections", &[state])
            .unwrap()
    };
    assert!(connections("idle") + connections("used") >= 1.0);

    // Stale values would look current.
    sqlx::query("ALTER TABLE parked RENAME TO elsewhere")
        .execute(&fixture.pool)
        .await
        .unwrap();
    eventually("metrics that cannot be collected are absent", async || {
        running
            .metric_value("ordermesh_query_parked_keys", &[])
            .is_none()
            && open(&running, "pending").is_none()
            && running
                .metric_value("ordermesh_query_oldest_open_order_seconds", &["pending"])
                .is_none()
    })
    .await;
    running.stop();
    fixture.close().await;
}

/// Stale values would look current.
#[tokio::test(flavor = "multi_thread")]
async fn table_metrics_are_absent_without_a_database() {
    let mut fixture = ReadSideFixture::new(1).await;
    let url = fixture.use_unreachable_database();
    let running = fixture.start();
    fixture.use_database(url);
    eventually("a collection has failed", async || {
        running.metric_sum("ordermesh_query_look_failures_total") >= 1.0
    })
    .await;
    assert_eq!(
        running.metric_value("ordermesh_query_open_orders", &["pending"]),
        None
    );
    assert_eq!(
        running.metric_value("ordermesh_query_parked_keys", &[]),
        None
    );
    running.stop();
    fixture.close().await;
}
