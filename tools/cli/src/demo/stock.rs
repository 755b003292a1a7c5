//! The stock of the demo: enough pieces of nearly all products.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use contracts::inventory::v1::AdjustStockRequest;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use load::baskets::BasketFile;
use platform_client::retry::{self, Backoff};
use platform_client::{Clients, request};
use terminal::progress::Progress;
use uuid::Uuid;

/// Number of products with too few pieces: the most wanted ones.
const SHORT_PRODUCTS: usize = 20;
/// Percent of the wanted pieces that short products have.
const SHORT_PERCENT: i64 = 60;
/// Concurrent adjustments.
const CONCURRENCY: usize = 512;
const TIMEOUT: Duration = Duration::from_secs(60);

/// A product and the pieces put into its stock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// The product.
    pub sku: String,
    /// Pieces in all baskets together.
    pub wanted: i64,
    /// Pieces put into stock.
    pub pieces: i64,
}

impl Product {
    /// Whether there are fewer pieces than the baskets want.
    pub const fn is_short(&self) -> bool {
        self.pieces < self.wanted
    }
}

/// All products of the baskets with their pieces; the most wanted ones are short. The same file gives the same result.
pub fn products(file: &BasketFile) -> Vec<Product> {
    let mut wanted: HashMap<&str, i64> = HashMap::new();
    for line in file.baskets.iter().flat_map(|basket| &basket.lines) {
        *wanted.entry(&line.sku).or_default() += i64::from(line.quantity);
    }
    let mut products: Vec<_> = wanted
        .into_iter()
        .map(|(sku, wanted)| Product {
            sku: sku.to_owned(),
            wanted,
            pieces: wanted,
        })
        .filter(|product| product.wanted > 0)
        .collect();
    products.sort_by(|a, b| b.wanted.cmp(&a.wanted).then_with(|| a.sku.cmp(&b.sku)));
    for product in products.iter_mut().take(SHORT_PRODUCTS) {
        product.pieces = product.wanted * SHORT_PERCENT / 100;
    }
    products
}

/// Puts the products into stock. Returns the number of pieces.
///
/// # Errors
///
/// The API refuses, or does not answer in time.
pub async fn fill(
    stock: Vec<Product>,
    clients: &Clients,
    progress: &Progress,
) -> anyhow::Result<i64> {
    let pieces = stock.iter().map(|product| product.pieces).sum();
    stream::iter(stock.into_iter().filter(|product| product.pieces > 0))
        .map(|product| async move {
            adjust(product, clients).await?;
            progress.step();
            anyhow::Ok(())
        })
        .buffer_unordered(CONCURRENCY)
        .try_collect::<()>()
        .await?;
    Ok(pieces)
}

async fn adjust(product: Product, clients: &Clients) -> anyhow::Result<()> {
    let adjustment = AdjustStockRequest {
        sku: product.sku,
        // Retries use the same id: the pieces are added once.
        adjustment_id: Uuid::now_v7().to_string(),
        delta: product.pieces,
    };
    let began = Instant::now();
    let mut backoff = Backoff::default();
    loop {
        match clients
            .inventory
            .clone()
            .adjust_stock(request(adjustment.clone()))
            .await
        {
            Ok(_) => return Ok(()),
            Err(status) if retry::is_retryable(&status) && began.elapsed() < TIMEOUT => {
                tokio::time::sleep(backoff.next(&status)).await;
            }
            Err(status) => return Err(clients.failed(&status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use load::baskets::REAL_BASKETS;

    use super::*;

    #[test]
    fn only_the_most_wanted_products_are_short() {
        let file = BasketFile::parse("b", REAL_BASKETS).unwrap();
        let products = products(&file);
        assert_eq!(
            products.iter().filter(|product| product.is_short()).count(),
            SHORT_PRODUCTS
        );
        assert!(
            products
                .iter()
                .all(|product| (1..=product.wanted).contains(&product.pieces))
        );
        let least_short = products
            .iter()
            .filter(|product| product.is_short())
            .map(|product| product.wanted)
            .min();
        let most_enough = products
            .iter()
            .filter(|product| !product.is_short())
            .map(|product| product.wanted)
            .max();
        assert!(least_short >= most_enough);
        assert_eq!(
            products,
            super::products(&file),
            "the same file gives the same stock"
        );
    }
}
