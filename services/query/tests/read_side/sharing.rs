//! Several projectors on one read model.

use contracts::Orders;

use crate::events::{self, life, new_id};
use crate::fixture::{ReadSideFixture, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn projectors_share_the_partitions_and_take_over() {
    let fixture = ReadSideFixture::new(4).await;
    let first = fixture.start();
    eventually("the first owns everything", async || {
        first.positions_shown() == 16
    })
    .await;
    let second = fixture.start();
    eventually("both own half", async || {
        first.positions_shown() == 8 && second.positions_shown() == 8
    })
    .await;

    place_on_every_partition(&fixture);
    fixture.applied().await;
    assert_eq!(first.metric("ordermesh_query_events_total"), 2.0 * 7.0);
    assert_eq!(second.metric("ordermesh_query_events_total"), 2.0 * 7.0);

    first.stop();
    eventually("the second owns everything", async || {
        second.positions_shown() == 16
    })
    .await;
    place_on_every_partition(&fixture);
    fixture.applied().await;
    assert_eq!(second.metric("ordermesh_query_events_total"), 6.0 * 7.0);
    assert_eq!(second.metric("ordermesh_query_fenced_total"), 0.0);
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
            &life::<Orders>(&new_id(), 1, events::order("anne", 2)),
        );
    }
}
