//! `ordermesh stock get`.

use anyhow::anyhow;
use contracts::query::v1::GetStockRequest;
use tonic::Code;

use super::sku;
use platform_client::{Api, request};
use terminal::{Align, Table, count, say, say_json};

/// Which products.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Available is what is on hand and not reserved for an order. Received and deducted count from the beginning.

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

/// Shows them, or none when one of them is not there.
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
            Code::NotFound => anyhow!("nothing is known of product {sku}"),
            _ => clients.failed(&status),
        });
        products.push(found?.into_inner());
    }
    if args.json {
        return products.iter().try_for_each(say_json);
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
    say(table.to_string())
}
