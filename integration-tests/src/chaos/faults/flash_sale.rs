//! A flash sale: many customers want few pieces while processes are killed.

use std::collections::BTreeMap;

use contracts::orders::v1::OrderStatus;

use super::processes;
use crate::chaos::load::WorkloadMix;
use crate::chaos::{ChaosRig, Plan};

/// What is on sale, and how many orders there are.
#[derive(Clone, Copy, Debug)]
pub struct Sale {
    /// Number of orders, each of one piece of one product.
    pub orders: u64,
    /// Number of products.
    pub products: usize,
    /// Pieces of each product.
    pub pieces: i64,
    /// Whether some payments are declined and some orders cancelled.
    pub returns: bool,
}

/// Runs the sale, kills processes meanwhile, and counts the pieces. Without returns every piece is sold; with returns
/// none is lost.
pub fn sell(sale: Sale, plan: Plan) {
    let mix = WorkloadMix {
        products: sale.products,
        pieces: sale.pieces,
        single: true,
        cancelled_percent: if sale.returns { 10 } else { 0 },
        repeated_percent: 5,
        free_percent: 0,
    };
    let declined_percent = if sale.returns { 5 } else { 0 };
    let mut rig = ChaosRig::new(Plan {
        mix,
        declined_percent,
        orders: Some(sale.orders),
        ..plan
    });
    processes::kill_until_finished(&mut rig);
    rig.drain_and_audit();
    rig.assert_stock(sale);
}

impl ChaosRig {
    fn assert_stock(&self, sale: Sale) {
        let stock = self.query(
            "SELECT sku, received, on_hand, reserved, deducted FROM read_v1.stock ORDER BY sku",
        );
        let sold: BTreeMap<String, i64> = self
            .query(&format!(
                "SELECT sku, sum(quantity) FROM read_v1.order_lines JOIN read_v1.orders USING (order_id)
                  WHERE status = {} GROUP BY sku",
                OrderStatus::Delivered as i32
            ))
            .iter()
            .filter_map(|row| {
                let (sku, pieces) = row.split_once('|')?;
                Some((sku.to_owned(), pieces.parse().ok()?))
            })
            .collect();
        assert_eq!(stock.len(), sale.products);
        for row in stock {
            let columns: Vec<_> = row.split('|').collect();
            let [received, on_hand, reserved, deducted] =
                [1, 2, 3, 4].map(|column| columns[column].parse::<i64>().expect("a number"));
            let sold = sold.get(columns[0]).copied().unwrap_or(0);
            assert_eq!((received, reserved), (sale.pieces, 0), "{row}");
            assert_eq!(sold + on_hand, sale.pieces, "{row}: {sold} sold");
            assert_eq!(deducted, sold, "{row}");
            if !sale.returns {
                assert_eq!(sold, sale.pieces, "{row}: a piece was not sold");
            }
        }
        println!(
            "{} pieces of each of {} products, each sold once or in stock",
            sale.pieces, sale.products
        );
    }
}
