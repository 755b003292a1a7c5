//! How fast the projector is. Measurements, run on demand:
//! `cargo test -p query --test read_side -- --ignored --nocapture`.
#![allow(clippy::print_stdout, reason = "a measurement is there to be read")]

use std::time::{Duration, Instant};

use contracts::query::v1::GetOrderRequest;
use contracts::{Inventory, Orders, Payments, Shipping};

use crate::events::{self, Sealed, life, new_id};
use crate::fixture::ReadSideFixture;

const ORDERS: usize = 5_000;
/// Orders that are in the same step at the same time.
const AT_ONCE: usize = 100;
const LINES: usize = 10;
const PARTITIONS: u16 = 4;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn events_per_second() {
    let fixture = ReadSideFixture::new(PARTITIONS).await;
    let mut written = 0;
    for wave in 0..ORDERS / AT_ONCE {
        let records = interleaved((0..AT_ONCE).flat_map(|_| lives_of_an_order()).collect());
        written += records.len();
        let partition = wave % usize::from(PARTITIONS);
        fixture.commit_to(i32::try_from(partition).unwrap(), &records);
    }
    let start = Instant::now();
    let running = fixture.start();
    fixture.applied().await;
    let elapsed = start.elapsed();
    let rate = written as f64 / elapsed.as_secs_f64();
    println!("{written} events of {ORDERS} orders in {elapsed:.2?}: {rate:.0} events/s");

    assert_eq!(
        running.metric("ordermesh_query_events_total"),
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

fn lives_of_an_order() -> Vec<Vec<Sealed>> {
    let id = new_id();
    let stock = |line| life::<Inventory>(&format!("{id}-{line}"), 1, events::stock(&id, 10));
    let mut lives = vec![
        life::<Orders>(&id, 1, events::order("anne", LINES)),
        life::<Payments>(&id, 1, events::payment()),
        life::<Shipping>(&id, 1, events::shipment()),
    ];
    lives.extend((0..LINES).map(stock));
    lives
}

/// All first events, then all second ones…
fn interleaved(lives: Vec<Vec<Sealed>>) -> Vec<Sealed> {
    let mut steps: Vec<_> = lives
        .into_iter()
        .flat_map(|life| life.into_iter().enumerate())
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
    running.ready().await;
    let mut times = Vec::new();
    for _ in 0..READS {
        let id = new_id();
        fixture.commit(&life::<Orders>(&id, 1, [events::created("anne", LINES)]));
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
