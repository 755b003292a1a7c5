//! The number of series is bounded by what there is of services, methods and partitions, not by what passes through.

use std::collections::BTreeSet;

use contracts::orders::v1::OrderStatus;
use harness::system::{System, order_of};
use uuid::Uuid;

/// More than a process tells that serves everything, on four partitions; each histogram is a dozen or two.
const MOST: usize = 4_000;
/// Rounds of orders, one of which adds no series.
const ROUNDS: usize = 10;

#[test]
fn no_order_customer_or_product_makes_a_series() {
    let mut system = System::new();
    system.up("all");
    let products: Vec<_> = (0..20).map(|number| format!("sku-{number:04}")).collect();
    system.stock_all(products.iter().map(|sku| (sku.clone(), 100)).collect());
    let mut told = round(&system, &products, 0);
    let settled = (1..ROUNDS).any(|number| {
        let before = std::mem::replace(&mut told, round(&system, &products, number));
        told.is_subset(&before)
    });
    println!("{} series", told.len());
    // Some kinds, codes and partitions are met late, but not one for each order.
    assert!(settled, "each round adds series");
    assert!(told.len() < MOST, "{} series", told.len());
    for series in &told {
        let is_named = ["sku-", "customer-"].iter().any(|id| series.contains(id));
        assert!(!is_named, "{series}");
        let mut words = series.split(|c: char| !c.is_ascii_hexdigit() && c != '-');
        assert!(
            !words.any(|word| word.len() >= 32 && Uuid::try_parse(word).is_ok()),
            "{series}"
        );
    }
}

/// One order for each product; everything that is told when they are delivered.
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
        system.reaches(order_id, OrderStatus::Delivered);
    }
    series(system)
}

/// Names and labels of everything that is told.
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
