//! `ordermesh stock get`.

use anyhow::anyhow;
use contracts::query::v1::GetStockRequest;
use platform_client::{Api, request};
use terminal::{Align, Table, count, print_json, print_line};
use tonic::Code;

use super::sku;

/// Flags of `ordermesh stock get`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Available pieces are on hand and not reserved for an order. Received and deducted are totals since the beginning.

Examples:
  ordermesh stock get mug
  ordermesh stock get mug tea --json")]
pub struct Args {
    /// A product
    #[arg(value_name = "SKU", required = true, value_parser = sku)]
    skus: Vec<String>,
    /// Print one product a line as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: Api,
}

/// Shows the products, or none of them when one is unknown.
///
/// # Errors
///
/// There is no such product, or the API does not answer.
pub async fn get(args: &Args) -> anyhow::Result<()> {
    let mut clients = args.api.connect();
    let mut products = Vec::new();
    for sku in &args.skus {
        let read = GetStockRequest {
            sku: sku.clone(),
            min_version: 0,
        };
        let found = clients.query.get_stock(request(read)).await;
        let found = found.map_err(|status| match status.code() {
            Code::NotFound => anyhow!("there is no product {sku}"),
            _ => clients.failed(&status),
        });
        products.push(found?.into_inner());
    }
    if args.json {
        return products.iter().try_for_each(print_json);
    }
    let mut table = Table::new([
        ("sku", Align::Left),
        ("on hand", Align::Right),
        ("reserved", Align::Right),
        ("available", Align::Right),
        ("received", Align::Right),
        ("deducted", Align::Right),
        ("version", Align::Right),
    ]);
    for product in products {
        table.row([
            product.sku,
            count(product.on_hand),
            count(product.reserved),
            count(product.available),
            count(product.received),
            count(product.deducted),
            product.version.to_string(),
        ]);
    }
    print_line(table.to_string())
}
