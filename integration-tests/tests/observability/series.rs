//! The number of series depends on services, methods and partitions, not on the traffic.

use std::collections::BTreeSet;

use contracts::orders::v1::OrderStatus;
use harness::system::{System, order_of};
use uuid::Uuid;

/// More than a process with all services exports on four partitions; a histogram has one or two dozen series.
const MAX_SERIES: usize = 4_000;
/// Rounds of orders. At least one of them must add no series.
const ROUNDS: usize = 10;

#[test]
fn orders_customers_and_products_create_no_series() {
    let mut system = System::new();
    system.start_until_ready("all");
    let products: Vec<_> = (0..20).map(|number| format!("sku-{number:04}")).collect();
    system.stock_all(products.iter().map(|sku| (sku.clone(), 100)).collect());
    let mut series_names = round(&system, &products, 0);
    let settled = (1..ROUNDS).any(|number| {
        let before = std::mem::replace(&mut series_names, round(&system, &products, number));
        series_names.is_subset(&before)
    });
    println!("{} series", series_names.len());
    // Some kinds, codes and partitions appear late, but not one for each order.
    assert!(settled, "each round adds series");
    assert!(
        series_names.len() < MAX_SERIES,
        "{} series",
        series_names.len()
    );
    for series in &series_names {
        let is_named = ["sku-", "customer-"].iter().any(|id| series.contains(id));
        assert!(!is_named, "{series}");
        let mut parts = series.split(|c: char| !c.is_ascii_hexdigit() && c != '-');
        assert!(
            !parts.any(|part| part.len() >= 32 && Uuid::try_parse(part).is_ok()),
            "{series}"
        );
    }
}

/// Places one order for each product. Returns the series when all are delivered.
fn round(system: &System, products: &[String], number: usize) -> BTreeSet<String> {
    let orders: Vec<_> = products
        .iter()
        .map(|sku| {
            let mut order = order_of(&[(sku, 1)]);
            order.customer_id = format!("customer-{number}-{sku}");
            system.place(order).unwrap().order_id
        })
        .collect();
    for order_id in &orders {
        system.wait_for_status(order_id, OrderStatus::Delivered);
    }
    series(system)
}

/// Names and labels of all exported series.
fn series(system: &System) -> BTreeSet<String> {
    let metrics = system.metrics("all");
    metrics
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let line = line.split(" # ").next()?;
            line.rsplit_once(' ').map(|(series, _)| series.to_owned())
        })
        .collect()
}
