//! `ordermesh stock`: shows and adjusts the stock of products.

mod adjust;
mod get;

use clap::Subcommand;
use contracts::rules::is_sku;

/// The subcommands of `ordermesh stock`.
#[derive(Subcommand)]
#[command(after_help = "\
Examples:
  ordermesh stock adjust mug 100
  ordermesh stock get mug")]
pub enum Command {
    /// Show the stock of products
    Get(get::Args),
    /// Add pieces to a product's stock, or take some away
    Adjust(adjust::Args),
}

/// Runs a subcommand.
///
/// # Errors
///
/// The API refuses or does not answer.
pub async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Get(args) => get::get(&args).await,
        Command::Adjust(args) => adjust::adjust(&args).await,
    }
}

fn sku(text: &str) -> Result<String, String> {
    if is_sku(text) {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 64 bytes without control characters".to_owned())
    }
}
