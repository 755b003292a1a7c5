//! `ordermesh stock adjust`.

use anyhow::anyhow;
use contracts::inventory::v1::AdjustStockRequest;
use contracts::rules::uuid_v7;
use platform_client::retry;
use platform_client::{Api, Clients, request};
use terminal::{count, print_json, print_line};
use tonic::{Code, Status};
use uuid::Uuid;

use super::sku;

/// Most pieces in one adjustment: the limit of the contract.
const MAX_DELTA: i64 = 1_000_000_000;

/// Flags of `ordermesh stock adjust`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
The stock never falls below what is reserved for orders.

Examples:
  ordermesh stock adjust mug 100
  ordermesh stock adjust mug -3
  ordermesh stock adjust mug 100 --id 0195b2f0-5a4e-7cc3-9d1f-6f0f1f6f0a11")]
pub struct Args {
    /// The product
    #[arg(value_name = "SKU", value_parser = sku)]
    sku: String,
    /// Pieces received, or taken away when negative
    #[arg(value_name = "DELTA", allow_negative_numbers = true, value_parser = delta)]
    delta: i64,
    /// The adjustment's id, a fresh UUIDv7: the same id is applied once [default: a new one]
    #[arg(long, value_name = "UUID", value_parser = adjustment_id)]
    id: Option<Uuid>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: Api,
}

/// Adjusts the stock of a product and prints the new figures.
///
/// # Errors
///
/// The API refuses the adjustment or does not answer.
pub async fn adjust(args: &Args) -> anyhow::Result<()> {
    let adjustment_id = args.id.unwrap_or_else(Uuid::now_v7);
    let adjustment = AdjustStockRequest {
        sku: args.sku.clone(),
        adjustment_id: adjustment_id.to_string(),
        delta: args.delta,
    };
    let mut clients = args.api.connect();
    let answer = clients
        .inventory
        .adjust_stock(request(adjustment))
        .await
        .map_err(|status| refused(&clients, args, adjustment_id, &status))?
        .into_inner();
    if args.json {
        return print_json(&answer);
    }
    print_line(format!(
        "{}  {} on hand, {} reserved, version {}",
        args.sku,
        count(answer.on_hand),
        count(answer.reserved),
        answer.version
    ))
}

fn refused(clients: &Clients, args: &Args, adjustment_id: Uuid, status: &Status) -> anyhow::Error {
    let Args { sku, delta, .. } = args;
    match status.code() {
        Code::FailedPrecondition | Code::AlreadyExists => {
            anyhow!("{sku} is not adjusted by {delta:+}: {}", status.message())
        }
        _ if retry::is_retryable(status) => clients.failed(status).context(format!(
            "it is unknown whether {sku} is adjusted; repeat the command with --id {adjustment_id}"
        )),
        _ => clients.failed(status),
    }
}

fn delta(text: &str) -> Result<i64, String> {
    text.parse()
        .ok()
        .filter(|delta| *delta != 0 && (-MAX_DELTA..=MAX_DELTA).contains(delta))
        .ok_or_else(|| "expected pieces, from -1000000000 to 1000000000 and not 0".to_owned())
}

fn adjustment_id(text: &str) -> Result<Uuid, String> {
    uuid_v7(text).ok_or_else(|| "expected a UUIDv7".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delta_is_a_number_of_pieces() {
        assert_eq!(delta("-3"), Ok(-3));
        assert_eq!(delta("+3"), Ok(3));
        for text in ["0", "1.5", "x", "1000000001", "-1000000001"] {
            assert!(delta(text).is_err(), "{text}");
        }
    }
}
