//! Measures the speed of the projector. Run on demand:
//! `cargo test -p query --test read_side -- --ignored --nocapture`.
#![allow(clippy::print_stdout, reason = "a measurement prints its result")]

use std::time::{Duration, Instant};

use contracts::query::v1::GetOrderRequest;
use contracts::{Inventory, Orders, Payments, Shipping};

use crate::events::{self, FramedRecord, event_records, new_id};
use crate::fixture::ReadSideFixture;

const ORDERS: usize = 5_000;
/// Orders whose events are interleaved.
const INTERLEAVED: usize = 100;
const LINES: usize = 10;
const PARTITIONS: u16 = 4;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn events_per_second() {
    let fixture = ReadSideFixture::new(PARTITIONS).await;
    let mut written = 0;
    for wave in 0..ORDERS / INTERLEAVED {
        let records = interleaved(
            (0..INTERLEAVED)
                .flat_map(|_| histories_of_an_order())
                .collect(),
        );
        written += records.len();
        let partition = wave % usize::from(PARTITIONS);
        fixture.commit_to(i32::try_from(partition).unwrap(), &records);
    }
    let start = Instant::now();
    let running = fixture.start();
    fixture.wait_until_applied().await;
    let elapsed = start.elapsed();
    let rate = written as f64 / elapsed.as_secs_f64();
    println!("{written} events of {ORDERS} orders in {elapsed:.2?}: {rate:.0} events/s");

    assert_eq!(
        running.metric_sum("ordermesh_query_events_total"),
        written as f64
    );
    assert_eq!(fixture.parked().await, []);
    let rows = async |sql| usize::try_from(fixture.number(sql).await).unwrap();
    assert_eq!(
        rows("SELECT count(*) FROM orders WHERE version = 15").await,
        ORDERS
    );
    assert_eq!(rows("SELECT count(*) FROM order_events").await, ORDERS * 15);
    assert_eq!(
        rows("SELECT count(*) FROM stock WHERE version = 3").await,
        ORDERS * LINES
    );
    running.stop();
    fixture.close().await;
}

fn histories_of_an_order() -> Vec<Vec<FramedRecord>> {
    let id = new_id();
    let stock =
        |line| event_records::<Inventory>(&format!("{id}-{line}"), 1, events::stock(&id, 10));
    let mut histories = vec![
        event_records::<Orders>(&id, 1, events::order("anne", LINES)),
        event_records::<Payments>(&id, 1, events::payment()),
        event_records::<Shipping>(&id, 1, events::shipment()),
    ];
    histories.extend((0..LINES).map(stock));
    histories
}

/// All first events, then all second ones…
fn interleaved(histories: Vec<Vec<FramedRecord>>) -> Vec<FramedRecord> {
    let mut steps: Vec<_> = histories
        .into_iter()
        .flat_map(|history| history.into_iter().enumerate())
        .collect();
    steps.sort_by_key(|(step, _)| *step);
    steps.into_iter().map(|(_, record)| record).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn time_from_commit_to_visible() {
    const READS: usize = 300;
    let fixture = ReadSideFixture::new(PARTITIONS).await;
    let mut running = fixture.start();
    running.wait_until_ready().await;
    let mut times = Vec::new();
    for _ in 0..READS {
        let id = new_id();
        fixture.commit(&event_records::<Orders>(
            &id,
            1,
            [events::created("anne", LINES)],
        ));
        let start = Instant::now();
        let request = GetOrderRequest {
            order_id: id,
            min_version: 1,
            min_position: None,
        };
        running.client.get_order(request).await.unwrap();
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let at = |share: usize| times[(READS - 1) * share / 100];
    println!(
        "from commit to visible: p50 {:.1?}, p95 {:.1?}, p99 {:.1?}",
        at(50),
        at(95),
        at(99)
    );
    assert!(at(50) < Duration::from_secs(1));
    running.stop();
    fixture.close().await;
}
