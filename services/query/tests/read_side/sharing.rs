//! Several projectors on one read model.

use contracts::Orders;

use crate::events::{self, event_records, new_id};
use crate::fixture::{ReadSideFixture, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn projectors_share_the_partitions_and_take_over_those_of_a_stopped_one() {
    let fixture = ReadSideFixture::new(4).await;
    let first = fixture.start();
    eventually("the first owns everything", async || {
        first.owned_partitions() == 16
    })
    .await;
    let second = fixture.start();
    eventually("both own half", async || {
        first.owned_partitions() == 8 && second.owned_partitions() == 8
    })
    .await;

    place_on_every_partition(&fixture);
    fixture.wait_until_applied().await;
    assert_eq!(first.metric_sum("ordermesh_query_events_total"), 2.0 * 7.0);
    assert_eq!(second.metric_sum("ordermesh_query_events_total"), 2.0 * 7.0);

    first.stop();
    eventually("the second owns everything", async || {
        second.owned_partitions() == 16
    })
    .await;
    place_on_every_partition(&fixture);
    fixture.wait_until_applied().await;
    assert_eq!(second.metric_sum("ordermesh_query_events_total"), 6.0 * 7.0);
    assert_eq!(second.metric_sum("ordermesh_query_fenced_total"), 0.0);
    assert_eq!(
        fixture
            .number("SELECT count(*) FROM orders WHERE version = 7")
            .await,
        8
    );
    second.stop();
    fixture.close().await;
}

fn place_on_every_partition(fixture: &ReadSideFixture) {
    for partition in 0..i32::from(fixture.partitions) {
        fixture.commit_to(
            partition,
            &event_records::<Orders>(&new_id(), 1, events::order("anne", 2)),
        );
    }
}
